// One input partition of a joiner: its source, opened as soon as it is there, and what was committed to it.

internal import Base
internal import Streams

/// Reads one input partition; belongs to the joiner's thread.
struct InputReader {
  let input: JoinInput
  private let streams: any JoinerStreams
  private var source: (any RecordSource)?
  /// A source whose end is not known yet.
  private var opening: (any RecordSource)?
  private var committed: (processed: Position, safe: Position)?
  /// The end of the stream when this process began to read it; nil until it is known.
  private(set) var endAtStart: Position?
  /// The end of the stream when it was last looked at.
  private(set) var end: Position?

  init(_ input: JoinInput, streams: any JoinerStreams) {
    self.input = input
    self.streams = streams
  }

  var isOpen: Bool { source != nil }

  /// Up to where the source was read; all of its records have been handed out, and a carrier may have passed over others.
  var position: Position? { source?.position }

  /// Opens the source when it is there; to be called again when not.
  mutating func open(from position: Position) throws(JoinerError) {
    guard source == nil else { return }
    do throws(StreamError) {
      // A source counts as open when its end is known: a restart waits for that place to be passed.
      if opening == nil { opening = try streams.source(input, from: position) }
      endAtStart = try opening?.end()
      (source, opening) = (opening, nil)
    } catch {
      throw .stream(name: input.description, error)
    }
  }

  mutating func next() throws(JoinerError) -> StreamRecord? {
    do throws(StreamError) { return try source?.next() } catch { throw .stream(name: input.description, error) }
  }

  /// Asks the stream where it ends.
  mutating func lookAtEnd() throws(JoinerError) {
    do throws(StreamError) { end = try source?.end() } catch { throw .stream(name: input.description, error) }
  }

  /// Tells the stream how far the joiner has come, when that has changed.
  mutating func commit(processed: Position, safe: Position) throws(JoinerError) {
    guard source != nil else { return }
    if let committed, committed == (processed, safe) { return }
    do throws(StreamError) {
      try source?.commit(processed: processed, safe: safe)
      committed = (processed, safe)
    } catch {
      throw .stream(name: input.description, error)
    }
  }
}

extension Position {
  /// The bytes, or records, between an earlier position and this one; saturates where positions are not dense.
  func distance(from earlier: Position) -> UInt64 {
    guard earlier < self else { return 0 }
    return high == earlier.high ? low - earlier.low : .max
  }
}
