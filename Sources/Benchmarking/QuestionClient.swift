// A client that asks a server over ZeroMQ for seconds on end: as many questions under way as may be, or at a rate.

internal import Base
internal import Glibc
internal import Wire

/// Asks one kind of question, a number of them under way.
final class QuestionClient {
  /// Ends when nobody has it any more.
  private let process: BenchProcess
  private let socket: Socket
  private let inFlight: Int
  private let ask: (UInt64) -> Blob
  private let check: (inout ByteReader) throws -> Void
  private var request: UInt64 = 0

  /// How long a client looks for answers before it sleeps, in nanoseconds: what is measured is the server, not how long
  /// this machine takes to wake a thread.
  static let patience: Int64 = 50_000

  /// Connects, and waits until the server answers a first question with anything but "busy".
  ///
  /// - Parameters:
  ///   - ask: makes the question of a request number.
  ///   - check: reads an answer's body, and throws when it is not what was asked for.
  init(
    _ process: BenchProcess, context: LinkContext, inFlight: Int, ask: @escaping (UInt64) -> Blob,
    check: @escaping (inout ByteReader) throws -> Void
  ) throws {
    self.process = process
    self.inFlight = inFlight
    self.ask = ask
    self.check = check
    // An echo answers at once, and always as if to the first question.
    if process.service != .echo { try Self.wait(for: process, context, ask) }
    socket = try Socket(.dealer, context: context)
    try socket.connect(process.endpoint)
  }

  private static func wait(for process: BenchProcess, _ context: LinkContext, _ ask: (UInt64) -> Blob) throws {
    var asker = try Asker(endpoint: process.endpoint, context: context)
    while true {
      guard process.isRunning else { throw BenchmarkError(description: "the server '\(process.service)' has ended") }
      do {
        _ = try asker.ask(timeout: .seconds(1), ask)
        return
      } catch is AskError {} catch let error as ErrorReply where error.code == .busy {}
    }
  }

  /// Asks for some seconds; at a rate of requests per second latency counts from when a request was due.
  func run(seconds: Double, rate: Double? = nil) throws -> AnsweredRun {
    var run = BenchRun()
    var sent: [Int64] = []
    var answered = 0
    var lastAnswer: Int64 = 0
    let start = Clocks.monotonic()
    let end = start + Int64(seconds * 1e9)
    while true {
      while true {
        let now = Clocks.monotonic()
        guard now < end else { break }
        let due = rate.map { start + Int64(Double(sent.count) * 1e9 / $0) } ?? now
        guard rate == nil ? sent.count - answered < inFlight : due <= now else { break }
        request += 1
        let question = ask(request)
        sent.append(rate == nil ? Clocks.monotonic() : due)
        guard socket.send(question) else { throw BenchmarkError(description: "the queue is full") }
      }
      if answered == sent.count, Clocks.monotonic() >= end { break }
      while let (_, message) = try socket.receive() {
        var reader = ByteReader(message)
        guard try MessageHeader(decoding: &reader).kind == .reply else { throw try ErrorReply(decoding: &reader) }
        try check(&reader)
        lastAnswer = Clocks.monotonic()
        run.latencies.record(lastAnswer - sent[answered])
        answered += 1
      }
      guard Clocks.monotonic() < end + 20_000_000_000 else { throw BenchmarkError(description: "no answer") }
      // At a rate the next request may be due before an answer comes.
      if rate != nil {
        usleep(20)
      } else if Clocks.monotonic() - lastAnswer > Self.patience {
        socket.wait(timeout: .milliseconds(100))
      }
    }
    run.seconds = Double(Clocks.monotonic() - start) / 1e9
    return AnsweredRun(run: run, answered: answered)
  }
}
