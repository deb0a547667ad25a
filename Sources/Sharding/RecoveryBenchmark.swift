// How fast a shard comes back: files of a real shard are made once, a checkpoint and a minute of blocks, and read again.

internal import Base
internal import Embeddings
internal import Journal
internal import Wire

/// Measures recovery.
public struct RecoveryBenchmark: Sendable {
  /// Rows in the checkpoint.
  public var rows = 10_000_000
  /// Weights per row, with as much AdaGrad state.
  public var dimension = 32
  /// Epochs after the checkpoint.
  public var epochs = 60
  /// Rows that change in each.
  public var changedRows = 100_000
  /// How often the files are read.
  public var runs = 5

  /// The bar's own numbers.
  public init() {}

  private static let batch = 4096

  private var options: ShardOptions {
    let segment = Segment(
      name: "w", width: dimension, initializer: .uniform(0.1),
      optimizer: OptimizerOptions(rule: .adagrad(initialAccumulator: 0.1), learningRate: 0.05))
    return ShardOptions(
      index: 0, map: ClusterMap(shardCount: 1), seed: 1,
      tables: [TableOptions(name: "rows", seed: 1, segments: [segment])], tensors: [])
  }

  /// Makes the files below `directory`, then reads them `runs` times.
  ///
  /// - Returns: seconds of each run.
  /// - Throws: `JournalError`, `RecoveryError`.
  public func run(directory: String, progress: (String) -> Void) throws -> [Double] {
    let files = ShardFiles(directory: directory)
    let digest = try makeFiles(files, progress: progress)
    var seconds: [Double] = []
    for run in 0..<runs {
      progress("reading the files, run \(run + 1) of \(runs)")
      var recovery = ShardRecovery(options, files: files, acceptLoss: false)
      let start = Clocks.monotonic()
      let (_, core) = try recovery.run(JournalOptions(), incarnation: 1)
      seconds.append(Double(Clocks.monotonic() - start) / 1e9)
      guard core.core.digest(halfPrecision: false).tables["rows"]?.sum == digest else {
        throw RecoveryError(description: "the shard that came back differs from the one that wrote the files")
      }
    }
    return seconds
  }

  private func makeFiles(_ files: ShardFiles, progress: (String) -> Void) throws -> UInt64? {
    let core = CoreBox(ShardCore(options, incarnation: 1, identity: (0, 0)))
    let writer = JournalBox(try JournalWriter(directory: files.journal))
    try writer.writer.append(core.core.beginRun(now: 0).bytes)
    let shard = OfflineShard(core, writer: writer, files: files)
    let chain = ChainKey(consumer: "bench", stream: "bench", partition: 0)
    let owner = Ownership(generation: 1, owner: 1)
    try shard.receive(Claim(chain: chain, ownership: owner).encoded(request: 1))
    var position: UInt64 = 0
    func push(_ ids: Range<UInt64>) throws {
      let stamp = Stamp(
        chain: chain, ownership: owner, previousEnd: Position(low: position), end: Position(low: position + 1),
        exampleCount: 1, eventTime: 1000, watermark: 1000)
      position += 1
      let floats = ids.count * dimension
      var writer = ByteWriter(capacity: 256 + ids.count * 12 + floats * 4)
      PushRequest.begin(
        request: 1, stamp: stamp, mapNumber: 1, sections: 1, tensors: 0, arrivals: [], into: &writer)
      PushRequest.beginSection(
        table: 0, ids: ids.map { Hashing.mix($0) }, sightings: ids.map { _ in 1 }, floats: floats, into: &writer)
      writer.append(array: [Float](repeating: 0.01 * Float(position % 7), count: floats))
      try shard.receive(writer.finish())
    }
    for start in stride(from: 0, to: rows, by: Self.batch) {
      try push(UInt64(start)..<UInt64(min(start + Self.batch, rows)))
      if start / Self.batch % 100 == 99 {
        progress("filling, \(100 * start / rows) %")
        try shard.closeEpoch()
      }
    }
    try shard.closeEpoch()
    progress("writing the checkpoint")
    let manifest = try shard.writeCheckpoint(named: "auto-bench")
    try writer.writer.deleteSegments(before: manifest.journalOffset)
    for epoch in 0..<epochs {
      progress("writing blocks, \(epoch + 1) of \(epochs)")
      let first = epoch * changedRows % max(1, rows - changedRows + 1)
      for start in stride(from: first, to: first + changedRows, by: Self.batch) {
        try push(UInt64(start)..<UInt64(min(start + Self.batch, first + changedRows)))
      }
      try shard.closeEpoch()
    }
    return core.core.digest(halfPrecision: false).tables["rows"]?.sum
  }
}
