// What a joiner tells about itself, about twice a second.

internal import Base
public import Streams

/// A snapshot of a joiner.
public struct JoinerStatus: Equatable, Sendable, Codable {
  /// One input partition.
  public struct Input: Equatable, Sendable, Codable {
    /// "actions 1".
    public var name: String
    /// The partition's own watermark, UTC milliseconds of event time; nil until it has one.
    public var watermark: Int64?
    /// By how much its watermark is behind the newest watermark of all inputs.
    public var behindMilliseconds: Int64
    /// How far behind the end of its stream it is read, in the stream's positions: bytes on a journal.
    public var unread: UInt64
  }

  /// One output partition.
  public struct Output: Equatable, Sendable, Codable {
    /// "examples 0".
    public var name: String
    /// The end of what is durable, in the stream's positions.
    public var synced: UInt64
    /// How far its slowest consumer is behind; nil without a consumer.
    public var backlog: UInt64?
  }

  /// What was counted since the stream began.
  public var counters: JoinCounters
  /// Impressions with labels still to leave.
  public var pendingImpressions: Int
  /// Those of them that are on disk.
  public var storedImpressions: Int
  /// About the bytes on disk that they take.
  public var storedBytes: UInt64
  /// Bytes of features and predictions of pending impressions that are in memory.
  public var pendingBytes: Int
  /// About the memory of pending impressions, waiting actions and all ids that are known.
  public var memoryBytes: Int
  /// Actions that wait for their impression.
  public var waitingActions: Int
  /// Impressions that are done and whose ids are remembered.
  public var rememberedImpressions: Int
  /// Impressions with labels found in the outputs after a restart and not yet made again.
  public var withheldImpressions: Int
  /// Event time up to which labels have left; nil until every input has a watermark.
  public var watermark: Int64?
  /// The input partitions.
  public var inputs: [Input]
  /// The output partitions.
  public var outputs: [Output]
  /// How long the last checkpoint took, and how long it is.
  public var checkpointSeconds: Double
  /// The size of the last checkpoint.
  public var checkpointBytes: Int
  /// What the features that are computed from the stream have seen; nil without such features.
  public var features: StreamFeatureCounters?
  /// How many records this process refused for what, by a short code.
  public var refused: [String: UInt64]
  /// How many of them found no room where they are set aside.
  public var notSetAside: Int
  /// What the joiner waits for, in words; nil when it waits for nothing but new events.
  public var waitsFor: String?
}

extension Joiner {
  /// How the joiner stands; what consumers and ends are concerned as of the last tenth of a second.
  var status: JoinerStatus {
    let newest = inputs.map { core.watermark(of: $0.input) }.max() ?? .min
    var inputStates: [JoinerStatus.Input] = []
    for index in inputs.indices {
      let watermark = core.watermark(of: inputs[index].input)
      inputStates.append(
        JoinerStatus.Input(
          name: inputs[index].input.description, watermark: watermark == .min ? nil : watermark,
          behindMilliseconds: watermark == .min ? 0 : newest.distance(after: watermark),
          unread: (inputs[index].end ?? .start).distance(
            from: inputs[index].position ?? core.position(of: inputs[index].input))))
    }
    return JoinerStatus(
      counters: core.counters, pendingImpressions: core.pendingImpressions,
      storedImpressions: core.storedImpressions, storedBytes: store.bytes, pendingBytes: core.pendingPayloadBytes,
      memoryBytes: core.memoryBytes,
      waitingActions: core.waitingActions, rememberedImpressions: core.rememberedImpressions,
      withheldImpressions: core.withheldImpressions, watermark: core.watermark == .min ? nil : core.watermark,
      inputs: inputStates,
      outputs: outputs.map {
        JoinerStatus.Output(name: $0.output.description, synced: $0.synced.low, backlog: $0.backlog)
      },
      checkpointSeconds: Double(checkpointNanoseconds) / 1e9, checkpointBytes: checkpointBytes,
      features: core.features?.counters,
      refused: refused, notSetAside: notSetAside, waitsFor: trouble ?? whatItWaitsFor(inputStates))
  }

  private func whatItWaitsFor(_ states: [JoinerStatus.Input]) -> String? {
    if isHeldBack, let slowest = outputs.max(by: { ($0.backlog ?? 0) < ($1.backlog ?? 0) }) {
      return "waits for the readers of \(slowest.output): \((slowest.backlog ?? 0) >> 20) MiB behind"
    }
    if let missing = inputs.first(where: { !$0.isOpen }) {
      return "waits for \(missing.input): the stream is not there yet"
    }
    guard states.contains(where: { $0.watermark != nil }) else { return nil }
    if let silent = states.first(where: { $0.watermark == nil }) {
      return "waits for \(silent.name): nothing has come yet"
    }
    guard let last = states.max(by: { $0.behindMilliseconds < $1.behindMilliseconds }), last.unread == 0,
      last.behindMilliseconds > options.readAheadMilliseconds
    else { return nil }
    return "waits for \(last.name): \(last.behindMilliseconds / 1000) s behind"
  }
}

extension Milliseconds {
  fileprivate func distance(after earlier: Milliseconds) -> Int64 {
    let (difference, overflow) = subtractingReportingOverflow(earlier)
    return overflow ? .max : difference
  }
}
