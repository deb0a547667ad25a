// The shape of the user model `sum`, and what can be wrong with it.

/// What `sum` is told beside what every model is told.
public struct UserModelOptions: Sendable, Equatable {
  /// The features of the user's side, by name; all others are the mix tower's.
  public var features: [String] = []
  /// Where the dense numbers of the user's side lie among an example's; all others are the mix tower's.
  public var dense: [Range<Int>] = []
  /// User embeddings per user; default 2, as published.
  public var embeddings = 2
  /// Numbers in a user embedding, a multiple of the vectors' dimension; default 96, as published.
  public var embeddingDimension = 96
  /// Tokens that each module of the user tower gives, before the last one gives the embeddings; default 6.
  public var userTokens = [6]
  /// Tokens that each module of the mix tower gives; default 8 and 4.
  public var mixTokens = [8, 4]
  /// What each interaction module runs side by side; default all.
  public var extractors = ExtractorKind.allCases
  /// Mixtures of tokens that `attention` multiplies each token with; default 4.
  public var mixtures = 4

  /// The defaults.
  public init() {}

  /// Numbers that all embeddings of a user have together.
  public var width: Int { embeddings * embeddingDimension }

  /// All that is wrong with them in a model of these options, in the configuration's key names.
  func problems(in options: ModelOptions) -> [String] {
    var found: [String] = []
    func require(_ condition: Bool, _ problem: @autoclosure () -> String) {
      if !condition { found.append(problem()) }
    }
    let user = options.features.filter { features.contains($0.name) }
    for name in features where !options.features.contains(where: { $0.name == name }) {
      found.append("model.users.features names '\(name)', which the model does not read; use some of its features")
    }
    require(
      !user.isEmpty || !dense.isEmpty,
      "model.users.features names no feature of the user; name those that say who somebody is or what they did")
    require(
      user.count < options.features.count || dense.reduce(0) { $0 + $1.count } < options.denseWidth,
      "model.users.features names every feature; leave the mix tower at least one, such as the item")
    require((1...64).contains(embeddings), "model.users.embeddings is \(embeddings); use 1 to 64")
    require(
      (1...4096).contains(embeddingDimension) && embeddingDimension % max(1, options.dimension) == 0,
      "model.users.embeddingDimension is \(embeddingDimension); use a multiple of model.dimension up to 4096")
    for (key, tokens) in [("userTokens", userTokens), ("mixTokens", mixTokens)] {
      require(
        tokens.count <= 16 && tokens.allSatisfy { (1...1024).contains($0) },
        "model.users.\(key) is \(tokens); use at most 16 numbers of 1 to 1024")
    }
    require(!mixTokens.isEmpty, "model.users.mixTokens is empty; name at least one number of tokens")
    let narrowest = ((userTokens + mixTokens).map { $0 * options.dimension } + [width]).min() ?? 0
    require(
      !extractors.isEmpty && Set(extractors).count == extractors.count,
      "model.users.extractors is empty or names one twice; "
        + "use some of: \(ExtractorKind.allCases.map(\.rawValue).joined(separator: ", "))")
    require(
      narrowest >= extractors.count,
      "model.users.extractors has \(extractors.count), more than the \(narrowest) numbers of the narrowest module; "
        + "use fewer, or more tokens")
    require((1...256).contains(mixtures), "model.users.mixtures is \(mixtures); use 1 to 256")
    require(
      dense.allSatisfy { $0.lowerBound >= 0 && $0.upperBound <= options.denseWidth },
      "model.users.features names dense numbers that the model does not read; use those it reads")
    return found
  }
}
