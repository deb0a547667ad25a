// The MLP-Mixer block: tokens exchange what they know, then each works on its own. Source: Tolstikhin et al. 2021,
// "MLP-Mixer", equation 1.

internal import Glibc

/// U = X + (MLP over tokens of LN(X))ᵀ, Y = U + MLP over channels of LN(U), all `[examples, tokens, channels]`.
///
/// Each MLP is linear, GELU, linear; the one over tokens runs on `[examples, channels, tokens]`.
package struct MixerBlock: Sendable {
  private let tokens: Int
  private let channels: Int
  private let tokenMixing: MixingStep
  private let channelMixing: MixingStep
  /// U, and the transposed LN(X) and what the tokens' MLP makes of it.
  private let middle: Int
  private let turned: Int
  private let mixed: Int

  /// A block with hidden layers of the given widths over tokens and over channels.
  package init(
    _ name: String, tokens: Int, channels: Int, tokenHidden: Int, channelHidden: Int, plan: inout Plan
  ) {
    self.tokens = tokens
    self.channels = channels
    tokenMixing = MixingStep(
      "\(name).tokens", width: tokens, hidden: tokenHidden, normWidth: channels, plan: &plan)
    channelMixing = MixingStep(
      "\(name).channels", width: channels, hidden: channelHidden, normWidth: channels, plan: &plan)
    middle = plan.slot()
    turned = plan.slot()
    mixed = plan.slot()
  }

  /// Fills `y` from `x`; `y` comes in holding anything.
  package func forward(
    _ x: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch, to y: inout MutableSpan<Float>
  ) {
    let count = examples * tokens * channels
    var u = scratch.take(middle, count: count)
    var columns = scratch.take(turned, count: count)
    var result = scratch.take(mixed, count: count)
    var us = u.mutableSpan
    Kernel.copy(x, at: 0, to: &us, at: 0, count: count)
    tokenMixing.norm.forward(&us, rows: examples * tokens, dense: dense, scratch: &scratch)
    var cs = columns.mutableSpan
    Kernel.transpose(us.span, matrices: examples, rows: tokens, columns: channels, to: &cs)
    var rs = result.mutableSpan
    tokenMixing.forward(cs.span, rows: examples * channels, dense: dense, scratch: &scratch, to: &rs)
    Kernel.transpose(rs.span, matrices: examples, rows: channels, columns: tokens, to: &us)
    Kernel.addScaled(1, x, at: 0, to: &us, at: 0, count: count)

    Kernel.copy(us.span, at: 0, to: &rs, at: 0, count: count)
    channelMixing.norm.forward(&rs, rows: examples * tokens, dense: dense, scratch: &scratch)
    channelMixing.forward(rs.span, rows: examples * tokens, dense: dense, scratch: &scratch, to: &y)
    Kernel.addScaled(1, us.span, at: 0, to: &y, at: 0, count: count)
    scratch.put(middle, u)
    scratch.put(turned, columns)
    scratch.put(mixed, result)
  }

  /// Adds the parameters' gradients; `gradient`, of Y on the way in, becomes that of X.
  package func backward(
    _ gradient: inout [Float], examples: Int, dense: [[Float]], gradients: inout [[Float]], scratch: inout Scratch
  ) {
    let count = examples * tokens * channels
    // `mixed` still holds LN(U) and `turned` LN(X)ᵀ, the inputs of the two MLPs.
    var normed = scratch.take(mixed, count: count)
    let columns = scratch.take(turned, count: count)
    var d = scratch.take(middle, count: count)
    var ds = d.mutableSpan
    channelMixing.backward(
      gradient.span, x: normed.span, rows: examples * tokens, dense: dense, gradients: &gradients, scratch: &scratch,
      to: &ds)
    channelMixing.norm.backward(
      &ds, rows: examples * tokens, dense: dense, gradients: &gradients, scratch: &scratch)
    var total = gradient.mutableSpan
    Kernel.addScaled(1, ds.span, at: 0, to: &total, at: 0, count: count)

    Kernel.transpose(total.span, matrices: examples, rows: tokens, columns: channels, to: &ds)
    var ss = normed.mutableSpan
    tokenMixing.backward(
      ds.span, x: columns.span, rows: examples * channels, dense: dense, gradients: &gradients, scratch: &scratch,
      to: &ss)
    Kernel.transpose(ss.span, matrices: examples, rows: channels, columns: tokens, to: &ds)
    tokenMixing.norm.backward(
      &ds, rows: examples * tokens, dense: dense, gradients: &gradients, scratch: &scratch)
    Kernel.addScaled(1, ds.span, at: 0, to: &total, at: 0, count: count)
    scratch.put(mixed, normed)
    scratch.put(turned, columns)
    scratch.put(middle, d)
  }
}

/// A normalisation and linear, GELU, linear back to the same width, over `[rows, width]`.
private struct MixingStep: Sendable {
  let norm: LayerNorm
  private let inner: Linear
  private let outer: Linear
  /// What GELU reads and gives, shape `[rows, hidden]`, and the gradient of either.
  private let before: Int
  private let after: Int
  private let hiddenGradient: Int

  init(_ name: String, width: Int, hidden: Int, normWidth: Int, plan: inout Plan) {
    norm = LayerNorm("\(name).norm", width: normWidth, plan: &plan)
    inner = Linear("\(name).inner", inputs: width, outputs: hidden, plan: &plan)
    outer = Linear("\(name).outer", inputs: hidden, outputs: width, plan: &plan)
    before = plan.slot()
    after = plan.slot()
    hiddenGradient = plan.slot()
  }

  func forward(
    _ x: Span<Float>, rows: Int, dense: [[Float]], scratch: inout Scratch, to y: inout MutableSpan<Float>
  ) {
    var input = scratch.take(before, count: rows * inner.outputs)
    var output = scratch.take(after, count: rows * inner.outputs)
    var inputs = input.mutableSpan
    inner.forward(x, examples: rows, dense: dense, to: &inputs)
    for i in 0..<rows * inner.outputs { output[i] = input[i] * normalBelow(input[i]) }
    outer.forward(output.span, examples: rows, dense: dense, to: &y)
    scratch.put(before, input)
    scratch.put(after, output)
  }

  func backward(
    _ dy: Span<Float>, x: Span<Float>, rows: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, to dx: inout MutableSpan<Float>
  ) {
    let input = scratch.take(before, count: rows * inner.outputs)
    let output = scratch.take(after, count: rows * inner.outputs)
    var dh = scratch.take(hiddenGradient, count: rows * inner.outputs)
    outer.backwardParameters(dy, x: output.span, examples: rows, gradients: &gradients)
    var dhs = dh.mutableSpan
    outer.backwardInput(dy, examples: rows, dense: dense, to: &dhs)
    for i in 0..<rows * inner.outputs {
      let value = input[i]
      dh[i] *= normalBelow(value) + value * expf(-0.5 * value * value) / Float(2 * Double.pi).squareRoot()
    }
    inner.backwardParameters(dh.span, x: x, examples: rows, gradients: &gradients)
    inner.backwardInput(dh.span, examples: rows, dense: dense, to: &dx)
    scratch.put(before, input)
    scratch.put(after, output)
    scratch.put(hiddenGradient, dh)
  }

  /// The share of a standard normal distribution below `x`; GELU(x) is x times it.
  private func normalBelow(_ x: Float) -> Float {
    0.5 * (1 + erff(x * Float(0.5).squareRoot()))
  }
}
