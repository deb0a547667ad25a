// The state of an earlier version, as far as it differs from the newest: read backwards from the versions and the base on
// the disk, without any index.

internal import Base

/// What must be sent to bring a replica from the newest version back to an earlier one.
public struct VersionState: Sendable {
  /// The earlier version.
  let number: UInt64
  /// The version that one was pinned to itself.
  let pinned: UInt64
  let newestEventTime: Milliseconds
  let exampleCount: UInt64
  let progress: [ConsumerProgress]
  var tables: [String: MergedTable] = [:]
  private(set) var tensors: [TensorChange] = []

  /// Where to read: versions by number, and the parts of a base.
  public struct Source {
    let version: (UInt64) -> VersionContent?
    let part: (Int) -> VersionContent?
    /// The base to begin at and how many parts it has.
    let base: (number: UInt64, parts: Int)

    /// A source from its parts.
    public init(
      base: (number: UInt64, parts: Int), version: @escaping (UInt64) -> VersionContent?,
      part: @escaping (Int) -> VersionContent?
    ) {
      self.base = base
      self.version = version
      self.part = part
    }
  }

  /// Reads the state of a version; nil when a version or part that it needs is missing.
  ///
  /// The base must not have read anything that came after the version.
  public init?(of target: UInt64, newest: UInt64, from source: Source) {
    guard target <= newest, target > source.base.number, let head = source.version(target) else { return nil }
    (number, pinned) = (target, head.pinned)
    (newestEventTime, exampleCount, progress) = (head.newestEventTime, head.exampleCount, head.progress)
    var search = Search()
    for version in stride(from: newest, to: target, by: -1) {
      guard let content = source.version(version) else { return nil }
      search.want(content, tables: &tables)
    }
    var version = target
    while version > source.base.number, !search.isDone {
      guard let content = source.version(version) else { return nil }
      search.find(in: content, tables: &tables, tensors: &tensors)
      version -= 1
    }
    var part = source.base.parts - 1
    while part >= 0, !search.isDone {
      guard let content = source.part(part) else { return nil }
      search.find(in: content, tables: &tables, tensors: &tensors)
      part -= 1
    }
    search.removeRest(from: &tables)
  }

  /// Removes ids that are removed in what waits to be published.
  mutating func remove(removedIn other: MergedTable, _ name: String) { tables[name]?.remove(removedIn: other) }

  /// All of it as a version holds it.
  mutating func takeChanges() -> [TableChange] {
    var changes: [TableChange] = []
    for name in tables.keys.sorted() {
      guard let change = tables[name]?.take() else { continue }
      changes.append(change)
    }
    return changes
  }
}

/// Ids whose earlier rows are looked for.
private struct Search {
  private var ids: [String: Set<UInt64>] = [:]
  private var erased: [String: Set<UInt64>] = [:]
  private var names: Set<String> = []

  var isDone: Bool { names.isEmpty && ids.values.allSatisfy { $0.isEmpty } }

  /// Everything that a later version changed is to be found.
  mutating func want(_ content: VersionContent, tables: inout [String: MergedTable]) {
    for change in content.tables {
      if tables[change.table] == nil {
        tables[change.table] = MergedTable(name: change.table, weightCount: change.weightCount)
      }
      ids[change.table, default: []].formUnion(change.ids)
      ids[change.table, default: []].formUnion(change.tombstones)
      if !content.isReturn { erased[change.table, default: []].formUnion(change.tombstones) }
    }
    names.formUnion(content.tensors.map(\.name))
  }

  mutating func find(
    in content: VersionContent, tables: inout [String: MergedTable], tensors: inout [TensorChange]
  ) {
    for change in content.tables {
      guard var wanted = ids[change.table], !wanted.isEmpty, var table = tables[change.table] else { continue }
      ids[change.table] = nil
      tables[change.table] = nil
      let gone = erased[change.table] ?? []
      let weights = change.weights.span
      table.reserve(min(wanted.count, change.ids.count))
      for id in change.tombstones where wanted.remove(id) != nil { table.remove(id) }
      for (place, id) in change.ids.enumerated() where wanted.remove(id) != nil {
        if gone.contains(id) {
          table.remove(id)
        } else {
          let start = place * change.weightCount
          table.set(id, weights.extracting(start..<start + change.weightCount))
        }
      }
      ids[change.table] = wanted
      tables[change.table] = table
    }
    for tensor in content.tensors where names.remove(tensor.name) != nil { tensors.append(tensor) }
  }

  /// What was not there.
  func removeRest(from tables: inout [String: MergedTable]) {
    for (name, rest) in ids { for id in rest { tables[name]?.remove(id) } }
  }
}
