// `guira bench sync`: what a version costs, from the changed rows in a shard to the bytes that travel, beside how many rows
// the shard holds; how fast a replica applies rows; and what readers feel of it: in one process, no sockets, the arithmetic
// of the real cores. What a whole cluster does is in ShipBenchmark.swift.

internal import Base
internal import CKernels
internal import Embeddings
internal import Glibc
internal import Serving
internal import Sharding
internal import Synchronization
internal import Syncing
internal import Wire

/// What `guira bench sync` runs with.
public struct SyncBenchmarkSettings: Sendable, Equatable {
  /// Rows that change between two versions.
  public var changed = 100_000
  /// Rows held, one figure for each; the last is compared with the first.
  public var held = [1_000_000, 10_000_000]
  /// Weights per row where versions are made.
  public var dimension = 16
  /// Rows of the replica.
  public var replicaRows = 1_000_000
  /// Weights per row of the replica.
  public var replicaDimension = 32
  /// Rows per second that are applied while reads are measured.
  public var appliedPerSecond = 300_000
  /// Repeats.
  public var runs = 9
  /// Rows that are shipped by a real cluster; 0 leaves that and the rollback out.
  public var shippedRows = 100_000
  /// Weights per row that is shipped.
  public var shippedDimension = 1024
  /// Repeats of what a real cluster does.
  public var shippedRuns = 3
  /// Whether versions carry float16.
  public var halfPrecision = false
  /// The seed of everything.
  public var seed: UInt64 = 1

  /// The defaults.
  public init() {}
}

/// Measures versions and their application.
public struct SyncBenchmark {
  let settings: SyncBenchmarkSettings
  let executable: String
  let progress: (String) -> Void

  /// A benchmark of these settings.
  ///
  /// - Parameter executable: the command that the cluster's processes run.
  public init(
    _ settings: SyncBenchmarkSettings, executable: String, progress: @escaping (String) -> Void = { _ in }
  ) {
    self.settings = settings
    self.executable = executable
    self.progress = progress
    guira_keep_freed_memory()
  }

  /// Runs everything.
  public func run() throws -> BenchmarkReport {
    var series = Series()
    try measureVersions(&series)
    try measureApplication(&series)
    if settings.shippedRows > 0 {
      try measureShipping(&series)
      try measureRollback(&series)
    }
    return BenchmarkReport(
      name: "sync",
      settings: [
        "changed": .number(settings.changed), "held": .text(settings.held.map(String.init).joined(separator: ",")),
        "dimension": .number(settings.dimension), "replicaRows": .number(settings.replicaRows),
        "replicaDimension": .number(settings.replicaDimension), "runs": .number(settings.runs),
        "shippedRows": .number(settings.shippedRows), "shippedDimension": .number(settings.shippedDimension),
        "shippedRuns": .number(settings.shippedRuns), "appliedPerSecond": .number(settings.appliedPerSecond),
        "float16": .text("\(settings.halfPrecision)"),
      ], results: series.results)
  }

  // MARK: Versions

  private func measureVersions(_ series: inout Series) throws {
    var makers: [VersionMaker] = []
    for held in settings.held {
      progress("a shard with \(held) rows")
      makers.append(try VersionMaker(settings, held: held))
    }
    for maker in makers { _ = try maker.make() }
    for run in 1...settings.runs {
      progress("versions: run \(run) of \(settings.runs)")
      let costs = try makers.map { try $0.make() }
      for (held, cost) in zip(settings.held, costs) {
        series.add("version.held\(held).milliseconds", cost.seconds * 1e3, "ms")
      }
      if let first = costs.first, let last = costs.last {
        series.add("version.rowsPerSecond", Double(settings.changed) / first.seconds, "rows/s")
        series.add("version.bytesPerRow", Double(first.bytes) / Double(settings.changed), "B")
        if costs.count > 1 { series.add("version.heldRatio", last.seconds / first.seconds, "ratio") }
      }
    }
  }

  // MARK: Application

  private func measureApplication(_ series: inout Series) throws {
    progress("a replica with \(settings.replicaRows) rows")
    let width = settings.replicaDimension
    let store = try ReplicaStore(
      tables: [ReplicaTableOptions(name: "rows", defaultRow: Array(repeating: 0, count: width))], models: [])
    store.beginBase()
    let chunk = 100_000
    let weights = View(copying: (0..<chunk * width).map { Float($0 % 17) })
    for begin in stride(from: 0, to: settings.replicaRows, by: chunk) {
      let count = min(chunk, settings.replicaRows - begin)
      let ids = View(copying: (begin..<begin + count).map { guira_stream_id(settings.seed, UInt64($0)) })
      try store.apply(table: 0, ids: ids, weights: View(weights.blob, byteOffset: 0, count: count * width))
    }
    try store.commitBase(VersionInfo(number: 1, newestEventTime: 0, appliedAt: 0))
    var random = SeededRandom(seed: settings.seed)
    func someIDs(_ count: Int) -> [UInt64] {
      (0..<count).map { _ in
        guira_stream_id(settings.seed, UInt64.random(in: 0..<UInt64(settings.replicaRows), using: &random))
      }
    }
    let versions = (0..<8).map { _ in View(copying: Array(Set(someIDs(chunk))).sorted()) }
    for run in 1...settings.runs {
      progress("application: run \(run) of \(settings.runs)")
      var rows = 0
      let start = Clocks.monotonic()
      for ids in versions {
        try store.apply(
          table: 0, ids: ids, weights: View(weights.blob, byteOffset: 0, count: ids.count * width))
        rows += ids.count
      }
      series.add("apply.rowsPerSecond", Double(rows) / (Double(Clocks.monotonic() - start) / 1e9), "rows/s")
      let idle = try read(store, someIDs(100_000), while: nil)
      let busy = try read(store, someIDs(100_000), while: (versions, weights, width))
      series.add("read.idle.p99Microseconds", Double(idle.quantile(0.99)) / 1e3, "µs")
      series.add("read.applying.p99Microseconds", Double(busy.quantile(0.99)) / 1e3, "µs")
      series.add("read.p99Ratio", Double(busy.quantile(0.99)) / max(1, Double(idle.quantile(0.99))), "ratio")
    }
  }

  /// Reads 100 rows at a time for half a second; beside it, when asked, another thread applies versions at its rate.
  private func read(
    _ store: ReplicaStore, _ ids: [UInt64], while load: (versions: [View<UInt64>], weights: View<Float>, width: Int)?
  ) throws -> Histogram {
    let isDone = SharedFlag()
    var writer: OwnedThread?
    if let load {
      let rate = settings.appliedPerSecond
      writer = OwnedThread(named: "bench-apply") {
        let start = Clocks.monotonic()
        var applied = 0
        var turn = 0
        while !isDone.isSet {
          // A thousand rows at a time, as evenly as versions of a busy second arrive.
          let ids = load.versions[turn / 64 % load.versions.count]
          let begin = turn % 64 * 1000 % ids.count
          let count = min(1000, ids.count - begin)
          if let part = try? View<UInt64>(ids.blob, byteOffset: ids.byteOffset + begin * 8, count: count),
            let rows = try? View<Float>(load.weights.blob, byteOffset: 0, count: count * load.width)
          {
            try? store.apply(table: 0, ids: part, weights: rows)
          }
          applied += count
          turn += 1
          let due = start + Int64(Double(applied) / Double(rate) * 1e9)
          let pause = due - Clocks.monotonic()
          if pause > 0 { usleep(UInt32(pause / 1000)) }
        }
      }
    }
    let reader = RowReader(store)
    var latencies = Histogram()
    let end = Clocks.monotonic() + 500_000_000
    var begin = 0
    while true {
      let some = Array(ids[begin..<begin + 100])
      let start = Clocks.monotonic()
      guard start < end else { break }
      _ = reader.rows("rows", ids: some)
      latencies.record(Clocks.monotonic() - start)
      begin = (begin + 100) % (ids.count - 100)
    }
    isDone.set()
    writer?.join()
    return latencies
  }
}

/// A flag between threads.
private final class SharedFlag: Sendable {
  private let flag = Atomic<Bool>(false)
  var isSet: Bool { flag.load(ordering: .acquiring) }
  func set() { flag.store(true, ordering: .releasing) }
}

/// A shard and sync without anything between them.
private final class VersionMaker {
  private var shard: ShardCore
  private var sync: SyncCore
  private let settings: SyncBenchmarkSettings
  private let held: Int
  private var random: SeededRandom
  private var pushes: UInt64 = 0
  private var now: Int64 = 1_000_000_000
  private static let chain = ChainKey(consumer: "bench", stream: "bench", partition: 0)
  private static let ownership = Ownership(generation: 1, owner: 1)

  init(_ settings: SyncBenchmarkSettings, held: Int) throws {
    self.settings = settings
    self.held = held
    random = SeededRandom(seed: settings.seed)
    let optimizer = OptimizerOptions(rule: .adagrad(initialAccumulator: 0.1), learningRate: 0.05)
    let table = TableOptions(
      name: "rows", seed: settings.seed,
      segments: [Segment(name: "w", width: settings.dimension, initializer: .zeros, optimizer: optimizer)])
    var options = ShardOptions(index: 0, map: ClusterMap(shardCount: 1), seed: 1, tables: [table], tensors: [])
    options.epoch = .seconds(1 << 30)
    options.retainedBytes = 1 << 34
    shard = ShardCore(options, incarnation: 1, identity: (1, 1))
    let seed = settings.seed
    shard.fill(table: 0, count: held) { guira_stream_id(seed, UInt64($0)) }
    _ = shard.beginRun(now: 0)
    var syncOptions = SyncOptions(shardCount: 1, replicaCount: 0)
    syncOptions.halfPrecision = settings.halfPrecision
    sync = SyncCore(syncOptions, stored: nil) { 1 }
    var actions: [ShardAction] = []
    shard.receive(
      Claim(chain: Self.chain, ownership: Self.ownership).encoded(request: 1), from: PeerID([1]), now: 0,
      into: &actions)
    // What filling changed is in the first version.
    _ = try version()
  }

  /// Changes rows, and measures the way from there to a version's bytes.
  func make() throws -> (seconds: Double, bytes: Int) {
    var ids: Set<UInt64> = []
    while ids.count < settings.changed {
      ids.insert(guira_stream_id(settings.seed, UInt64.random(in: 0..<UInt64(held), using: &random)))
    }
    let all = Array(ids)
    for begin in stride(from: 0, to: all.count, by: 4096) { push(Array(all[begin..<min(all.count, begin + 4096)])) }
    return try version()
  }

  private func push(_ ids: [UInt64]) {
    pushes += 1
    let stamp = Stamp(
      chain: Self.chain, ownership: Self.ownership, previousEnd: Position(low: pushes - 1), end: Position(low: pushes),
      exampleCount: 1, eventTime: 0, watermark: 0)
    var writer = ByteWriter()
    PushRequest.begin(request: 1, stamp: stamp, mapNumber: 1, sections: 1, tensors: 0, arrivals: [], into: &writer)
    PushRequest.beginSection(
      table: 0, ids: ids, sightings: ids.map { _ in 1 }, floats: ids.count * settings.dimension, into: &writer)
    writer.append(array: (0..<ids.count * settings.dimension).map { Float($0 % 13) - 6 })
    var actions: [ShardAction] = []
    shard.receive(writer.finish(), from: PeerID([1]), now: now, into: &actions)
  }

  private func version() throws -> (seconds: Double, bytes: Int) {
    let start = Clocks.monotonic()
    var bytes = 0
    shard.closeEarly()
    sync.publish(dense: false)
    for _ in 0..<1_000_000 {
      now += 100_000_000
      var actions: [ShardAction] = []
      shard.work(now: now, into: &actions)
      for case .sync(let epoch) in actions { shard.blockSynced(epoch: epoch, into: &actions) }
      var news: [SyncAction] = []
      deliver(actions, &news)
      sync.tick(now: now, wall: 0, into: &news)
      while !news.isEmpty {
        let done = news
        news = []
        for case .sendShard(_, let message) in done where !isScan(message) {
          var answers: [ShardAction] = []
          shard.receive(message, from: PeerID([2]), now: now, into: &answers)
          deliver(answers, &news)
        }
        for case .storeVersion(_, let blob) in done { bytes += blob.count }
      }
      let status = sync.status(now: now)
      if shard.isQuiet, status.cursors == status.durableEpochs, status.waiting.rows == 0, bytes > 0 { break }
      sync.publish(dense: false)
    }
    return (Double(Clocks.monotonic() - start) / 1e9, bytes)
  }

  private func deliver(_ actions: [ShardAction], _ news: inout [SyncAction]) {
    for case .send(let peer, let message) in actions where peer == PeerID([2]) {
      sync.receive(message, fromShard: 0, now: now, into: &news)
    }
  }

  /// The base is never made: it would be all the rows held.
  private func isScan(_ message: Blob) -> Bool {
    var reader = ByteReader(message)
    guard let header = try? MessageHeader(decoding: &reader) else { return false }
    return header.opcode == .scan || header.opcode == .pull
  }
}
