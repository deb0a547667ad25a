// Features that are computed from the stream: `stream: {count: click, by: [item_id], halfLife: 1d}`.

internal import Base
internal import Streams

/// `features.….stream`: what a feature counts or lists.
public struct StreamFeatureSettings: Sendable, Equatable, Settings {
  /// Counts events of this name: `impression`, or an action.
  public var count: String?
  /// The share of impressions that were followed by this action.
  public var share: String?
  /// Of which events `share` is the share.
  ///
  /// Default `impression`.
  public var over: String?
  /// Lists ids of the last events of this name.
  public var last: String?
  /// The feature whose ids `last` lists.
  public var of: String?
  /// The features whose ids an event must have in common with the impression; empty: all events count.
  public var by: [String] = []
  /// Event time after which an event counts half.
  ///
  /// Default nil: it counts for ever.
  public var halfLife: Duration?
  /// With `kind: id`, the buckets of a doubling of a count (default 2), or of the shares from 0 to 1 (default 20).
  public var buckets: Int?

  /// Without anything yet.
  public init() {}

  /// With every key, to list them.
  static let complete: Self = {
    var all = Self()
    (all.count, all.share, all.over, all.last, all.of) = ("click", "click", "impression", "click", "item_id")
    (all.by, all.halfLife, all.buckets) = (["user_id"], .seconds(86_400), 2)
    return all
  }()

  mutating func bind(_ section: Section) {
    section.optional("count", &count, .name)
    section.optional("share", &share, .name)
    section.optional("over", &over, .name)
    section.optional("last", &last, .name)
    section.optional("of", &of, .name)
    section.values("by", &by, .name, atMost: EventSchema.streamKeyLimit)
    section.optional("halfLife", &halfLife, .duration(.milliseconds(1) ... .seconds(3650 * 86_400)))
    section.optional("buckets", &buckets, .integer(1...1_000_000))
    if !section.binding.isWriting { check(section) }
  }

  private func check(_ section: Section) {
    let given = [("count", count), ("share", share), ("last", last)].filter { $0.1 != nil }.map(\.0)
    if given.isEmpty, !["count", "share", "last"].contains(where: section.isGiven) {
      section.report("count", "is missing, and share and last too", "say what is computed: one of the three")
    }
    for other in given.dropFirst() {
      section.report(other, "is given beside \(given[0])", "make two features of it")
    }
    func without(_ key: String, _ isGiven: Bool, _ owner: String, _ isOwned: Bool) {
      if isGiven && !isOwned { section.report(key, "is given without \(owner)", "remove it") }
    }
    without("over", over != nil, "share", share != nil)
    without("of", of != nil, "last", last != nil)
    without("halfLife", halfLife != nil, "count or share", count != nil || share != nil)
    without("buckets", buckets != nil, "count or share", count != nil || share != nil)
    if last != nil, of == nil, !section.isGiven("of") {
      section.report("of", "is missing", "name the feature whose ids are listed")
    }
  }

  /// The same, as the computation knows it.
  var spec: StreamFeatureSpec {
    let value: StreamFeatureSpec.Value
    let event: String
    if let share {
      (value, event) = (.share(over: over ?? StreamFeatureSpec.impression), share)
    } else if let last {
      (value, event) = (.last(of: of ?? ""), last)
    } else {
      (value, event) = (.count, count ?? "")
    }
    return StreamFeatureSpec(
      value, event: event, by: by, halfLifeMilliseconds: halfLife?.milliseconds, buckets: buckets)
  }
}

extension ClusterConfiguration {
  /// What features from the stream find wrong with the features beside them.
  func checkStreamFeatures(_ binding: Binding) {
    for problem in eventSchema.streamFeatureProblems() {
      let path = "features.\(problem.feature)"
      // What is wrong in itself was told already.
      guard !binding.hasProblem(under: ["\(path).stream", "\(path).kind", "\(path).limit"]) else { continue }
      let isOfFeature = problem.key == "kind" || problem.key == "limit"
      binding.report(
        "\(path)\(isOfFeature ? "" : ".stream").\(problem.key)", problem.fault, problem.advice)
    }
    if eventSchema.hasStreamFeatures, eventSchema.givenFeatures.isEmpty {
      binding.report("features", "are all computed from the stream", "list what events carry too: '- name: user_id'")
    }
  }
}
