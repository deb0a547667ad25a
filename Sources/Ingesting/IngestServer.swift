// The ingest of a cluster: an event loop takes requests over HTTP and parses them, the thread "events" does so over ZeroMQ,
// and the thread "writer" writes and answers. Started and stopped from an ordinary thread.

internal import Base
public import Hosting
public import Logging
public import Streams
internal import Synchronization
public import Wire

/// Why an ingest did not start.
public enum IngestError: Error, Equatable, Sendable, CustomStringConvertible {
  /// It cannot listen.
  case listening(HTTPHostError)
  /// Its socket cannot serve.
  case socket(LinkError)
  /// The streams cannot be written.
  case streams(StreamError)

  /// What is wrong, with what to do.
  public var description: String {
    switch self {
    case .listening(let error): "ingest: \(error)"
    case .socket(let error): "ingest: \(error)"
    case .streams(let error): error.description
    }
  }
}

/// What an ingest writes to; made and used on its writer's thread.
public struct IngestSinks {
  /// The writing ends of the partitions of impressions.
  public var impressions: [any RecordSink]
  /// The writing ends of the partitions of actions, as many.
  public var actions: [any RecordSink]
  /// The file that refused lines are set aside in.
  public var rejectedPath: String
  /// The most bytes of that file.
  public var rejectedByteLimit: Int
  /// Called every few seconds, to delete what nobody asks for again.
  public var upkeep: () -> Void

  /// Sinks from their parts.
  public init(
    impressions: [any RecordSink], actions: [any RecordSink], rejectedPath: String, rejectedByteLimit: Int = 64 << 20,
    upkeep: @escaping () -> Void = {}
  ) {
    self.impressions = impressions
    self.actions = actions
    self.rejectedPath = rejectedPath
    self.rejectedByteLimit = rejectedByteLimit
    self.upkeep = upkeep
  }
}

/// A running ingest.
public final class IngestServer: Sendable {
  /// The port it listens at.
  public var port: Int { host.port }
  /// Where it takes events over ZeroMQ; nil when it does not.
  public let endpoint: String?
  private let state: IngestState
  private let host: HTTPHost
  private let writer: OwnedThread
  private let socket: IngestSocket?
  private let socketThread: OwnedThread?

  /// Starts an ingest; returns when it listens.
  ///
  /// Blocks, so not to be called from an asynchronous function.
  ///
  /// - Parameters:
  ///   - backlog: asked at each request: why nothing is taken now, in words, nil when it is.
  ///   - open: opens what is written to, on the writer's thread.
  /// - Throws: `IngestError` when it cannot listen or write; nothing is left running then.
  public init(
    options: IngestOptions, logger: Logger, backlog: @escaping @Sendable () -> String? = { nil },
    open: @escaping @Sendable () throws(StreamError) -> IngestSinks
  ) throws(IngestError) {
    let state = IngestState(options)
    self.state = state
    let opened = Mailbox<Result<Void, StreamError>>(bound: 1)
    writer = OwnedThread(named: "writer") { state.runWriter(open, opened) }
    switch opened.waitAll(timeout: .seconds(60)).first {
    case .failure(let error): throw .streams(error)
    case .success, nil: break
    }
    let door = IngestDoor(options: options, inbox: state.inbox, counters: state.counters, backlog: backlog)
    do throws(LinkError) {
      (endpoint, socket, socketThread) = try Self.openSocket(options, door, state)
    } catch {
      state.inbox.close()
      writer.join()
      throw .socket(error)
    }
    let router = IngestRouter(door: door, parser: SharedParser(options))
    do throws(HTTPHostError) {
      host = try HTTPHost(options.http, router: router.build(), logger: logger)
    } catch {
      socket?.stop()
      state.inbox.close()
      writer.join()
      socketThread?.join()
      throw .listening(error)
    }
  }

  /// Starts the thread "events" when there is an endpoint for it.
  private static func openSocket(
    _ options: IngestOptions, _ door: IngestDoor, _ state: IngestState
  ) throws(LinkError) -> (String?, IngestSocket?, OwnedThread?) {
    guard let endpoint = options.endpoint else { return (nil, nil, nil) }
    let socket = IngestSocket(door, endpoint, options.security)
    let opened = Mailbox<Result<String, LinkError>>(bound: 1)
    let thread = OwnedThread(named: "events") {
      do throws(LinkError) {
        try socket.run { _ = opened.offer(.success($0)) }
      } catch {
        _ = opened.offer(.failure(error))
        state.linkFailure.withLock { $0 = error }
      }
    }
    while true {
      switch opened.waitAll(timeout: .seconds(1)).first {
      case .success(let place): return (place, socket, thread)
      case .failure(let error):
        thread.join()
        throw error
      case nil: continue
      }
    }
  }

  /// What it has done.
  public var counters: IngestCounters { state.counters.now }

  /// Who was refused over ZeroMQ, by the names that status shows.
  public var refused: [String: UInt64] { socket?.refused ?? [:] }

  /// Why it can go on no more; nil while it can.
  public var failure: IngestError? {
    if let error = state.failure.withLock({ $0 }) { return .streams(error) }
    return state.linkFailure.withLock { $0 }.map { .socket($0) }
  }

  /// Stops listening, lets requests in hand finish, and ends the threads.
  ///
  /// Blocks until then, for some seconds at most. Call it once.
  public func stop() {
    host.stop(whenDrained: {
      state.inbox.close()
      writer.join()
    })
    // After the writer: what it answered last is still sent.
    socket?.stop()
    socketThread?.join()
  }
}

/// What the threads of an ingest share.
private final class IngestState: Sendable {
  let options: IngestOptions
  let inbox: Mailbox<WaitingBatch>
  let counters = SharedCounters()
  let failure = Mutex<StreamError?>(nil)
  let linkFailure = Mutex<LinkError?>(nil)

  init(_ options: IngestOptions) {
    self.options = options
    inbox = Mailbox(bound: options.waitingLimit)
  }

  /// The body of the thread "writer".
  func runWriter(
    _ open: @Sendable () throws(StreamError) -> IngestSinks, _ opened: Mailbox<Result<Void, StreamError>>
  ) {
    do throws(StreamError) {
      let sinks = try open()
      let rejected: RejectedEvents
      do throws(FileError) {
        rejected = try RejectedEvents(path: sinks.rejectedPath, limit: sinks.rejectedByteLimit)
      } catch {
        throw .file(error)
      }
      var writer = IngestWriter(
        options, impressions: sinks.impressions, actions: sinks.actions, rejected: rejected, counters: counters,
        now: Clocks.monotonic())
      _ = opened.offer(.success(()))
      try write(&writer, upkeep: sinks.upkeep)
    } catch {
      failure.withLock { $0 = error }
      _ = opened.offer(.failure(error))
    }
    // Nobody is left without an answer.
    inbox.close()
    for request in inbox.takeAll() { request.answer(.failed("the ingest is stopping")) }
  }

  private func write(_ writer: inout IngestWriter, upkeep: () -> Void) throws(StreamError) {
    var nextUpkeep: Int64 = 0
    while true {
      let waiting = inbox.waitAll(timeout: options.watermarkInterval)
      let now = Clocks.monotonic()
      if !waiting.isEmpty { try writer.write(waiting, now: now, wall: Clocks.wall()) }
      if waiting.isEmpty && inbox.isClosed { return }
      try writer.tick(now: now)
      if now >= nextUpkeep {
        upkeep()
        nextUpkeep = now + 5_000_000_000
      }
    }
  }
}
