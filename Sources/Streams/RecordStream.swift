// One face for streams, whatever carries them: records go into a sink and come out of a source, in order, each with a
// position. Journals are the default; Kafka and Redis Streams have the same face. A sink or source belongs to one thread.
// A call that throws `unavailable` has changed nothing that counts: it may be made again, and goes on where it stopped.

public import Base

/// One record of a stream.
public struct StreamRecord: Sendable {
  /// The position of the record's end: a source opened there begins with the next record.
  public let position: Position
  /// The record's bytes.
  public let reader: ByteReader

  /// A record from its parts.
  public init(position: Position, reader: ByteReader) {
    self.position = position
    self.reader = reader
  }
}

/// Takes the records of one partition of a stream.
///
/// One writer per partition.
public protocol RecordSink: ~Copyable {
  /// Appends a record and gives the position of its end. It is durable only after `sync`.
  @discardableResult
  mutating func append(_ payload: RawSpan) throws(StreamError) -> Position
  /// Makes all appended records durable and visible to sources.
  mutating func sync() throws(StreamError)
  /// Deletes records that end at or before `position`, as far as the carrier lets its writer delete.
  /// - Parameter keptBytes: about how many bytes of records stay in any case.
  mutating func deleteRecords(before position: Position, keeping keptBytes: UInt64) throws(StreamError)
  /// The end of the last appended record.
  var end: Position { get }
  /// The end of the last durable record.
  var synced: Position { get }
}

extension RecordSink where Self: ~Copyable {
  /// Deletes nothing.
  public mutating func deleteRecords(before position: Position, keeping keptBytes: UInt64) throws(StreamError) {}
}

/// Gives the durable records of one partition of a stream.
public protocol RecordSource: ~Copyable {
  /// The next record; nil when all that is durable has been read.
  mutating func next() throws(StreamError) -> StreamRecord?
  /// The position of the last record returned, or where the source began.
  var position: Position { get }
  /// The end of what is durable now.
  mutating func end() throws(StreamError) -> Position
  /// Notes how far this consumer has come.
  /// - Parameters:
  ///   - processed: up to where records were handled; back-pressure looks at it.
  ///   - safe: up to where records will never be asked for again; retention looks at it.
  mutating func commit(processed: Position, safe: Position) throws(StreamError)
  /// Whether no record will ever follow the last one returned, as of a file; false unless a source says so.
  var hasEnded: Bool { get }
}

extension RecordSource where Self: ~Copyable {
  /// Streams go on.
  public var hasEnded: Bool { false }
}

/// Where one partition of a stream lies on disk.
public struct StreamLocation: Hashable, Sendable, CustomStringConvertible {
  /// The streams every cluster has.
  public enum Stream: String, Sendable, CaseIterable {
    /// What was shown.
    case impressions
    /// What was done.
    case actions
    /// What the joiner made of both.
    case examples
  }

  /// The cluster's state directory.
  public let root: String
  /// The stream's name.
  public let stream: String
  /// The partition, from 0.
  public let partition: Int

  /// A partition of a stream by name, such as the pass over a file.
  public init(root: String, stream: String, partition: Int) {
    precondition(partition >= 0, "partition \(partition)")
    self.root = root
    self.stream = stream
    self.partition = partition
  }

  /// A partition of one of the streams every cluster has.
  public init(root: String, stream: Stream, partition: Int) {
    self.init(root: root, stream: stream.rawValue, partition: partition)
  }

  /// `<root>/streams/<stream>/<partition>`.
  public var directory: String { "\(root)/streams/\(stream)/\(partition)" }

  /// "impressions/0".
  public var description: String { "\(stream)/\(partition)" }

  /// The partition of `count` that an impression and its actions go to.
  public static func partition(of impression: ImpressionID, count: Int) -> Int {
    Int(impression.hash64 % UInt64(max(1, count)))
  }
}
