// One output partition of a joiner: its sink, and what is in it behind the last checkpoint.

internal import Base
internal import Glibc
internal import Streams

/// Writes one output partition; belongs to the joiner's thread.
struct OutputWriter {
  /// How long a source may give nothing although there is something.
  private static let patience: Int64 = 10_000_000_000

  let output: JoinOutput
  private let streams: any JoinerStreams
  private var sink: any RecordSink
  /// The end that the newest durable checkpoint knows: what is behind it is read back after a crash, so it is kept.
  var checkpointed = Position.start
  /// How far the slowest consumer is behind; nil without a consumer.
  private(set) var backlog: UInt64?

  /// Opens the partition and becomes its only writer.
  init(_ output: JoinOutput, streams: any JoinerStreams) throws(JoinerError) {
    self.output = output
    self.streams = streams
    do throws(StreamError) {
      sink = try streams.sink(output)
    } catch {
      throw .stream(name: output.description, error)
    }
  }

  var synced: Position { sink.synced }
  var hasUnsynced: Bool { sink.synced < sink.end }

  /// Calls `body` with every record behind `position`.
  mutating func readBack(
    from position: Position, _ body: (inout ByteReader) throws(DecodeError) -> Void
  ) throws(JoinerError) {
    guard position <= sink.end else {
      throw .outputTooShort(output: output, end: sink.end, expected: position)
    }
    checkpointed = position
    try sync()
    guard position < sink.end else { return }
    var source: any RecordSource
    do throws(StreamError) {
      source = try streams.written(output, from: position)
    } catch {
      throw .stream(name: output.description, error)
    }
    let deadline = Clocks.monotonic() + Self.patience
    while source.position < sink.end {
      let record: StreamRecord?
      do throws(StreamError) {
        record = try source.next()
      } catch {
        throw .stream(name: output.description, error)
      }
      guard let record else {
        // What comes over a network takes a moment.
        guard Clocks.monotonic() < deadline else { break }
        usleep(1000)
        continue
      }
      var reader = record.reader
      do throws(DecodeError) {
        try body(&reader)
      } catch {
        throw .badOutput(output: output, position: record.position, error)
      }
    }
    guard source.position >= sink.end else {
      throw .outputTooShort(output: output, end: source.position, expected: sink.end)
    }
  }

  mutating func append(_ record: borrowing ByteWriter) throws(JoinerError) {
    do throws(StreamError) { try sink.append(record.written) } catch { throw .stream(name: output.description, error) }
  }

  mutating func sync() throws(JoinerError) {
    do throws(StreamError) { try sink.sync() } catch { throw .stream(name: output.description, error) }
  }

  /// Looks how far the consumers are, and deletes what neither they nor a restart of the joiner will ask for.
  mutating func lookAtConsumers() throws(JoinerError) {
    do throws(StreamError) {
      guard let slowest = try streams.slowestConsumer(of: output) else {
        backlog = nil
        return
      }
      backlog = streams.bytes(of: output, from: slowest.processed, to: sink.synced)
      try streams.discard(output, before: min(slowest.safe, checkpointed), from: sink)
    } catch {
      throw .stream(name: output.description, error)
    }
  }
}

extension ByteWriter {
  /// A copy of what has been written.
  borrowing func copy() -> [UInt8] {
    unsafe written.withUnsafeBytes { unsafe Array($0) }
  }
}
