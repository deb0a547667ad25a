// A new cluster begins with what an older one learnt: rows with their optimizer state and dense tensors, whatever the number
// of shards was. Tables and tensors are matched by name. Positions are not taken over: streams are the new cluster's own.
// The files of the older one are only read.

internal import Base
internal import Embeddings
internal import Journal

/// What a new shard takes over from an older cluster.
public struct WarmStart {
  /// A shard of the older cluster.
  public typealias Source = (options: ShardOptions, files: ShardFiles)

  private let sources: [Source]
  private let checkpoint: String?

  /// What was taken over by one shard.
  public struct Summary: Sendable, Equatable {
    /// Rows taken over.
    public var rows = 0
    /// Dense tensors taken over.
    public var tensors = 0
  }

  /// A warm start from the shards of an older cluster.
  /// - Parameter checkpoint: the checkpoint to read; nil for the newest state.
  public init(from sources: [Source], checkpoint: String? = nil) {
    self.sources = sources
    self.checkpoint = checkpoint
  }

  /// What the older cluster has and the new one does not, or the other way round, or in another shape.
  public struct Differences: Sendable, Equatable {
    /// Tables and tensors that only the new cluster has: they start fresh.
    public var new: [String] = []
    /// Those that only the older one has: they are dropped.
    public var dropped: [String] = []
    /// Those whose shapes differ, in words: with `--allow-changes` they start fresh.
    public var changed: [(name: String, words: String)] = []
    /// Tables that count ids on their way to a row in another way, in words: those counts begin anew.
    public var recounted: [String] = []

    /// Compares all parts.
    public static func == (left: Self, right: Self) -> Bool {
      left.new == right.new && left.dropped == right.dropped && left.changed.elementsEqual(right.changed, by: ==)
        && left.recounted == right.recounted
    }
  }

  /// Compares the older cluster with a new one by name and shape.
  public func differences(to options: ShardOptions) -> Differences {
    var differences = Differences()
    guard let old = sources.first?.options else { return differences }
    for table in options.tables {
      guard let other = old.tables.first(where: { $0.name == table.name }) else {
        differences.new.append("table '\(table.name)'")
        continue
      }
      let (mine, theirs) = (Self.words(table), Self.words(other))
      if mine != theirs {
        differences.changed.append((table.name, "table '\(table.name)' has \(theirs) there, \(mine) here"))
      } else if other.admission.threshold > 1, !(other.admission.countsExactly && table.admission.countsExactly) {
        differences.recounted.append("table '\(table.name)': sightings of ids that have no row yet are counted anew")
      }
    }
    for tensor in options.tensors {
      guard let other = old.tensors.first(where: { $0.tensor.name == tensor.tensor.name }) else {
        differences.new.append("tensor '\(tensor.tensor.name)'")
        continue
      }
      if other.tensor.shape != tensor.tensor.shape || other.optimizer.rule != tensor.optimizer.rule {
        differences.changed.append(
          (
            tensor.tensor.name,
            "tensor '\(tensor.tensor.name)' has shape \(other.tensor.shape) and \(other.optimizer.rule) there, "
              + "\(tensor.tensor.shape) and \(tensor.optimizer.rule) here"
          ))
      }
    }
    differences.dropped =
      old.tables.filter { table in !options.tables.contains { $0.name == table.name } }.map { "table '\($0.name)'" }
      + old.tensors.filter { tensor in !options.tensors.contains { $0.tensor.name == tensor.tensor.name } }.map {
        "tensor '\($0.tensor.name)'"
      }
    return differences
  }

  private static func words(_ table: TableOptions) -> String {
    table.segments.map { segment in
      let state = segment.optimizer.stateCount(width: segment.width)
      return "\(segment.width) of \(segment.name) by \(segment.optimizer.rule.name) with \(state) of state"
    }.joined(separator: ", ")
  }

  /// Refuses files that hold a shard's state.
  /// - Throws: `RecoveryError` that names the directory.
  public static func checkEmpty(_ files: ShardFiles) throws(RecoveryError) {
    guard !Files.exists(files.journal), !Files.exists(files.checkpoints) else {
      throw RecoveryError(
        description: "\(files.directory) holds a shard's state already; a warm start begins with an empty one")
    }
  }

  /// Writes what a new shard owns as its first checkpoint.
  ///
  /// - Parameters:
  ///   - options: the new shard's.
  ///   - files: its files; it has no journal yet.
  /// - Throws: `RecoveryError` when the shard has a state already, `JournalError` for damage.
  public func write(_ options: ShardOptions, into files: ShardFiles) throws -> Summary {
    try Self.checkEmpty(files)
    let changed = Set(differences(to: options).changed.map(\.name))
    let core = CoreBox(ShardCore(options, incarnation: 1, identity: (0, 0)))
    var summary = Summary()
    for source in sources {
      let old = try ShardContents(source.options, files: source.files, checkpoint: checkpoint)
      for (table, shape) in options.tables.enumerated() where !changed.contains(shape.name) {
        guard let theirs = source.options.tables.firstIndex(where: { $0.name == shape.name }) else { continue }
        try old.forEachSection(table: theirs) { section in
          let own = section.filtered(countsExactly: shape.admission.countsExactly) {
            options.map.shard(of: $0) == options.index
          }
          var reader = ByteReader(own)
          try core.core.tables[table].table.apply(section: &reader)
        }
      }
      for (tensor, entry) in options.tensors.enumerated() where !changed.contains(entry.tensor.name) {
        guard options.map.shard(ofTensor: entry.tensor.name) == options.index,
          let found = old.denseState(named: entry.tensor.name)
        else { continue }
        try core.core.dense.restore(tensor: tensor, values: found.values, state: found.state)
        summary.tensors += 1
      }
    }
    summary.rows = core.core.tables.reduce(0) { $0 + $1.table.rowCount }
    core.core.isChanged = true
    let writer = JournalBox(try JournalWriter(directory: files.journal, options: JournalOptions()))
    _ = try OfflineShard(core, writer: writer, files: files, writesBlocks: false)
      .writeCheckpoint(named: "\(ShardCheckpoint.automaticPrefix)warm-start")
    return summary
  }
}
