// Loops over floats that every batch runs through: free functions without state, so that they vectorize.

internal import Base
internal import Glibc

/// The natural logarithm.
func logOf(_ value: Float) -> Float { logf(value) }

/// Makes `values` as many as asked for, in the memory they have; what they hold then is for the caller to overwrite.
func resize(_ values: inout [Float], to count: Int) {
  if values.count < count {
    values.append(contentsOf: repeatElement(0, count: count - values.count))
  } else {
    values.removeLast(values.count - count)
  }
}

/// Makes `values` zeros, as many as `model` has.
func zero(_ values: inout [Float], as model: [Float]) {
  resize(&values, to: model.count)
  var span = values.mutableSpan
  for index in span.indices { span[index] = 0 }
}

/// Adds `values` to `sums`, one by one.
func add(_ values: [Float], to sums: inout [Float]) {
  let source = values.span
  var target = sums.mutableSpan
  for index in target.indices { target[index] += source[index] }
}

/// Writes row `i` of `rows` to place `places[i]` of `target`.
///
/// Shapes `[places × width]`.
func scatter(_ rows: View<Float>, to places: [Int32], width: Int, in target: inout [Float]) {
  let source = rows.span
  var target = target.mutableSpan
  for index in places.indices {
    let (from, to) = (index * width, Int(places[index]) * width)
    for column in 0..<width { target[to + column] = source[from + column] }
  }
}

/// Writes row `places[i]` of `rows` to place `i` of `target`.
///
/// Shapes `[places × width]`.
func collect(_ places: [Int32], width: Int, of rows: [Float], into target: inout MutableSpan<Float>) {
  let source = rows.span
  for index in places.indices {
    let (from, to) = (Int(places[index]) * width, index * width)
    for column in 0..<width { target[to + column] = source[from + column] }
  }
}

/// Whether every number is finite; reads all of them, so that the loop vectorizes.
func areFinite(_ values: [Float]) -> Bool {
  let span = values.span
  var lanes = SIMD16<Float>.zero
  var index = 0
  while index &+ 16 <= span.count {
    for lane in 0..<16 { lanes[lane] += unsafe span[unchecked: index &+ lane] * 0 }
    index &+= 16
  }
  var rest: Float = 0
  while index < span.count {
    rest += span[index] * 0
    index &+= 1
  }
  // NaN and infinity times zero are NaN.
  return lanes.sum() + rest == 0
}
