// What the kept blocks and checkpoints say of one id: when it changed, by which pushes, and by how much.

public import Base
internal import Embeddings
internal import Journal
public import Wire

/// One change of one row, as a block has it.
public struct RowChange: Sendable, Equatable {
  /// What became of the row.
  public enum Kind: String, Sendable {
    /// It has these weights since then.
    case written
    /// It is gone: expired, evicted or forgotten.
    case removed
    /// It was as the checkpoint says.
    case checkpoint

    /// A checkpoint is the state at the end of its epoch.
    fileprivate var place: Int { self == .checkpoint ? 1 : 0 }
  }

  /// The epoch of the block.
  public var epoch: UInt64
  /// What became of the row.
  public var kind: Kind
  /// Its weights; empty when it is gone.
  public var weights: [Float]
  /// When it was last seen, UTC milliseconds.
  public var lastSeen: Milliseconds?
  /// The pushes that the epoch applied: chains with the positions they came to.
  public var chains: [ChainState]

  /// The Euclidean length of the weights.
  public var norm: Float { weights.reduce(0) { $0 + $1 * $1 }.squareRoot() }
}

/// Reads an id's past from a shard's files, while the shard runs or not.
public enum RowHistory {
  /// All changes of one id that are kept, oldest first.
  ///
  /// - Throws: `JournalError` for damage; `DecodeError` for records that are none.
  public static func read(id: UInt64, table: String, in files: ShardFiles) throws -> [RowChange] {
    var found = Finder(id: id, table: table)
    if let newest = try Checkpoints.latest(directory: files.checkpoints, acceptLoss: true) {
      try found.readStart(newest.name, in: files)
    }
    let start = try JournalReader.bounds(directory: files.journal).lowerBound
    var reader = try JournalReader(directory: files.journal, from: start)
    while let record = try reader.next() { try found.take(record.payload) }
    // The blocks of before the checkpoint come behind it in the files.
    return found.changes.sorted { ($0.epoch, $0.kind.place) < ($1.epoch, $1.kind.place) }
  }
}

private struct Finder {
  let id: UInt64
  let tableName: String
  var changes: [RowChange] = []
  private var numbers: [Int: Bool] = [:]
  private var pending: [RowChange] = []
  private var positions: [ChainKey: Position] = [:]

  init(id: UInt64, table: String) {
    self.id = id
    tableName = table
  }

  mutating func take(_ record: ByteReader) throws {
    switch try BlockRecord.parse(record) {
    case .shape(let shape): note(shape)
    case .table(let index, let epoch, var section):
      guard numbers[index] == true else { return }
      while section.remaining > 0 {
        if let change = try find(in: CutSection(&section), epoch: epoch) { pending.append(change) }
      }
    case .tensor: break
    case .end(_, let end):
      let moved = end.chains.filter { positions[$0.chain] != $0.applied }
      for state in end.chains { positions[state.chain] = state.applied }
      for var change in pending {
        change.chains = moved
        changes.append(change)
      }
      pending = []
    }
  }

  /// The shape of the journal's beginning stands in a segment that may be gone; a checkpoint has it too.
  mutating func readStart(_ name: String, in files: ShardFiles) throws {
    var reader = try CheckpointReader(directory: files.checkpoints, name: name)
    let manifest = try ShardCheckpoint(reading: name, in: files)
    var state: RowChange?
    while let section = try reader.next() {
      switch try BlockRecord.parse(section.payload) {
      case .shape(let shape): note(shape)
      case .table(let index, _, var section):
        guard numbers[index] == true else { continue }
        while section.remaining > 0 {
          if let change = try find(in: CutSection(&section), epoch: manifest.epoch) { state = change }
        }
      case .tensor, .end: break
      }
    }
    guard var state, state.kind == .written else { return }
    state.kind = .checkpoint
    changes.append(state)
  }

  private mutating func note(_ shape: BlockRecord.Shape) {
    pending = []
    numbers = [:]
    for (index, table) in shape.tables.enumerated() { numbers[index] = table.name == tableName }
  }

  private func find(in section: CutSection, epoch: UInt64) -> RowChange? {
    let ids = section.ids.span
    for place in ids.indices where ids[place] == id {
      let weights = section.weights(place)
      return RowChange(
        epoch: epoch, kind: .written, weights: weights.indices.map { weights[$0] },
        lastSeen: Milliseconds(section.seen[place]) * 1000, chains: [])
    }
    let removed = section.tombstones.span
    for place in removed.indices where removed[place] == id {
      return RowChange(epoch: epoch, kind: .removed, weights: [], chains: [])
    }
    return nil
  }
}
