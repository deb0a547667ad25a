// Layer normalisation, in place; it remembers the normalised numbers in scratch.
// Source: Ba, Kiros and Hinton 2016.

/// y = scale ⊙ n + shift, n = (x − mean(x)) / √(variance(x) + ε), over the `width` numbers of each row.
///
/// The variance is the biased one, ε is 1e-5.
struct LayerNorm: Sendable {
  let width: Int
  private let scale: Int
  private let shift: Int
  /// n, shape `[rows, width]`.
  private let normalised: Int
  /// 1 / √(variance + ε), shape `[rows]`.
  private let inverses: Int

  init(_ name: String, width: Int, plan: inout Plan) {
    self.width = width
    scale = plan.tensor("\(name).scale", [width], .ones)
    shift = plan.tensor("\(name).shift", [width], .zeros)
    normalised = plan.slot()
    inverses = plan.slot()
  }

  /// x becomes y in place.
  func forward(_ x: inout MutableSpan<Float>, rows: Int, dense: [[Float]], scratch: inout Scratch) {
    let (scales, shifts) = (dense[scale], dense[shift])
    var kept = scratch.take(normalised, count: rows * width)
    var roots = scratch.take(inverses, count: rows)
    var n = kept.mutableSpan
    Kernel.require(0, rows * width, min(x.count, n.count))
    for row in 0..<rows {
      let start = row * width
      let mean = Kernel.sum(x.span, at: start, count: width) / Float(width)
      for i in 0..<width { unsafe n[unchecked: start &+ i] = x[unchecked: start &+ i] - mean }
      let variance = Kernel.dot(n.span, at: start, n.span, at: start, count: width) / Float(width)
      let inverse = 1 / (variance + 1e-5).squareRoot()
      roots[row] = inverse
      normalise(&n, at: start, by: inverse, scales.span, shifts.span, to: &x)
    }
    scratch.put(normalised, kept)
    scratch.put(inverses, roots)
  }

  /// dy becomes dx in place; adds the gradients of scale and shift.
  ///
  /// With g = dy ⊙ scale: dx = (g − mean(g) − n · mean(g ⊙ n)) / √(variance + ε).
  func backward(
    _ dy: inout MutableSpan<Float>, rows: Int, dense: [[Float]], gradients: inout [[Float]], scratch: inout Scratch
  ) {
    let scales = dense[scale]
    let kept = scratch.take(normalised, count: rows * width)
    let roots = scratch.take(inverses, count: rows)
    let n = kept.span
    for row in 0..<rows {
      let start = row * width
      Kernel.addScaled(1, dy.span, at: start, to: &gradients[shift], count: width)
      Kernel.addProduct(dy.span, at: start, n, at: start, to: &gradients[scale], count: width)
      Kernel.multiply(&dy, at: start, by: scales.span, at: 0, count: width)
      let mean = Kernel.sum(dy.span, at: start, count: width) / Float(width)
      let slope = Kernel.dot(dy.span, at: start, n, at: start, count: width) / Float(width)
      let inverse = roots[row]
      Kernel.require(start, width, min(dy.count, n.count))
      for i in 0..<width {
        unsafe dy[unchecked: start &+ i] =
          inverse * (dy[unchecked: start &+ i] - mean - slope * n[unchecked: start &+ i])
      }
    }
    scratch.put(normalised, kept)
    scratch.put(inverses, roots)
  }

  private func normalise(
    _ n: inout MutableSpan<Float>, at start: Int, by inverse: Float, _ scales: Span<Float>, _ shifts: Span<Float>,
    to x: inout MutableSpan<Float>
  ) {
    Kernel.require(0, width, min(scales.count, shifts.count))
    Kernel.require(start, width, min(n.count, x.count))
    for i in 0..<width {
      let value = unsafe n[unchecked: start &+ i] * inverse
      unsafe n[unchecked: start &+ i] = value
      unsafe x[unchecked: start &+ i] = value * scales[unchecked: i] + shifts[unchecked: i]
    }
  }
}
