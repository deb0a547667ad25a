// The small loops under the models. Each checks its bounds once and then runs unchecked: element-wise loops over spans
// vectorize by themselves, reductions do not and are written with SIMD8.
// Those that a batch runs over whole matrices are C, compiled for what the CPU has.

internal import CKernels

/// Loops over runs of floats; `start` arguments count floats.
enum Kernel {
  /// y += scale · x over `count` floats.
  @inline(__always)
  static func addScaled(
    _ scale: Float, _ x: Span<Float>, at xStart: Int, to y: inout MutableSpan<Float>, at yStart: Int, count: Int
  ) {
    require(xStart, count, x.count)
    require(yStart, count, y.count)
    for i in 0..<count { unsafe y[unchecked: yStart &+ i] += scale * x[unchecked: xStart &+ i] }
  }

  /// y += scale · x over the first `count` floats of an array.
  static func addScaled(_ scale: Float, _ x: Span<Float>, at xStart: Int, to y: inout [Float], count: Int) {
    var target = y.mutableSpan
    addScaled(scale, x, at: xStart, to: &target, at: 0, count: count)
  }

  /// y = x over `count` floats.
  @inline(__always)
  static func copy(_ x: Span<Float>, at xStart: Int, to y: inout MutableSpan<Float>, at yStart: Int, count: Int) {
    require(xStart, count, x.count)
    require(yStart, count, y.count)
    for i in 0..<count { unsafe y[unchecked: yStart &+ i] = x[unchecked: xStart &+ i] }
  }

  /// z += x ⊙ y over the first `count` floats of an array.
  static func addProduct(
    _ x: Span<Float>, at xStart: Int, _ y: Span<Float>, at yStart: Int, to z: inout [Float], count: Int
  ) {
    require(xStart, count, x.count)
    require(yStart, count, y.count)
    var target = z.mutableSpan
    require(0, count, target.count)
    for i in 0..<count { unsafe target[unchecked: i] += x[unchecked: xStart &+ i] * y[unchecked: yStart &+ i] }
  }

  /// y = y ⊙ x over `count` floats.
  static func multiply(
    _ y: inout MutableSpan<Float>, at yStart: Int, by x: Span<Float>, at xStart: Int, count: Int
  ) {
    require(xStart, count, x.count)
    require(yStart, count, y.count)
    for i in 0..<count { unsafe y[unchecked: yStart &+ i] *= x[unchecked: xStart &+ i] }
  }

  /// Each of the `[rows, columns]` matrices in x becomes `[columns, rows]` in y.
  static func transpose(
    _ x: Span<Float>, matrices: Int, rows: Int, columns: Int, to y: inout MutableSpan<Float>
  ) {
    require(0, matrices * rows * columns, min(x.count, y.count))
    for matrix in 0..<matrices {
      let start = matrix * rows * columns
      for row in 0..<rows {
        for column in 0..<columns {
          unsafe y[unchecked: start &+ column &* rows &+ row] = x[unchecked: start &+ row &* columns &+ column]
        }
      }
    }
  }

  /// y = max(y, 0) over the first `count` floats; a NaN stays one, so that it is seen in the logits.
  static func rectify(_ y: inout MutableSpan<Float>, count: Int) {
    require(0, count, y.count)
    for i in 0..<count {
      let value = unsafe y[unchecked: i]
      unsafe y[unchecked: i] = value < 0 ? 0 : value
    }
  }

  /// Each row of y `[rows, bias.count]` += bias, and max(…, 0) of it when `rectifying`; a NaN stays one.
  static func addBias(_ bias: Span<Float>, to y: inout MutableSpan<Float>, rows: Int, rectifying: Bool) {
    require(0, rows * bias.count, y.count)
    unsafe bias.withUnsafeBufferPointer { bias in
      unsafe y.withUnsafeMutableBufferPointer { y in
        if rectifying {
          unsafe guira_add_bias_rectifying(bias.baseAddress, bias.count, y.baseAddress, rows)
        } else {
          unsafe guira_add_bias(bias.baseAddress, bias.count, y.baseAddress, rows)
        }
      }
    }
  }

  /// sums += every row of x `[rows, sums.count]`.
  static func addRows(_ x: Span<Float>, rows: Int, to sums: inout MutableSpan<Float>) {
    require(0, rows * sums.count, x.count)
    unsafe x.withUnsafeBufferPointer { x in
      unsafe sums.withUnsafeMutableBufferPointer { sums in
        unsafe guira_add_rows(x.baseAddress, sums.count, rows, sums.baseAddress)
      }
    }
  }

  /// dy = scale · dy unless the output is 0: the way back through ReLU and dropout at once.
  static func rectifyGradient(_ dy: inout MutableSpan<Float>, output: Span<Float>, scale: Float, count: Int) {
    require(0, count, min(dy.count, output.count))
    unsafe dy.withUnsafeMutableBufferPointer { dy in
      unsafe output.withUnsafeBufferPointer { output in
        unsafe guira_rectify_backward(dy.baseAddress, output.baseAddress, scale, count)
      }
    }
  }

  /// y = 0 over `count` floats.
  @inline(__always)
  static func clear(_ y: inout MutableSpan<Float>, at yStart: Int, count: Int) {
    require(yStart, count, y.count)
    for i in 0..<count { unsafe y[unchecked: yStart &+ i] = 0 }
  }

  /// The sum of x over `count` floats.
  @inline(__always)
  static func sum(_ x: Span<Float>, at start: Int, count: Int) -> Float {
    require(start, count, x.count)
    var lanes = SIMD8<Float>.zero
    var i = 0
    while i &+ 8 <= count {
      lanes += eight(x, start &+ i)
      i &+= 8
    }
    var result = lanes.sum()
    while i < count {
      unsafe result += x[unchecked: start &+ i]
      i &+= 1
    }
    return result
  }

  /// The dot product of x and y over `count` floats.
  @inline(__always)
  static func dot(_ x: Span<Float>, at xStart: Int, _ y: Span<Float>, at yStart: Int, count: Int) -> Float {
    require(xStart, count, x.count)
    require(yStart, count, y.count)
    var first = SIMD8<Float>.zero
    var second = SIMD8<Float>.zero
    var i = 0
    while i &+ 16 <= count {
      first += eight(x, xStart &+ i) * eight(y, yStart &+ i)
      second += eight(x, xStart &+ i &+ 8) * eight(y, yStart &+ i &+ 8)
      i &+= 16
    }
    if i &+ 8 <= count {
      first += eight(x, xStart &+ i) * eight(y, yStart &+ i)
      i &+= 8
    }
    var result = (first + second).sum()
    while i < count {
      unsafe result += x[unchecked: xStart &+ i] * y[unchecked: yStart &+ i]
      i &+= 1
    }
    return result
  }

  /// Whether no number is NaN or infinite: x · 0 is 0 exactly for the finite ones.
  static func isFinite(_ x: Span<Float>) -> Bool {
    var lanes = SIMD8<Float>.zero
    var i = 0
    while i &+ 8 <= x.count {
      lanes += eight(x, i) * 0
      i &+= 8
    }
    var rest: Float = 0
    while i < x.count {
      rest += x[i] * 0
      i &+= 1
    }
    return lanes.sum() + rest == 0
  }

  /// Eight floats from a place the caller has checked.
  @inline(__always)
  static func eight(_ x: Span<Float>, _ start: Int) -> SIMD8<Float> {
    unsafe x.bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: start &* 4, as: SIMD8<Float>.self)
  }

  /// Traps unless `start ..< start + count` lies in `0 ..< bound`.
  @inline(__always)
  static func require(_ start: Int, _ count: Int, _ bound: Int) {
    precondition(start >= 0 && count >= 0 && start + count <= bound, "a run of floats leaves its array")
  }
}

extension [Float] {
  /// Makes it `count` long; what it holds then is for the caller to overwrite.
  mutating func setCount(_ count: Int) {
    if self.count != count { self = [Float](repeating: 0, count: count) }
  }
}
