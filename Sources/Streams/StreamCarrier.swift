// One face for what carries a stream: it opens the partitions' two ends and knows how far each consumer has come. Journals
// are the default; `RedisStreams` and `KafkaStreams` have others. Any thread may use a carrier.

public import Base
internal import Journal

/// How far a consumer of a partition has come.
public struct ConsumerPlace: Equatable, Sendable {
  /// Up to where it has handled records; back-pressure looks at it.
  public var processed: Position
  /// Up to where it will never ask for records again; retention looks at it.
  public var safe: Position

  /// A place from its parts.
  public init(processed: Position, safe: Position) {
    self.processed = processed
    self.safe = safe
  }
}

/// Opens the partitions of one stream.
public protocol StreamCarrier: Sendable {
  /// The writing end of a partition; whoever has it is its only writer.
  func sink(partition: Int) throws(StreamError) -> any RecordSink
  /// A partition's durable records behind `position`, nil while nobody has made the partition.
  func source(
    partition: Int, consumer: String, from position: Position
  ) throws(StreamError) -> (any RecordSource)?
  /// The end of what is durable of a partition, nil while nobody has made it.
  func end(partition: Int) throws(StreamError) -> Position?
  /// The places of a partition's consumers, by name.
  func consumers(partition: Int) throws(StreamError) -> [String: ConsumerPlace]
  /// About how many bytes of a partition a consumer has still to handle; nil when that cannot be known.
  func backlog(partition: Int, of consumer: String) throws(StreamError) -> UInt64?
  /// About how many bytes of records lie between two positions.
  func bytes(from earlier: Position, to later: Position) -> UInt64
}

extension StreamCarrier {
  /// The difference of the positions, for carriers whose positions count bytes.
  public func bytes(from earlier: Position, to later: Position) -> UInt64 {
    guard earlier < later else { return 0 }
    return earlier.high == later.high ? later.low - earlier.low : .max
  }

  /// About how many bytes of a partition a consumer has still to handle; nil when there is no partition.
  public func backlog(partition: Int, of consumer: String) throws(StreamError) -> UInt64? {
    guard let end = try end(partition: partition) else { return nil }
    return bytes(from: try consumers(partition: partition)[consumer]?.processed ?? .start, to: end)
  }
}

/// A stream on journals: `<root>/streams/<stream>/<partition>`.
public struct JournalCarrier: StreamCarrier {
  private let root: String
  private let stream: String
  private let options: JournalOptions

  /// The journals of a stream below a state directory.
  /// - Parameter durable: whether a sync waits for the disk.
  public init(root: String, stream: String, durable: Bool = true) {
    self.root = root
    self.stream = stream
    var options = JournalOptions()
    options.durable = durable
    self.options = options
  }

  private func location(_ partition: Int) -> StreamLocation {
    StreamLocation(root: root, stream: stream, partition: partition)
  }

  /// The journal of a partition, made when it is not there, and locked.
  public func sink(partition: Int) throws(StreamError) -> any RecordSink {
    try JournalSink(location(partition), options: options)
  }

  /// A reader of a partition's journal.
  public func source(
    partition: Int, consumer: String, from position: Position
  ) throws(StreamError) -> (any RecordSource)? {
    do throws(StreamError) {
      return try JournalSource(location(partition), consumer: consumer, from: position)
    } catch {
      if case .journal(.notThere) = error, position == .start { return nil }
      throw error
    }
  }

  /// The end of what a partition's journal has on the disk.
  public func end(partition: Int) throws(StreamError) -> Position? {
    do throws(JournalError) {
      return Position(low: try JournalReader.bounds(directory: location(partition).directory).upperBound)
    } catch {
      if case .notThere = error { return nil }
      throw .journal(error)
    }
  }

  /// The places that the consumers have noted beside the journal.
  public func consumers(partition: Int) throws(StreamError) -> [String: ConsumerPlace] {
    do throws(JournalError) {
      return try JournalConsumers.read(directory: location(partition).directory).mapValues {
        ConsumerPlace(processed: Position(low: $0.processed), safe: Position(low: $0.safe))
      }
    } catch {
      throw .journal(error)
    }
  }
}
