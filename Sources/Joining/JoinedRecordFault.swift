// Why a record of an input stream is refused. The ingest and the player check what they write, so it is rare: somebody else
// wrote into the stream.

internal import Base
internal import Streams

/// What is wrong with a record; those around it are not concerned.
enum JoinedRecordFault: Error, Equatable, CustomStringConvertible {
  /// It is not the bytes of an event.
  case notAnEvent(String)
  /// An impression or action of a time that cannot be meant.
  case absurdTime(Milliseconds)

  /// Event times up to here are believed: a watermark never goes back, so one record could end all joining.
  static let latestTime = EventParser.Options().times.upperBound

  /// The event in a record.
  static func event(_ reader: inout ByteReader) throws(JoinedRecordFault) -> Event {
    let event: Event
    do throws(DecodeError) {
      event = try Event(decoding: &reader)
      try reader.expectEnd()
    } catch {
      throw .notAnEvent("\(error)")
    }
    if case .watermark = event { return event }
    guard event.time <= latestTime else { throw .absurdTime(event.time) }
    return event
  }

  /// A short stable name to count by.
  var code: String {
    switch self {
    case .notAnEvent: "not_an_event"
    case .absurdTime: "absurd_time"
    }
  }

  var description: String {
    switch self {
    case .notAnEvent(let problem): "not an event: \(problem)"
    case .absurdTime(let time): "time is \(time); expected UTC milliseconds up to \(Self.latestTime)"
    }
  }

  /// The first bytes of a record.
  func head(of record: StreamRecord) -> [UInt8] {
    var reader = record.reader
    return (try? reader.view(UInt8.self, count: min(reader.remaining, RejectedEvent.textLimit)).array) ?? []
  }
}
