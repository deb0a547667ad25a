import Base
import Layers
import Synchronization
import Testing

@testable import Serving

/// What readers see of a version while it is applied.
@Suite("Visibility of a version") struct VisibilityTests {
  /// Ids that are always there, and ids that every other version removes.
  static let lasting = Array(0..<48 as Range<UInt64>)
  static let passing = Array(100..<132 as Range<UInt64>)

  static func store(_ visibility: RowVisibility) throws -> ReplicaStore {
    let options = Fixture.options("deepfm")
    let model = try makeModel(options.model)
    return try ReplicaStore(
      tables: ["user", "tag", "item"].enumerated().map { table, name in
        ReplicaTableOptions(name: name, defaultRow: [Float](repeating: 0, count: model.rowWidth(table: table)))
      }, models: [options], visibility: visibility)
  }

  /// Every number of a version is the version's own; a small piece of it at a time.
  static func apply(_ number: Int, to store: ReplicaStore) throws {
    func set(_ ids: [UInt64], table: Int) throws {
      let width = store.tableOptions[table].defaultRow.count
      for begin in stride(from: 0, to: ids.count, by: 8) {
        let some = View(copying: Array(ids[begin..<min(ids.count, begin + 8)]))
        let weights = View(copying: [Float](repeating: Float(number), count: some.count * width))
        try store.apply(table: table, ids: some, weights: weights)
      }
    }
    store.begin(version: UInt64(number), created: 0)
    try set(lasting, table: 0)
    try store.setDense(
      model: "deepfm", tensors: store.models[0].denseCounts.map { [Float](repeating: Float(number), count: $0) })
    if number % 2 == 0 {
      try set(passing, table: 2)
    } else {
      try store.remove(table: 2, ids: View(copying: passing))
    }
    try set(lasting, table: 2)
  }

  static func load(_ store: ReplicaStore) throws {
    store.beginBase()
    try apply(0, to: store)
    try store.commitBase(info(0))
  }

  static func info(_ number: Int) -> VersionInfo {
    VersionInfo(number: UInt64(number), newestEventTime: 0, appliedAt: 0)
  }

  /// The versions that one look at everything shows; more than one is a version by halves.
  static func seen(_ store: ReplicaStore, _ reader: EpochReader) -> Set<Float> {
    store.read(reader) { snapshot in
      var seen: Set<Float> = [Float(snapshot.version.number)]
      let isEven = snapshot.version.number % 2 == 0
      for table in [0, 2] {
        let ids = table == 2 ? passing + lasting : lasting
        let width = store.tableOptions[table].defaultRow.count
        var weights = [Float](repeating: -1, count: ids.count * width)
        var found = [UInt8](repeating: 9, count: ids.count)
        _ = snapshot.tables[table].read(ids: ids, into: &weights, found: &found)
        for (place, id) in ids.enumerated() {
          let isThere = lasting.contains(id) || isEven
          if (found[place] == 1) != isThere { seen.insert(-1) }
          if isThere { seen.formUnion(weights[place * width..<(place + 1) * width]) }
        }
      }
      for tensor in snapshot.dense[0] { seen.formUnion(tensor) }
      return seen
    } ?? []
  }

  @Test func `with consistent visibility a version shows at its end, and all of it`() throws {
    for visibility in RowVisibility.allCases {
      let store = try Self.store(visibility)
      let reader = EpochReader(store.epochs)
      try Self.load(store)
      #expect(Self.seen(store, reader) == [0])
      for number in 1...4 {
        try Self.apply(number, to: store)
        let before = Self.seen(store, reader)
        // Row by row, the same look finds a mix: this is what the setting is for.
        #expect(visibility == .consistent ? before == [Float(number - 1)] : before.count > 1)
        try store.publish(Self.info(number))
        #expect(Self.seen(store, reader) == [Float(number)])
      }
    }
  }

  @Test func `readers beside the writer never see a consistent version by halves`() throws {
    let store = try Self.store(.consistent)
    try Self.load(store)
    let looks = Looks()
    let threads = (0..<2).map { number in
      OwnedThread(named: "reader-\(number)") {
        let reader = EpochReader(store.epochs)
        while !looks.isDone.load(ordering: .acquiring) {
          let seen = Self.seen(store, reader)
          if seen.count != 1 { looks.mixed.withLock { $0.append(seen) } }
          looks.count.add(1, ordering: .relaxed)
        }
      }
    }
    defer { for thread in threads { thread.join() } }
    defer { looks.isDone.store(true, ordering: .releasing) }
    var number = 0
    // As many versions as it takes for readers to have looked often while they were applied.
    while number < 300 || (looks.count.load(ordering: .relaxed) < 300 && number < 20_000) {
      number += 1
      try Self.apply(number, to: store)
      try store.publish(Self.info(number))
    }
    #expect(looks.mixed.withLock { $0 } == [])
    #expect(looks.count.load(ordering: .relaxed) >= 300)
  }
}

/// What the reader threads share.
private final class Looks: Sendable {
  let isDone = Atomic<Bool>(false)
  let count = Atomic<Int>(0)
  let mixed = Mutex<[Set<Float>]>([])
}
