// A stream on a Kafka topic, as roles see it.

public import Base
internal import Journal
public import Streams
internal import Synchronization

/// The partitions of one stream as those of a Kafka topic.
///
/// The brokers decide how long records are kept: set the topic's retention to more than the longest time a consumer may be
/// away. One writer per partition is a matter of deployment; a second one on the same machine is refused.
public final class KafkaCarrier: StreamCarrier {
  private static let bytesPerRecord: UInt64 = 256

  private let topic: KafkaTopic
  private let root: String
  private let stream: String
  private let questions = Mutex<[Int: Box]>([:])

  /// unchecked because: it is used under the lock of `questions` alone.
  private final class Box: @unchecked Sendable {
    let client: KafkaClient
    /// What the last question failed with, and until when no other one is asked.
    var failure: (error: StreamError, until: Int64)?
    init(_ client: KafkaClient) { self.client = client }
  }

  /// How long a question that failed stands for those that follow: who asks many times a second must not wait each time.
  private static let pauseNanoseconds: Int64 = 1_000_000_000

  /// A stream on a topic.
  /// - Parameters:
  ///   - brokers: `host:port`, several with commas between.
  ///   - propertiesFile: settings of librdkafka, for security say, `name=value` a line; those that our promises rest on
  ///     are ours.
  ///   - root: the state directory, where consumers on this machine note how far they are.
  public init(brokers: String, topic: String, propertiesFile: String? = nil, root: String, stream: String) {
    self.topic = KafkaTopic(brokers: brokers, name: topic, propertiesFile: propertiesFile)
    self.root = root
    self.stream = stream
  }

  private func directory(_ partition: Int) -> String {
    StreamLocation(root: root, stream: stream, partition: partition).directory
  }

  /// A writer of a partition; what older writers had on its way does not count any more.
  public func sink(partition: Int) throws(StreamError) -> any RecordSink {
    try KafkaSink(topic, partition: partition, directory: directory(partition))
  }

  /// A reader of a partition.
  ///
  /// From the beginning means from the oldest record that is kept.
  public func source(
    partition: Int, consumer: String, from position: Position
  ) throws(StreamError) -> (any RecordSource)? {
    if position == .start, try end(partition: partition) == nil { return nil }
    do throws(FileError) { try Files.makeDirectory(directory(partition)) } catch { throw .file(error) }
    return try KafkaSource(
      topic, partition: partition, consumer: consumer, from: position, directory: directory(partition))
  }

  /// The end of a partition; nil while the topic has no such partition.
  public func end(partition: Int) throws(StreamError) -> Position? {
    try questions.withLock { boxes throws(StreamError) in
      let box: Box
      if let known = boxes[partition] {
        box = known
      } else {
        box = Box(try KafkaClient.consumer(topic, partition: partition))
        boxes[partition] = box
      }
      if let failure = box.failure, Clocks.monotonic() < failure.until { throw failure.error }
      do throws(StreamError) {
        let end = try box.client.end()
        box.failure = nil
        return end.map { Position(low: $0) }
      } catch {
        box.failure = (error, Clocks.monotonic() + Self.pauseNanoseconds)
        throw error
      }
    }
  }

  /// The places of the consumers on this machine.
  public func consumers(partition: Int) throws(StreamError) -> [String: ConsumerPlace] {
    guard Files.exists(directory(partition)) else { return [:] }
    return try JournalCarrier(root: root, stream: stream).consumers(partition: partition)
  }

  /// Nil for a consumer of another machine: how far that is behind is the brokers' matter, who keep the records.
  public func backlog(partition: Int, of consumer: String) throws(StreamError) -> UInt64? {
    guard let place = try consumers(partition: partition)[consumer], let end = try end(partition: partition) else {
      return nil
    }
    return bytes(from: place.processed, to: end)
  }

  /// Offsets count records; one is taken for 256 bytes.
  public func bytes(from earlier: Position, to later: Position) -> UInt64 {
    guard earlier.low < later.low else { return 0 }
    return (later.low - earlier.low).multipliedReportingOverflow(by: Self.bytesPerRecord).partialValue
  }
}
