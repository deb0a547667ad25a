// The face of what an interaction module runs side by side. An extractor remembers its own way back in scratch; whoever
// goes back brings the input along.

/// A way to draw features out of tokens X `[examples, tokens × channels]`.
protocol Extractor: Sendable {
  /// Numbers it gives per example.
  var outputs: Int { get }

  /// Works the features out; `takeOutput` shows them.
  func forward(_ x: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch)

  /// Moves the features `[examples, outputs]` out of scratch; `putOutput` brings them back.
  func takeOutput(_ scratch: inout Scratch) -> [Float]

  /// Brings back what `takeOutput` moved out.
  func putOutput(_ output: consuming [Float], _ scratch: inout Scratch)

  /// Adds the gradients of parameters, and to `dx` that of X; `gradient`, of the features on the way in, is used up.
  func backward(
    _ gradient: inout [Float], x: Span<Float>, examples: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, addingInputGradientTo dx: inout [Float])
}

/// The extractors an interaction module may have.
public enum ExtractorKind: String, Sendable, CaseIterable, Codable {
  /// Hidden layers over all numbers.
  case mlp
  /// Dot products of all tokens with mixtures of them whose weights depend on the example.
  case attention
  /// Cross layers: products of growing degree (DCN v2).
  case dcn
  /// A mixer block: tokens exchange what they know, then each works on its own.
  case mixer

  /// The extractor over `tokens` of `channels` numbers each, its layers sized by the options.
  func make(
    _ name: String, tokens: Int, channels: Int, options: ModelOptions, plan: inout Plan
  ) -> any Extractor {
    let name = "\(name).\(rawValue)"
    return switch self {
    case .mlp:
      Perceptron(name, inputs: tokens * channels, widths: options.hidden, options: options, plan: &plan)
    case .attention:
      DotCompression(
        name, tokens: tokens, channels: channels, mixtures: options.userModel.mixtures, plan: &plan)
    case .dcn:
      CrossNetwork(name, width: tokens * channels, layers: options.crossLayers, plan: &plan)
    case .mixer:
      MixerExtractor(name, tokens: tokens, channels: channels, plan: &plan)
    }
  }
}

/// A mixer block whose two hidden layers are twice as wide as what they mix.
private struct MixerExtractor: Extractor {
  let outputs: Int
  private let block: MixerBlock
  private let output: Int

  init(_ name: String, tokens: Int, channels: Int, plan: inout Plan) {
    outputs = tokens * channels
    block = MixerBlock(
      name, tokens: tokens, channels: channels, tokenHidden: 2 * tokens, channelHidden: 2 * channels, plan: &plan)
    output = plan.slot()
  }

  func forward(_ x: Span<Float>, examples: Int, dense: [[Float]], scratch: inout Scratch) {
    var y = scratch.take(output, count: examples * outputs)
    var ys = y.mutableSpan
    block.forward(x, examples: examples, dense: dense, scratch: &scratch, to: &ys)
    scratch.put(output, y)
  }

  func takeOutput(_ scratch: inout Scratch) -> [Float] { scratch.take(output, count: 0) }

  func putOutput(_ output: consuming [Float], _ scratch: inout Scratch) { scratch.put(self.output, output) }

  func backward(
    _ gradient: inout [Float], x: Span<Float>, examples: Int, dense: [[Float]], gradients: inout [[Float]],
    scratch: inout Scratch, addingInputGradientTo dx: inout [Float]
  ) {
    block.backward(&gradient, examples: examples, dense: dense, gradients: &gradients, scratch: &scratch)
    Kernel.addScaled(1, gradient.span, at: 0, to: &dx, count: examples * outputs)
  }
}
