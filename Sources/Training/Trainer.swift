// The trainer's shell: one thread with a socket to each shard, the sources of its partitions and the score log.

public import Base
internal import Layers
internal import Sharding
public import Streams
internal import Synchronization
public import Wire

/// Where a trainer finds shards, streams and its log.
public struct TrainerServiceOptions: Sendable {
  /// The trainer itself.
  public var trainer: TrainerOptions
  /// Where each shard serves, by shard.
  public var shardEndpoints: [String]
  /// The directory that holds `streams/`.
  public var streamRoot: String
  /// The file of score records.
  public var scorePath: String
  /// About how many bytes of score records stay on the disk; nil for all.
  public var keepScores: Int?
  /// The directory that batches go to of which nothing was pushed; nil to only count them.
  public var rejectedDirectory: String?
  /// Its key and the shards'; nil when they ask for none.
  public var security: LinkSecurity?
  /// Gives lessons when the trainer's options ask for them; nil for none.
  public var teacher: (any Teacher)?
  /// What the sockets of the process share; nil for one of its own.
  public var context: LinkContext?
  /// Opens the partition of the stream of examples behind a position, or gives nil while there is none.
  ///
  /// Nil: the journals below `streamRoot`.
  public var source: (@Sendable (_ partition: Int, _ position: Position) throws(StreamError) -> (any RecordSource)?)?

  /// Options with all parts.
  public init(trainer: TrainerOptions, shardEndpoints: [String], streamRoot: String, scorePath: String) {
    self.trainer = trainer
    self.shardEndpoints = shardEndpoints
    self.streamRoot = streamRoot
    self.scorePath = scorePath
  }
}

/// What a trainer says of itself.
public struct TrainerStatus: Sendable {
  /// What it waits for, in words; empty when it trains.
  public var message: String
  /// Whether all partitions are claimed.
  public var isReady: Bool
  /// Counts since the process started.
  public var counters: TrainerCore.Counters
  /// Bytes of pushes that are not durable yet.
  public var keptBytes: Int
  /// How often it had to ask where a shard stands.
  public var resynchronizations: Int
  /// Per task: the quality over the last scored examples.
  public var quality: [(task: String, auc: Double?, ne: Double?)]
  /// Records of its partitions not yet read, in bytes of their journals.
  public var lagBytes: UInt64
  /// What its teacher is; nil without one.
  public var teacher: TeacherStatus?
  /// Batches of which nothing was pushed since the last status: what was found, and in which file the batch is.
  public var rejections: [String]
}

/// An error that ends the trainer; it is started anew unless an operator must decide first.
public struct TrainerFailure: Error, Sendable, CustomStringConvertible {
  /// What happened.
  public let description: String
  /// Whether a trainer that begins anew would go on as if nothing had happened, though something is lost.
  public var needsOperator = false
}

/// Runs one trainer until told to stop.
public final class Trainer: Sendable {
  private let options: TrainerServiceOptions
  private let isStopping = Atomic<Bool>(false)

  /// A trainer that is not running yet.
  public init(_ options: TrainerServiceOptions) { self.options = options }

  /// Asks `run` to push what is on its way and return.
  public func stop() { isStopping.store(true, ordering: .relaxed) }

  /// Claims, trains, and returns after `stop`.
  ///
  /// Blocks the calling thread.
  ///
  /// - Parameter onStatus: called about twice a second on the trainer's thread.
  /// - Throws: `TrainerFailure` when it is fenced or a shard lost updates, and errors of sockets, streams and files.
  public func run(onStatus: (TrainerStatus) -> Void = { _ in }) throws {
    var core = try TrainerCore(options.trainer, owner: .random(in: 1 ... .max))
    core.teacher = options.teacher
    var scores = try ScoreLog(
      path: options.scorePath, tasks: options.trainer.model.tasks.count, keep: options.keepScores)
    let context = options.context ?? LinkContext(options.security)
    let sockets = try SocketGroup(connecting: options.shardEndpoints, context: context)
    var sources: [(partition: Int, source: any RecordSource)] = []
    var nextStatus: Int64 = 0
    var nextCommit: Int64 = 0
    var nextEarlyClose: Int64 = 0
    var stopDeadline: Int64?
    var rejections: [String] = []
    var trouble: String?

    while true {
      var didWork = false
      for shard in 0..<sockets.count {
        while let message = try sockets.receive(from: shard) {
          core.client.receive(message, from: shard, now: Clocks.monotonic())
          didWork = true
        }
      }
      if let failure = core.client.failure {
        throw TrainerFailure(description: failure.description, needsOperator: failure.isLoss)
      }
      let now = Clocks.monotonic()
      core.client.tick(now: now)
      let isStopping = isStopping.load(ordering: .relaxed)
      if isStopping, stopDeadline == nil { stopDeadline = now + 5_000_000_000 }

      if sources.count < options.trainer.partitions.count, let starts = core.startPositions() {
        sources = try open(starts)
      }
      var isDry = true
      if !isStopping {
        for index in sources.indices {
          let partition = sources[index].partition
          while core.wantsRecord(of: partition) {
            guard let record = try next(&sources[index].source, &trouble) else { break }
            core.take(record, of: partition, now: now)
            didWork = true
            isDry = false
          }
          if sources[index].source.hasEnded { core.end(partition: partition) }
        }
      }
      if try core.work(now: now, isDry: isDry || isStopping, scores: &scores) { didWork = true }
      for batch in core.takeRejected() {
        rejections.append(batch.keep(in: options.rejectedDirectory, schema: options.trainer.schema))
      }
      if core.isBufferFull, now >= nextEarlyClose {
        nextEarlyClose = now + 100_000_000
        core.client.askForEarlyClose()
      }
      for (shard, message) in core.client.takeOutgoing() {
        // False: the queue to a silent shard is full; the retry sends it again.
        _ = sockets.send(message, to: shard)
        if FaultPoint.sendHalf.isDue { FaultPoint.sendHalf.die(after: .milliseconds(5)) }
      }

      if now >= nextCommit {
        nextCommit = now + 50_000_000
        try commit(&sources, core, &trouble)
      }
      if now >= nextStatus {
        nextStatus = now + 500_000_000
        onStatus(try status(of: core, &sources, refused: sockets.refused, trouble: &trouble, rejections: rejections))
        rejections = []
      }
      if isStopping, core.isIdle && core.client.keptBytes == 0 || now > stopDeadline ?? .max {
        try commit(&sources, core, &trouble)
        onStatus(try status(of: core, &sources, trouble: &trouble, rejections: rejections))
        return
      }
      if !didWork { sockets.wait(timeout: .milliseconds(2)) }
    }
  }

  /// The next record; nil also while the source's server is away, which `trouble` then says.
  private func next(
    _ source: inout any RecordSource, _ trouble: inout String?
  ) throws(StreamError) -> StreamRecord? {
    do throws(StreamError) {
      let record = try source.next()
      trouble = nil
      return record
    } catch {
      guard error.isForNow else { throw error }
      trouble = "\(error)"
      return nil
    }
  }

  private func open(
    _ starts: [(partition: Int, position: Position)]
  ) throws -> [(partition: Int, source: any RecordSource)] {
    try starts.compactMap { partition, position in
      if let source = options.source {
        do throws(StreamError) { return try source(partition, position).map { (partition, $0) } } catch {
          if case .journal(.notThere) = error { return nil }
          if error.isForNow { return nil }
          throw Self.failure(partition, error)
        }
      }
      let location = StreamLocation(root: options.streamRoot, stream: options.trainer.stream, partition: partition)
      // The joiner makes the stream; until then there is nothing to read.
      guard Files.exists(location.directory + "/head") else { return nil }
      do throws(StreamError) {
        let source = try JournalSource(location, consumer: "trainer-\(options.trainer.modelName)", from: position)
        return (partition, source)
      } catch {
        throw Self.failure(partition, error)
      }
    }
  }

  /// What an operator is told of a source that cannot go on.
  private static func failure(_ partition: Int, _ error: StreamError) -> any Error {
    let (wanted, first): (String, String)
    switch error {
    case .journal(.deleted(let offset, let start)): (wanted, first) = ("\(offset)", "\(start)")
    case .gone(_, let position, let start): (wanted, first) = ("\(position)", "\(start)")
    default: return error
    }
    return TrainerFailure(
      description: "partition \(partition): the shards have applied the examples up to \(wanted), and those before "
        + "\(first) were deleted; restore the shards again with --skip-to \(partition):\(first)")
  }

  private func commit(
    _ sources: inout [(partition: Int, source: any RecordSource)], _ core: borrowing TrainerCore,
    _ trouble: inout String?
  ) throws(StreamError) {
    for index in sources.indices {
      let chain = options.trainer.chain(sources[index].partition)
      do throws(StreamError) {
        try sources[index].source.commit(
          processed: core.client.appliedPosition(of: chain), safe: core.client.durablePosition(of: chain))
      } catch {
        guard error.isForNow else { throw error }
        trouble = "\(error)"  // the next commit says as much
      }
    }
  }

  private func status(
    of core: borrowing TrainerCore, _ sources: inout [(partition: Int, source: any RecordSource)], refused: Int? = nil,
    trouble: inout String?, rejections: [String]
  ) throws -> TrainerStatus {
    var lag: UInt64 = 0
    for index in sources.indices {
      do throws(StreamError) {
        let end = try sources[index].source.end().low
        lag += end - min(end, sources[index].source.position.low)
      } catch {
        guard error.isForNow else { throw error }
        trouble = "\(error)"
      }
    }
    var message = trouble ?? core.client.waitsFor ?? ""
    if let refused { message = "shard \(refused) refuses this key; see `guira keys show`" }
    if message.isEmpty, sources.count < options.trainer.partitions.count { message = "waits for the joiner's stream" }
    if message.isEmpty, core.isBufferFull { message = "waits until pushes are durable" }
    var quality: [(task: String, auc: Double?, ne: Double?)] = []
    for (index, task) in options.trainer.model.tasks.enumerated() {
      let scores = core.windows[index].scores()
      quality.append((task.name, scores.auc, scores.ne))
    }
    return TrainerStatus(
      message: message, isReady: core.client.isReady, counters: core.counters, keptBytes: core.client.keptBytes,
      resynchronizations: core.client.resynchronizations, quality: quality, lagBytes: lag,
      teacher: options.trainer.stabilization.isOn ? TeacherStatus(core.counters) : nil, rejections: rejections)
  }
}
