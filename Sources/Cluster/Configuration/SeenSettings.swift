// From published to seen to served: which downstream models wait for a version of the upstream model to be seen, and for how
// many examples (docs/user-modelling.md).

internal import Base
internal import UserModeling

/// `soap.seen`: versions are answered to a downstream model once it was trained on examples of them.
public struct SeenSettings: Sendable, Equatable, Settings {
  /// The downstream models that wait; those that read `soap.feature` when empty.
  ///
  /// Default empty.
  public var models: [String] = []
  /// On how many examples of a version, or of later ones, a model must have been trained; nil for not waiting.
  ///
  /// Default nil.
  public var examples: Int?
  /// The part of the users who are answered with the newest version before others.
  ///
  /// Default 0.05.
  public var share = 0.05

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.values("models", &models, .name, atMost: 4096, all: "all")
    section.value("examples", &examples, Scalar<Int>.integer(1...1_000_000_000).orWord("none"))
    section.value("share", &share, .positive(upTo: 1))
  }
}

extension ClusterConfiguration {
  /// The models that read the feature of users' embeddings.
  var vectorReaders: [ModelSettings] {
    guard let feature = soap.feature else { return [] }
    return models.filter { model in
      model.name != soap.model && features(of: model).contains { $0.name == feature }
    }
  }

  /// What the platform of process `index` is told.
  func soapOptions(model: String, index: Int) -> SoapOptions {
    var options = soap.options(model: model, index: index)
    options.downstream = models.map(\.name).filter { $0 != model }
    guard let examples = soap.seen.examples else { return options }
    let waiting = soap.seen.models.isEmpty ? vectorReaders : models.filter { soap.seen.models.contains($0.name) }
    options.seen = SeenOptions(
      models: waiting.map { model in
        let windows = tasks(of: model).map(\.window.milliseconds)
        return DownstreamModel(name: model.name, windowMilliseconds: windows.max() ?? 0)
      }, examples: UInt64(examples), share: soap.seen.share)
    return options
  }

  func checkSeen(_ binding: Binding, upstream: String) {
    let others = models.map(\.name).filter { $0 != upstream }
    for (place, name) in soap.seen.models.enumerated() where !others.contains(name) {
      binding.report(
        "soap.seen.models.\(place)", "is '\(name)', which is not a downstream model",
        others.isEmpty ? "add one to models" : "use one of: \(others.joined(separator: ", "))")
    }
    guard soap.seen.examples != nil, soap.seen.models.isEmpty, vectorReaders.isEmpty else { return }
    binding.report(
      "soap.seen.models", "is all, and no model reads soap.feature", "name the models that the application asks for")
  }
}
