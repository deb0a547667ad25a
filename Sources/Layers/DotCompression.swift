// Dot compression with attention: instead of the products of all pairs of tokens, those of each token with a few mixtures
// of them, whose weights the example itself decides. Source: Zhang et al. 2023, "Scaling User Modeling", 3.1, which names
// it and gives no formula; this is our reading. One example's matrices are too small to be worth a call of sgemm.

internal import Glibc

/// A = softmax over tokens of S, S = reshape(W · X + b); C = A · X; P = X · Cᵀ / √channels.
///
/// X `[examples, tokens, channels]`, S and A `[examples, mixtures, tokens]`, C `[examples, mixtures, channels]`, P
/// `[examples, tokens, mixtures]`.
struct DotCompression: Extractor {
  let outputs: Int
  private let tokens: Int
  private let channels: Int
  private let mixtures: Int
  private let scores: Linear
  private let scale: Float
  /// A, C, P, and the gradients of S and of one C.
  private let weights: Int
  private let mixed: Int
  private let products: Int
  private let scoreGradient: Int
  private let mixedGradient: Int

  init(_ name: String, tokens: Int, channels: Int, mixtures: Int, plan: inout Plan) {
    self.tokens = tokens
    self.channels = channels
    self.mixtures = mixtures
    outputs = tokens * mixtures
    scale = 1 / Float(channels).squareRoot()
    scores = Linear("\(name).scores", inputs: tokens * channels, outputs: mixtures * tokens, plan: &plan)
    weights = plan.slot()
    mixed = plan.slot()
    products = plan.slot()
    scoreGradient = plan.slot()
    mixedGradient = plan.slot()
  }

  func forward(_ x: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch) {
    var a = scratch.take(weights, count: examples * mixtures * tokens)
    var c = scratch.takeCleared(mixed, count: examples * mixtures * channels)
    var p = scratch.take(products, count: examples * outputs)
    var s = a.mutableSpan
    scores.forward(x, examples: examples, dense: dense, to: &s)
    for row in 0..<examples * mixtures { softmax(&s, at: row * tokens) }
    var cs = c.mutableSpan
    for example in 0..<examples {
      for mixture in 0..<mixtures {
        let row = example * mixtures + mixture
        for token in 0..<tokens {
          Kernel.addScaled(
            s[row * tokens + token], x, at: (example * tokens + token) * channels, to: &cs, at: row * channels,
            count: channels)
        }
        for token in 0..<tokens {
          let product = Kernel.dot(
            x, at: (example * tokens + token) * channels, cs.span, at: row * channels, count: channels)
          p[(example * tokens + token) * mixtures + mixture] = scale * product
        }
      }
    }
    scratch.put(weights, a)
    scratch.put(mixed, c)
    scratch.put(products, p)
  }

  func takeOutput(_ scratch: inout Scratch) -> [Float] { scratch.take(products, count: 0) }

  func putOutput(_ output: consuming [Float], _ scratch: inout Scratch) { scratch.put(products, output) }

  /// With dP scaled: dX_t += Σ_j dP_tj C_j and dC_j = Σ_t dP_tj X_t; then dX_t += Σ_j A_jt dC_j, and with
  /// dA_jt = ⟨dC_j, X_t⟩ the softmax's dS_jt = A_jt (dA_jt − Σ_u A_ju dA_ju), which goes on through W.
  func backward(
    _ gradient: inout [Float], x: Span<Float>, examples: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, addingInputGradientTo dx: inout [Float]
  ) {
    let a = scratch.take(weights, count: examples * mixtures * tokens)
    let c = scratch.take(mixed, count: examples * mixtures * channels)
    var ds = scratch.take(scoreGradient, count: examples * mixtures * tokens)
    var dc = scratch.take(mixedGradient, count: channels)
    var target = dx.mutableSpan
    for example in 0..<examples {
      for mixture in 0..<mixtures {
        let row = example * mixtures + mixture
        var dcs = dc.mutableSpan
        Kernel.clear(&dcs, at: 0, count: channels)
        for token in 0..<tokens {
          let place = (example * tokens + token) * channels
          let dp = scale * gradient[(example * tokens + token) * mixtures + mixture]
          Kernel.addScaled(dp, x, at: place, to: &dcs, at: 0, count: channels)
          Kernel.addScaled(dp, c.span, at: row * channels, to: &target, at: place, count: channels)
        }
        var mean: Float = 0
        for token in 0..<tokens {
          let place = (example * tokens + token) * channels
          let weight = a[row * tokens + token]
          let da = Kernel.dot(dcs.span, at: 0, x, at: place, count: channels)
          Kernel.addScaled(weight, dcs.span, at: 0, to: &target, at: place, count: channels)
          mean += weight * da
          ds[row * tokens + token] = da
        }
        for token in 0..<tokens {
          let place = row * tokens + token
          ds[place] = a[place] * (ds[place] - mean)
        }
      }
    }
    scores.backwardParameters(ds.span, x: x, examples: examples, gradients: &gradients)
    scores.backwardInput(ds.span, examples: examples, dense: dense, adding: true, to: &target)
    scratch.put(weights, a)
    scratch.put(mixed, c)
    scratch.put(scoreGradient, ds)
    scratch.put(mixedGradient, dc)
  }

  /// The softmax of the `tokens` numbers from `start` on, in place.
  private func softmax(_ s: inout MutableSpan<Float>, at start: Int) {
    var highest = -Float.infinity
    for i in start..<start + tokens { highest = max(highest, s[i]) }
    var total: Float = 0
    for i in start..<start + tokens {
      s[i] = expf(s[i] - highest)
      total += s[i]
    }
    for i in start..<start + tokens { s[i] /= total }
  }
}
