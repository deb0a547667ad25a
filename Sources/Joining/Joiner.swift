// The joiner's thread: reads the input partitions, feeds the core, writes and syncs the examples, takes checkpoints.
//
// Nothing is lost or repeated by a kill at any moment: a checkpoint holds the core, its input positions, the ends the
// outputs had and the number of the store's snapshot, and is written after those are durable. A new joiner loads it, notes
// the labels that the outputs hold behind those ends, and withholds them while it reads the inputs again: the core would
// make the very same ones.

internal import Base
internal import Glibc
internal import Streams

/// How a joiner runs.
public struct JoinerOptions: Equatable, Sendable {
  /// What is joined, and how.
  public var rules: JoinRules
  /// The directory of the checkpoint and the lock.
  public var stateDirectory: String
  /// The longest an example waits before the outputs are synced.
  ///
  /// Default 10 ms: one sync for many examples. Where the disk is slow it is four times what a sync takes, so that the
  /// joiner spends at most a fifth of its time on them.
  public var syncInterval = Duration.milliseconds(10)
  /// How often a checkpoint is taken; less often where one takes long, so that at most a twentieth of the time goes
  /// into them.
  ///
  /// Default 3 s: what a restart reads again.
  public var checkpointInterval = Duration.seconds(3)
  /// How far, in event time, an input may be read ahead of the joint watermark.
  ///
  /// Default 10 s: enough to read in long runs, little to keep pending.
  public var readAheadMilliseconds: Int64 = 10_000
  /// An output whose slowest consumer is further behind, in bytes on a journal, stops the reading.
  ///
  /// Default 64 MiB.
  public var backlogLimit: UInt64 = 64 << 20
  /// The memory of pending impressions and known ids; impressions beyond it are put on disk.
  ///
  /// Default 1 GiB: some 20 million pending impressions. A known id takes about 40 bytes of it wherever its impression is.
  public var memory = 1 << 30
  /// The most bytes of records that are refused and set aside in the state directory.
  ///
  /// Default 64 MiB.
  public var rejectedBytes = 64 << 20

  /// Options from what has no default.
  public init(rules: JoinRules, stateDirectory: String) {
    self.rules = rules
    self.stateDirectory = stateDirectory
  }
}

/// Joins streams of impressions and actions into streams of examples.
public final class Joiner {
  private static let reportNanoseconds: Int64 = 500_000_000
  private static let napMicroseconds: UInt32 = 1000

  /// How many records are read from one input before the others have their turn.
  var readBatchLimit = 256
  /// How often consumers and ends are looked at, and positions committed.
  var houseKeepingInterval = Duration.milliseconds(100)
  /// The options in effect.
  public let options: JoinerOptions
  private let lock: FileLock
  private(set) var core: JoinerCore
  private(set) var inputs: [InputReader]
  private(set) var outputs: [OutputWriter]
  let store: PendingStore
  private var snapshotNumber: UInt64
  /// Whether the core has from the store what it asked for.
  private var isSettled = false
  /// Late actions that are in their output already, with how often.
  private var withheldLate: [[UInt8]: Int]
  /// How far the late actions' output went when it was last written to.
  private var lateEnd: Position
  /// Whether the outputs hold labels that the core may still have to make again.
  private var isCatchingUp: Bool
  private var undelivered: [JoinedExample] = []
  private var delivered = 0
  private var undeliveredLate: [Action] = []
  private var deliveredLate = 0
  private var record = ByteWriter(capacity: 1024)
  private var checkpointPositions: [Position]
  private(set) var checkpointNanoseconds: Int64 = 0
  private(set) var checkpointBytes = 0
  private(set) var isHeldBack = false
  private(set) var trouble: String?
  private var lastSync: Int64 = 0
  private var syncNanoseconds: Int64 = 0
  private var lastCheckpoint: Int64
  private var lastHouseKeeping: Int64 = 0
  private var lastReport: Int64 = 0
  private var rejected: RejectedEvents
  /// How many records this process refused for what.
  private(set) var refused: [String: UInt64] = [:]
  /// How many of them found no room where they are set aside.
  private(set) var notSetAside = 0

  /// Opens the state directory and the outputs, and goes on where the last checkpoint and the outputs are.
  public init(_ options: JoinerOptions, streams: any JoinerStreams) throws(JoinerError) {
    self.options = options
    let path = JoinerCheckpoint.path(in: options.stateDirectory)
    let content: [UInt8]?
    do throws(FileError) {
      try Files.makeDirectory(options.stateDirectory)
      lock = try FileLock(path: "\(options.stateDirectory)/joiner.lock")
      content = Files.exists(path) ? try Files.read(path) : nil
      rejected = try RejectedEvents(
        path: "\(options.stateDirectory)/\(RejectedEvents.fileName)", limit: options.rejectedBytes)
    } catch {
      throw .file(error)
    }
    var checkpoint = JoinerCheckpoint()
    var core = JoinerCore(rules: options.rules)
    if let content {
      do throws(DecodeError) {
        let (found, state) = try JoinerCheckpoint.decode(Blob(content))
        checkpoint = found
        var reader = state
        core = try JoinerCore(rules: options.rules, decoding: &reader)
        try reader.expectEnd()
      } catch {
        throw .badCheckpoint(path: path, error)
      }
    }
    let ends = checkpoint.exampleEnds
    guard ends.count <= options.rules.outputPartitions else {
      throw .fewerOutputs(stored: ends.count, configured: options.rules.outputPartitions)
    }
    outputs = []
    for partition in 0..<options.rules.outputPartitions {
      var writer = try OutputWriter(.examples(partition), streams: streams)
      try writer.readBack(from: partition < ends.count ? ends[partition] : .start) { reader throws(DecodeError) in
        core.withhold(try Example(decoding: &reader))
      }
      outputs.append(writer)
    }
    if options.rules.emitsLateActions {
      var writer = try OutputWriter(.lateActions, streams: streams)
      var late = checkpoint.withheldLate
      try writer.readBack(from: checkpoint.lateEnd) { reader throws(DecodeError) in
        late[try reader.view(UInt8.self, count: reader.remaining).array, default: 0] += 1
      }
      checkpoint.withheldLate = late
      outputs.append(writer)
    }
    withheldLate = checkpoint.withheldLate
    lateEnd = checkpoint.lateEnd
    isCatchingUp = core.withheldImpressions > 0 || !withheldLate.isEmpty
    inputs = options.rules.inputs.map { InputReader($0, streams: streams) }
    store = PendingStore(in: options.stateDirectory, memory: options.memory)
    snapshotNumber = checkpoint.store.number
    core.limitMemory(to: PendingBound(bytes: options.memory))
    try core.restore(checkpoint.store, from: store, checkpoint: path)
    self.core = core
    checkpointPositions = []
    lastCheckpoint = Clocks.monotonic()
    checkpointPositions = positions
  }

  /// Joins until `shouldStop` says so, then brings everything to the disk.
  ///
  /// - Parameters:
  ///   - shouldStop: asked many times a second.
  ///   - report: called about twice a second, and at the end.
  public func run(until shouldStop: () -> Bool, report: (JoinerStatus) -> Void) throws(JoinerError) {
    while !shouldStop() {
      if try !step() { usleep(Joiner.napMicroseconds) }
      if Clocks.monotonic() - lastReport >= Joiner.reportNanoseconds {
        report(status)
        lastReport = Clocks.monotonic()
      }
    }
    try finish()
    report(status)
  }

  // MARK: - One round

  /// Reads a batch, delivers what it made, and does what is due.
  ///
  /// False when there was nothing to read.
  func step() throws(JoinerError) -> Bool {
    let now = Clocks.monotonic()
    var didRead = false
    do throws(JoinerError) {
      if now - lastHouseKeeping >= houseKeepingInterval.nanoseconds {
        lastHouseKeeping = now
        try keepHouse()
      }
      if isDelivered, !isHeldBack {
        if !isSettled { didRead = try settle() }
        if isSettled {
          // Until it is known that nothing was read: reading may fail in the middle.
          isSettled = false
          if try read() > 0 {
            didRead = true
            _ = try settle()
          } else {
            isSettled = true
          }
        }
        undelivered = core.takeExamples()
        undeliveredLate = core.takeLateActions()
      }
      try deliver()
      if outputs.contains(where: { $0.hasUnsynced }) {
        if now - lastSync >= max(options.syncInterval.nanoseconds, 4 * syncNanoseconds) { try syncOutputs() }
      } else {
        lastSync = now  // the interval begins with the first example after a quiet time
      }
      let interval = max(options.checkpointInterval.nanoseconds, 20 * checkpointNanoseconds)
      if isDelivered, now - lastCheckpoint >= interval, positions != checkpointPositions { try checkpoint() }
      trouble = nil
    } catch {
      guard error.isForNow else { throw error }
      trouble = error.description  // nothing is lost: the same calls go on once there is space, or the server
      return false
    }
    return didRead
  }

  /// Lets the core have from the store what it asked for; false when nothing came.
  private func settle() throws(JoinerError) -> Bool {
    let settled = try core.settle(store)
    isSettled = settled.isDone
    if core.storedImpressions > 0 { FaultPoint.pendingStored.pass() }
    return settled.loaded > 0
  }

  private var isDelivered: Bool { undelivered.isEmpty && undeliveredLate.isEmpty }

  private var positions: [Position] { inputs.map { core.position(of: $0.input) } }

  /// Reads from the input that is furthest behind in event time and has something, but from none that is too far ahead.
  private func read() throws(JoinerError) -> Int {
    var candidates = inputs.indices.map { (watermark: core.watermark(of: inputs[$0].input), index: $0) }
    candidates.sort { $0 < $1 }
    for (watermark, index) in candidates {
      guard watermark <= core.watermark.later(by: options.readAheadMilliseconds) else { break }
      let count = try readBatch(index)
      if count > 0 { return count }
    }
    return 0
  }

  private func readBatch(_ index: Int) throws(JoinerError) -> Int {
    let input = inputs[index].input
    var count = 0
    while count < readBatchLimit,
      core.watermark(of: input) <= core.watermark.later(by: options.readAheadMilliseconds),
      let record = try inputs[index].next()
    {
      count += 1
      var reader = record.reader
      do throws(JoinedRecordFault) {
        core.take(try JoinedRecordFault.event(&reader), from: input, at: record.position)
      } catch {
        core.skip(from: input, at: record.position)
        refuse(record, of: input, error)
      }
    }
    return count
  }

  /// Counts a record that is refused and sets it aside.
  private func refuse(_ record: StreamRecord, of input: JoinInput, _ fault: JoinedRecordFault) {
    refused[fault.code, default: 0] += 1
    let event = RejectedEvent(
      place: .record(stream: input.stream.rawValue, partition: input.partition, position: record.position),
      code: fault.code, reason: fault.description, text: fault.head(of: record))
    notSetAside += rejected.append([event], arrival: Clocks.wall())
  }

  /// Appends what the core made to the outputs; goes on where it stopped when it threw.
  private func deliver() throws(JoinerError) {
    while delivered < undelivered.count {
      record.clear()
      undelivered[delivered].example.encode(into: &record)
      try outputs[undelivered[delivered].partition].append(record)
      delivered += 1
    }
    undelivered.removeAll(keepingCapacity: true)
    delivered = 0
    while deliveredLate < undeliveredLate.count {
      record.clear()
      Event.action(undeliveredLate[deliveredLate]).encode(into: &record)
      if !takeWithheldLate() { try outputs[outputs.count - 1].append(record) }
      deliveredLate += 1
    }
    undeliveredLate.removeAll(keepingCapacity: true)
    deliveredLate = 0
  }

  /// Whether the late action in `record` is in the output already; it counts once for each time it is there.
  private func takeWithheldLate() -> Bool {
    guard !withheldLate.isEmpty else { return false }
    let bytes = record.copy()
    guard let count = withheldLate[bytes] else { return false }
    withheldLate[bytes] = count == 1 ? nil : count - 1
    return true
  }

  private func syncOutputs() throws(JoinerError) {
    let begun = Clocks.monotonic()
    for index in outputs.indices where outputs[index].hasUnsynced { try outputs[index].sync() }
    lastSync = Clocks.monotonic()
    syncNanoseconds = lastSync - begun
  }

  // MARK: - What is due now and then

  /// Looks at consumers, tells the inputs how far they are read, opens what was not there.
  private func keepHouse() throws(JoinerError) {
    for index in outputs.indices { try outputs[index].lookAtConsumers() }
    isHeldBack = outputs.contains { ($0.backlog ?? 0) > options.backlogLimit }
    for index in inputs.indices {
      let position = core.position(of: inputs[index].input)
      try inputs[index].open(from: position)
      try inputs[index].lookAtEnd()
      try inputs[index].commit(processed: inputs[index].position ?? position, safe: checkpointPositions[index])
    }
    if isCatchingUp {
      let isPast = inputs.allSatisfy { reader in
        if let end = reader.endAtStart, let position = reader.position { position >= end } else { false }
      }
      // Only a settled core has made every label that was due by then.
      if isPast && isDelivered && isSettled {
        core.endWithholding()
        withheldLate = [:]
        isCatchingUp = false
      }
    }
  }

  /// Makes the state durable; outputs first, so that it never knows of examples that are not there.
  func checkpoint() throws(JoinerError) {
    let begun = Clocks.monotonic()
    try syncOutputs()
    let examples = options.rules.outputPartitions
    if options.rules.emitsLateActions { lateEnd = outputs[examples].synced }
    // What was put into the store since `settle` began is in the snapshot, what it still wants is in the core's state.
    if core.storedImpressions > 0 {
      core.flush(to: store)
      snapshotNumber += 1
      try store.snapshot(snapshotNumber)
      FaultPoint.pendingSnapshot.pass()
    }
    let checkpoint = JoinerCheckpoint(
      exampleEnds: outputs[..<examples].map(\.synced), lateEnd: lateEnd, withheldLate: withheldLate,
      store: core.storeState(snapshot: snapshotNumber))
    do throws(FileError) {
      checkpointBytes = try checkpoint.write(core, to: JoinerCheckpoint.path(in: options.stateDirectory))
      if core.storedImpressions > 0 { FaultPoint.pendingNamed.pass() }
      try store.removeSnapshots(but: core.storedImpressions > 0 ? snapshotNumber : 0)
    } catch {
      throw .file(error)
    }
    checkpointPositions = positions
    for index in outputs.indices { outputs[index].checkpointed = outputs[index].synced }
    for index in inputs.indices {
      let processed = inputs[index].position ?? checkpointPositions[index]
      try inputs[index].commit(processed: processed, safe: checkpointPositions[index])
    }
    lastCheckpoint = Clocks.monotonic()
    checkpointNanoseconds = lastCheckpoint - begun
  }

  private func finish() throws(JoinerError) {
    try deliver()
    try checkpoint()
  }
}
