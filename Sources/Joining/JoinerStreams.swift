// Where the joiner reads and writes: one face over journals and whatever else carries streams.

public import Base
internal import Journal
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
  /// Deletes records of an output partition that nobody asks for again.
  func discard(_ output: JoinOutput, before position: Position, from sink: any RecordSink) throws(StreamError)
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

/// A joiner's streams as journals below one directory.
public struct JournalJoinerStreams: JoinerStreams, Sendable {
  private let root: String
  private let consumer: String
  private let options: JournalOptions
  private let keepBytes: UInt64

  /// Journals at `<root>/streams/<impressions|actions|examples|late>/<partition>`.
  /// - Parameters:
  ///   - consumer: the name under which the joiner notes how far it has read.
  ///   - keepBytes: how much of an output is kept behind its consumers, for shards that are restored.
  public init(root: String, consumer: String = "joiner", durable: Bool = true, keepBytes: UInt64 = 0) {
    self.keepBytes = keepBytes
    self.root = root
    self.consumer = consumer
    var options = JournalOptions()
    options.durable = durable
    self.options = options
  }

  private func location(_ output: JoinOutput) -> StreamLocation {
    switch output {
    case .examples(let partition): StreamLocation(root: root, stream: .examples, partition: partition)
    case .lateActions: StreamLocation(root: root, stream: "late", partition: 0)
    }
  }

  /// The journal of an input partition, or nil while nobody has made it.
  public func source(_ input: JoinInput, from position: Position) throws(StreamError) -> (any RecordSource)? {
    let location = StreamLocation(root: root, stream: input.stream.rawValue, partition: input.partition)
    do throws(StreamError) {
      return try JournalSource(location, consumer: consumer, from: position)
    } catch {
      if case .journal(.notThere) = error, position == .start { return nil }
      throw error
    }
  }

  /// The journal of an output partition, locked.
  public func sink(_ output: JoinOutput) throws(StreamError) -> any RecordSink {
    try JournalSink(location(output), options: options)
  }

  /// A reader of an output partition.
  public func written(_ output: JoinOutput, from position: Position) throws(StreamError) -> any RecordSource {
    try JournalSource(location(output), consumer: consumer, from: position)
  }

  /// The smallest places among the consumers of an output partition.
  public func slowestConsumer(of output: JoinOutput) throws(StreamError) -> (processed: Position, safe: Position)? {
    do throws(JournalError) {
      let places = try JournalConsumers.read(directory: location(output).directory).values
      guard let processed = places.map(\.processed).min(), let safe = places.map(\.safe).min() else { return nil }
      return (Position(low: processed), Position(low: safe))
    } catch {
      throw .journal(error)
    }
  }

  /// Deletes whole segments.
  public func discard(
    _ output: JoinOutput, before position: Position, from sink: any RecordSink
  ) throws(StreamError) {
    guard let sink = sink as? JournalSink, sink.synced.low > keepBytes else { return }
    try sink.deleteRecords(before: min(position, Position(low: sink.synced.low - keepBytes)))
  }
}
