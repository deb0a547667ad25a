// The user model: how its towers are built.

internal import Layers
internal import Training

/// `models.….users`: the user tower and the mix tower of `sum`.
public struct UserModelSettings: Sendable, Equatable, Settings {
  /// What an interaction module runs side by side.
  public enum Extractor: String, Sendable, CaseIterable, Codable {
    /// Hidden layers, of the widths in `hidden`.
    case mlp
    /// Products of each token with `mixtures` mixtures of all tokens.
    case attention
    /// Cross layers, as many as `crossLayers`.
    case dcn
    /// A mixer block.
    case mixer
  }

  /// The features of the user's side, by name; the mix tower reads all others.
  ///
  /// Default empty, which `sum` refuses.
  public var features: [String] = []
  /// User embeddings per user.
  ///
  /// Default 2, as published.
  public var embeddings = 2
  /// Numbers in a user embedding, a multiple of `dimension`.
  ///
  /// Default 96, as published.
  public var embeddingDimension = 96
  /// Tokens of `dimension` numbers that each module of the user tower gives; one more gives the embeddings.
  ///
  /// Default [6].
  public var userTokens = [6]
  /// Tokens that each module of the mix tower gives.
  ///
  /// Default [8, 4].
  public var mixTokens = [8, 4]
  /// What each interaction module runs side by side.
  ///
  /// Default all of them.
  public var extractors = Extractor.allCases
  /// Mixtures of tokens in `attention`.
  ///
  /// Default 4.
  public var mixtures = 4
  /// λ: how strongly training keeps the embeddings where the newest version has them.
  ///
  /// Default 0, not at all. λ · the mean square of the distance is added to an example's loss.
  public var regularization = 0.0
  /// α: the share of the newest version's prediction in the label that training aims at.
  ///
  /// Default 0.
  public var distillation = 0.0

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.values("features", &features, .name, atMost: 1024)
    section.value("embeddings", &embeddings, .integer(1...64))
    section.value("embeddingDimension", &embeddingDimension, .integer(1...4096))
    section.values("userTokens", &userTokens, .integer(1...1024), atMost: 16)
    section.values("mixTokens", &mixTokens, .integer(1...1024), atMost: 16)
    section.values("extractors", &extractors, .word, atMost: 4)
    section.value("mixtures", &mixtures, .integer(1...256))
    section.value("regularization", &regularization, .number(0...1e6))
    section.value("distillation", &distillation, .number(0...1))
  }

  /// How strongly the model's trainer is pulled towards its teacher.
  var stabilization: Stabilization {
    var options = Stabilization()
    options.regularization = Float(regularization)
    options.distillation = Float(distillation)
    return options
  }

  /// The same, as models know it; dense features are still among the names.
  var options: UserModelOptions {
    var options = UserModelOptions()
    options.features = features
    options.embeddings = embeddings
    options.embeddingDimension = embeddingDimension
    options.userTokens = userTokens
    options.mixTokens = mixTokens
    options.extractors = extractors.compactMap { ExtractorKind(rawValue: $0.rawValue) }
    options.mixtures = mixtures
    return options
  }
}
