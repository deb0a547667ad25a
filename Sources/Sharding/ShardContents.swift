// What a shard's files hold, for export and warm starts: the newest checkpoint and the blocks after it, or one checkpoint
// alone; ids that were forgotten since are in neither. Blocks and checkpoints are only read, so the shard may run
// meanwhile; of a shard that does not run, a torn tail in the list of forgotten ids is mended. One thread.

internal import Base
internal import Embeddings
internal import Journal
public import Layers

/// The rows and dense tensors of one shard as its files have them.
public final class ShardContents {
  private let core: CoreBox
  private let options: ShardOptions

  /// Reads a shard's files.
  /// - Parameter checkpoint: the checkpoint to read; nil for the newest state.
  /// - Throws: `JournalError` for damage, `RecoveryError` when files and options do not fit.
  public init(_ options: ShardOptions, files: ShardFiles, checkpoint: String? = nil) throws {
    self.options = options
    core = CoreBox(ShardCore(options, incarnation: 1, identity: (0, 0)))
    var recovery = ShardRecovery(options, files: files, acceptLoss: false)
    if let checkpoint { try recovery.read(checkpoint, into: core) } else { try recovery.readNewest(into: core) }
    _ = core.core.recover(try ForgottenIDs.read(in: files))
  }

  /// How many rows a table has here.
  public func rowCount(table: Int) -> Int { core.core.tables[table].table.rowCount }

  /// Calls `body` with all a table holds, as sections.
  func forEachSection(table: Int, _ body: (CutSection) throws -> Void) throws {
    var cursor = TableCursor()
    while true {
      var writer = ByteWriter(capacity: 1 << 16)
      guard core.core.tables[table].table.scan(cursor: &cursor, rows: 8192, into: &writer) else { return }
      var reader = ByteReader(writer.finish())
      try body(try CutSection(&reader))
    }
  }

  /// Values and optimizer state of a dense tensor; nil when it lives on another shard.
  func denseState(named name: String) -> (values: [Float], state: [Float])? {
    core.core.dense.entries.compactMap { $0 }.first { $0.options.tensor.name == name }.map { ($0.values, $0.state) }
  }

  /// Calls `body` with slices of a table's rows: ids, and their weights `[ids × weights per row]`.
  public func forEachSlice(table: Int, _ body: ([UInt64], [Float]) throws -> Void) throws {
    try forEachSection(table: table) { section in
      var weights: [Float] = []
      weights.reserveCapacity(section.ids.count * section.weightCount)
      for row in 0..<section.ids.count {
        let values = section.weights(row)
        for column in values.indices { weights.append(values[column]) }
      }
      if section.ids.count > 0 { try body(section.ids.array, weights) }
    }
  }

  /// The dense tensors that live here.
  public var tensors: [(tensor: DenseTensor, values: [Float])] {
    core.core.dense.entries.compactMap { $0.map { ($0.options.tensor, $0.values) } }
  }
}
