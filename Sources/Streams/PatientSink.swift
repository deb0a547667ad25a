// A sink for those who can only wait: while its server is away, a call takes longer instead of failing. Belongs to the
// thread of the sink it holds.

public import Base
internal import Glibc

/// Waits until its sink's server is back.
public struct PatientSink: RecordSink {
  private var sink: any RecordSink
  private let shouldStop: @Sendable () -> Bool
  private let report: @Sendable (String?) -> Void
  private static let pauseMicroseconds: UInt32 = 20_000

  /// A sink around another.
  /// - Parameters:
  ///   - shouldStop: whether waiting is to end; the error is thrown then.
  ///   - report: told what it waits for, and nil when it goes on.
  public init(
    _ sink: any RecordSink, shouldStop: @escaping @Sendable () -> Bool,
    report: @escaping @Sendable (String?) -> Void = { _ in }
  ) {
    self.sink = sink
    self.shouldStop = shouldStop
    self.report = report
  }

  /// Opens a sink whose server may be away, and waits for it.
  public static func opened(
    shouldStop: @escaping @Sendable () -> Bool, report: @escaping @Sendable (String?) -> Void = { _ in },
    _ open: () throws(StreamError) -> any RecordSink
  ) throws(StreamError) -> PatientSink {
    var hasWaited = false
    while true {
      do throws(StreamError) {
        let sink = try open()
        if hasWaited { report(nil) }
        return PatientSink(sink, shouldStop: shouldStop, report: report)
      } catch {
        guard error.isForNow, !shouldStop() else { throw error }
        hasWaited = true
        wait(error, report)
      }
    }
  }

  private static func wait(_ error: StreamError, _ report: (String?) -> Void) {
    report("\(error)")
    usleep(pauseMicroseconds)
  }

  /// Appends a record; waits when it must be sent first.
  @discardableResult
  public mutating func append(_ payload: RawSpan) throws(StreamError) -> Position {
    var hasWaited = false
    while true {
      do throws(StreamError) {
        let position = try sink.append(payload)
        if hasWaited { report(nil) }
        return position
      } catch {
        guard error.isForNow, !shouldStop() else { throw error }
        hasWaited = true
        Self.wait(error, report)
      }
    }
  }

  /// Makes all appended records durable, however long that takes.
  public mutating func sync() throws(StreamError) {
    var hasWaited = false
    while true {
      do throws(StreamError) {
        try sink.sync()
        if hasWaited { report(nil) }
        return
      } catch {
        guard error.isForNow, !shouldStop() else { throw error }
        hasWaited = true
        Self.wait(error, report)
      }
    }
  }

  /// Deletes records; does not wait, as it is called again.
  public mutating func deleteRecords(before position: Position, keeping keptBytes: UInt64) throws(StreamError) {
    try sink.deleteRecords(before: position, keeping: keptBytes)
  }

  /// The end of the last appended record.
  public var end: Position { sink.end }
  /// The end of the last durable record.
  public var synced: Position { sink.synced }
}
