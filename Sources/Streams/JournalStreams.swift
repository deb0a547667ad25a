// Streams on journals: a partition is a journal directory, a position is (0, end offset).

public import Base
public import Journal

/// The writing end of a journal partition.
public final class JournalSink: RecordSink {
  private var writer: JournalWriter

  /// Opens, or makes, the journal at a location; its lock is held until the sink goes.
  public init(_ location: StreamLocation, options: JournalOptions = JournalOptions()) throws(StreamError) {
    do throws(FileError) { try Files.makeDirectory(location.directory) } catch { throw .file(error) }
    do throws(JournalError) {
      writer = try JournalWriter(directory: location.directory, options: options)
    } catch {
      throw .journal(error)
    }
  }

  /// Appends a record and gives the position of its end.
  @discardableResult
  public func append(_ payload: RawSpan) throws(StreamError) -> Position {
    do throws(JournalError) { return Position(low: try writer.append(payload)) } catch { throw .journal(error) }
  }

  /// Makes all appended records durable and visible.
  public func sync() throws(StreamError) {
    do throws(JournalError) { try writer.sync() } catch { throw .journal(error) }
  }

  /// Deletes what no consumer will ask for again, in whole segments.
  public func deleteRecords(before position: Position, keeping keptBytes: UInt64 = 0) throws(StreamError) {
    let synced = writer.syncedEnd
    guard synced > keptBytes else { return }
    let offset = min(position.low, synced - keptBytes)
    do throws(JournalError) { try writer.deleteSegments(before: offset) } catch { throw .journal(error) }
  }

  /// The end of the last appended record.
  public var end: Position { Position(low: writer.end) }
  /// The end of the last durable record.
  public var synced: Position { Position(low: writer.syncedEnd) }
  /// How many bytes of records are kept.
  public var keptBytes: UInt64 { writer.keptBytes }
}

/// The reading end of a journal partition, for one named consumer.
public final class JournalSource: RecordSource {
  private let directory: String
  private let consumer: String
  private var reader: JournalReader

  /// A source that begins behind `position`, the end of an earlier record.
  /// - Throws: `journal(.notThere)` while nobody has made the journal yet.
  public init(_ location: StreamLocation, consumer: String, from position: Position = .start) throws(StreamError) {
    directory = location.directory
    self.consumer = consumer
    do throws(JournalError) {
      reader = try JournalReader(directory: location.directory, from: position.low)
    } catch {
      throw .journal(error)
    }
  }

  /// The next durable record, or nil for now.
  public func next() throws(StreamError) -> StreamRecord? {
    do throws(JournalError) {
      guard let record = try reader.next() else { return nil }
      return StreamRecord(position: Position(low: record.end), reader: record.payload)
    } catch {
      throw .journal(error)
    }
  }

  /// The position of the last record returned, or where the source began.
  public var position: Position { Position(low: reader.offset) }

  /// The end of what is durable now.
  public func end() throws(StreamError) -> Position {
    do throws(JournalError) { return Position(low: try reader.syncedEnd()) } catch { throw .journal(error) }
  }

  /// Notes how far this consumer has come, in the journal's directory.
  public func commit(processed: Position, safe: Position) throws(StreamError) {
    do throws(JournalError) {
      try JournalConsumers.commit(
        directory: directory, consumer: consumer, processed: processed.low, safe: safe.low, durable: false)
    } catch {
      throw .journal(error)
    }
  }
}
