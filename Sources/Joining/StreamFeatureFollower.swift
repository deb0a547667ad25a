// Keeps the stream features of a process that answers requests up with the streams. It reads the same partitions as the
// joiner, judges lateness the same way, and begins with the joiner's state; it commits nothing, so it holds nothing back.

public import Base
internal import Glibc
public import Streams

/// Feeds shared stream features from a joiner's inputs; belongs to one thread.
public final class StreamFeatureFollower {
  private static let readLimit = 512
  private static let aheadMilliseconds: Int64 = 10_000

  private let rules: JoinRules
  private let checkpointPath: String
  private let streams: any JoinerStreams
  private let shared: SharedStreamFeatures
  private let delay: Int64
  private var readers: [InputReader] = []
  private var watermarks: [Milliseconds] = []
  private var positions: [Position] = []
  /// All that counts before this event time is counted.
  public private(set) var frontier = Milliseconds.min

  /// A follower of the inputs that `rules` name.
  ///
  /// - Parameters:
  ///   - stateDirectory: the joiner's, whose checkpoint is where to begin.
  ///   - shared: what is kept up; replaced by the joiner's state.
  /// - Throws: `JoinerError` when the checkpoint does not read.
  public init(
    _ rules: JoinRules, stateDirectory: String, streams: any JoinerStreams, into shared: SharedStreamFeatures
  ) throws(JoinerError) {
    guard let features = rules.features else { preconditionFailure("the rules of the join compute no features") }
    self.rules = rules
    self.streams = streams
    self.shared = shared
    delay = features.delayMilliseconds
    checkpointPath = JoinerCheckpoint.path(in: stateDirectory)
    try begin()
  }

  /// Takes the joiner's newest state and reads on from where it was.
  private func begin() throws(JoinerError) {
    var core = JoinerCore(rules: rules)
    if Files.exists(checkpointPath) {
      let content: [UInt8]
      do throws(FileError) { content = try Files.read(checkpointPath) } catch { throw .file(error) }
      do throws(DecodeError) {
        var (_, state) = try JoinerCheckpoint.decode(Blob(content))
        core = try JoinerCore(rules: rules, decoding: &state)
      } catch {
        throw .badCheckpoint(path: checkpointPath, error)
      }
    }
    guard let features = core.features else { return }
    readers = rules.inputs.map { InputReader($0, streams: streams) }
    watermarks = core.watermarks
    positions = core.positions
    frontier = features.frontier
    shared.update { $0 = features }
  }

  /// Reads what has come and counts what counts by now; false when there was nothing to read.
  ///
  /// - Parameters:
  ///   - now: the wall clock: nothing counts before it would count in training.
  ///   - observe: gets what came in time, when it is taken in.
  /// - Throws: when a stream cannot be read, after the next call will begin again with the joiner's state.
  public func step(now: Milliseconds, observe: ([Event]) -> Void = { _ in }) throws(JoinerError) -> Bool {
    if readers.isEmpty { try begin() }
    var events: [Event] = []
    do throws(JoinerError) {
      events = try read()
    } catch {
      // The records may be gone because the joiner is past them; its checkpoint is too.
      readers = []
      throw error
    }
    let isReady = watermarks.allSatisfy { $0 > .min }
    if isReady { frontier = max(frontier, min((watermarks.min() ?? .min).later(by: delay), now)) }
    let reached = frontier
    shared.update { features in
      for event in events { features.take(event) }
      features.advance(to: reached)
    }
    observe(events)
    return !events.isEmpty
  }

  /// Events in time of the input that is furthest behind and has something.
  private func read() throws(JoinerError) -> [Event] {
    let joint = watermarks.min() ?? .min
    let order = readers.indices.sorted { (watermarks[$0], $0) < (watermarks[$1], $1) }
    for index in order where watermarks[index] <= joint.later(by: Self.aheadMilliseconds) {
      try readers[index].open(from: positions[index])
      var events: [Event] = []
      var count = 0
      while count < Self.readLimit, let record = try readers[index].next() {
        count += 1
        positions[index] = record.position
        var reader = record.reader
        guard let event = try? Event(decoding: &reader) else { continue }
        if let inTime = judge(event, index) { events.append(inTime) }
      }
      if count > 0 { return events }
    }
    return []
  }

  /// The event when it is in time and no watermark; its partition's watermark moves in any case.
  private func judge(_ event: Event, _ index: Int) -> Event? {
    let (time, lateness): (Milliseconds, Int64)
    switch event {
    case .impression(let impression): (time, lateness) = (impression.time, rules.allowedLatenessMilliseconds)
    case .action(let action): (time, lateness) = (action.time, rules.allowedLatenessMilliseconds)
    case .watermark(let mark):
      watermarks[index] = max(watermarks[index], mark)
      return nil
    }
    defer { watermarks[index] = max(watermarks[index], time.earlier(by: lateness)) }
    return time >= watermarks[index] ? event : nil
  }
}
