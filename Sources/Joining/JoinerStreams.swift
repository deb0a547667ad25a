// Where the joiner reads and writes: one face over journals and whatever else carries streams.

public import Base
public import Streams

/// Opens the streams of a joiner.
///
/// All calls come from the joiner's thread.
public protocol JoinerStreams {
  /// An input partition's records behind `position`, or nil while the partition has not been made yet.
  func source(_ input: JoinInput, from position: Position) throws(StreamError) -> (any RecordSource)?
  /// The writing end of an output partition; whoever has it is its only writer.
  func sink(_ output: JoinOutput) throws(StreamError) -> any RecordSink
  /// What was written to an output partition behind `position`, to be read back after a restart.
  func written(_ output: JoinOutput, from position: Position) throws(StreamError) -> any RecordSource
  /// How far the slowest consumer of an output partition has come; nil when it has no consumer.
  func slowestConsumer(of output: JoinOutput) throws(StreamError) -> (processed: Position, safe: Position)?
  /// About how many bytes of records lie between two positions of an output partition.
  func bytes(of output: JoinOutput, from earlier: Position, to later: Position) -> UInt64
  /// Deletes records of an output partition that nobody asks for again.
  func discard(_ output: JoinOutput, before position: Position, from sink: any RecordSink) throws(StreamError)
}

extension JoinerStreams {
  /// The difference of the positions, which count bytes on a journal.
  public func bytes(of output: JoinOutput, from earlier: Position, to later: Position) -> UInt64 {
    later.distance(from: earlier)
  }
}

/// One partition the joiner writes.
public enum JoinOutput: Hashable, Sendable, CustomStringConvertible {
  /// A partition of the example stream.
  case examples(Int)
  /// The late actions, when the rules want them.
  case lateActions

  /// "examples 0" or "late actions".
  public var description: String {
    switch self {
    case .examples(let partition): "examples \(partition)"
    case .lateActions: "late actions"
    }
  }
}

/// A joiner's streams, each on its own carrier.
public struct CarriedJoinerStreams: JoinerStreams, Sendable {
  private let impressions: any StreamCarrier
  private let actions: any StreamCarrier
  private let examples: any StreamCarrier
  private let late: any StreamCarrier
  private let consumer: String
  private let keepBytes: UInt64

  /// Streams on given carriers.
  /// - Parameters:
  ///   - late: carries the late actions, when the rules want them.
  ///   - consumer: the name under which the joiner notes how far it has read.
  ///   - keepBytes: how much of an output is kept behind its consumers, for shards that are restored.
  public init(
    impressions: any StreamCarrier, actions: any StreamCarrier, examples: any StreamCarrier, late: any StreamCarrier,
    consumer: String = "joiner", keepBytes: UInt64 = 0
  ) {
    self.impressions = impressions
    self.actions = actions
    self.examples = examples
    self.late = late
    self.consumer = consumer
    self.keepBytes = keepBytes
  }

  /// Journals at `<root>/streams/<impressions|actions|examples|late>/<partition>`.
  public init(journalsIn root: String, consumer: String = "joiner", durable: Bool = true, keepBytes: UInt64 = 0) {
    func journals(_ stream: String) -> JournalCarrier { JournalCarrier(root: root, stream: stream, durable: durable) }
    self.init(
      impressions: journals("impressions"), actions: journals("actions"), examples: journals("examples"),
      late: journals("late"), consumer: consumer, keepBytes: keepBytes)
  }

  private func place(_ output: JoinOutput) -> (carrier: any StreamCarrier, partition: Int) {
    switch output {
    case .examples(let partition): (examples, partition)
    case .lateActions: (late, 0)
    }
  }

  /// An input partition's records, or nil while nobody has made it.
  public func source(_ input: JoinInput, from position: Position) throws(StreamError) -> (any RecordSource)? {
    let carrier = input.stream == .impressions ? impressions : actions
    return try carrier.source(partition: input.partition, consumer: consumer, from: position)
  }

  /// The writing end of an output partition.
  public func sink(_ output: JoinOutput) throws(StreamError) -> any RecordSink {
    let (carrier, partition) = place(output)
    return try carrier.sink(partition: partition)
  }

  /// A reader of an output partition that has a writer, and so is there.
  public func written(_ output: JoinOutput, from position: Position) throws(StreamError) -> any RecordSource {
    let (carrier, partition) = place(output)
    guard let source = try carrier.source(partition: partition, consumer: consumer, from: position) else {
      throw .gone(stream: output.description, wanted: position, first: position)
    }
    return source
  }

  /// The smallest places among the consumers of an output partition.
  public func slowestConsumer(of output: JoinOutput) throws(StreamError) -> (processed: Position, safe: Position)? {
    let (carrier, partition) = place(output)
    let places = try carrier.consumers(partition: partition).values
    guard let processed = places.map(\.processed).min(), let safe = places.map(\.safe).min() else { return nil }
    return (processed, safe)
  }

  /// How much lies between two positions of an output.
  public func bytes(of output: JoinOutput, from earlier: Position, to later: Position) -> UInt64 {
    place(output).carrier.bytes(from: earlier, to: later)
  }

  /// Deletes what the carrier lets its writer delete, but for the bytes to be kept.
  public func discard(
    _ output: JoinOutput, before position: Position, from sink: any RecordSink
  ) throws(StreamError) {
    var sink = sink
    try sink.deleteRecords(before: position, keeping: keepBytes)
  }
}
