import Base
import Foundation
import Synchronization
import Testing

@testable import UserModeling

/// What every feature store promises; `open` gives the same store again, as a restarted process would find it.
struct StoreContract {
  let open: (FeatureStoreOptions) throws -> any FeatureStore

  func keepsTheLastEntries() throws {
    let store = try open(FeatureStoreOptions())
    #expect(try store.entries(of: [7], asOf: nil) == [[]])
    for time in [10, 30, 20, 50, 40] as [Int64] {
      try store.write([EmbeddingWrite(user: 7, entry: Fixture.entry(Float(time), at: time))])
    }
    try store.write([EmbeddingWrite(user: 8, entry: Fixture.entry(1.25, at: 5, version: 9, madeAt: 77))])
    #expect(try store.entries(of: [7], asOf: nil)[0].map(\.eventTime) == [50, 40, 30, 20])
    #expect(try store.entries(of: [8, 9, 8], asOf: nil).map(\.count) == [1, 0, 1])
    #expect(try store.entries(of: [8], asOf: nil)[0] == [Fixture.entry(1.25, at: 5, version: 9, madeAt: 77)])
    #expect(try store.entries(of: [7], asOf: 40)[0].map(\.eventTime) == [40, 30, 20])
    #expect(try store.entries(of: [7], asOf: 19)[0].isEmpty)
  }

  func replacesOneOfTheSameTime() throws {
    let store = try open(FeatureStoreOptions())
    try store.write([EmbeddingWrite(user: 1, entry: Fixture.entry(1, at: 10))])
    try store.write([EmbeddingWrite(user: 1, entry: Fixture.entry(2, at: 10, version: 5))])
    #expect(try store.entries(of: [1], asOf: nil)[0] == [Fixture.entry(2, at: 10, version: 5)])
  }

  func keepsShapesSideBySide() throws {
    let store = try open(FeatureStoreOptions())
    let other = EmbeddingShape(count: 1, dimension: 3)
    for time in 1...6 as ClosedRange<Int64> {
      try store.write([
        EmbeddingWrite(user: 1, entry: Fixture.entry(1, at: time)),
        EmbeddingWrite(user: 1, entry: Fixture.entry(2, at: time, version: 2, shape: other)),
      ])
    }
    let entries = try store.entries(of: [1], asOf: nil)[0]
    #expect(entries.filter { $0.shape == Fixture.shape }.map(\.eventTime) == [6, 5, 4, 3])
    #expect(entries.filter { $0.shape == other }.map(\.eventTime) == [6, 5, 4, 3])
  }

  func knowsOfWhomSomethingWasLearned() throws {
    let store = try open(FeatureStoreOptions())
    var writes = (0..<300 as Range<UInt64>).map { EmbeddingWrite(user: $0, entry: Fixture.entry(1, at: 1)) }
    for place in stride(from: 0, to: 300, by: 3) { writes[place].entry.hadRow = true }
    try store.write(writes)
    try store.write([EmbeddingWrite(user: 0, entry: Fixture.entry(2, at: 2))])
    func learned(_ store: any FeatureStore) throws -> [UInt64] {
      var users: [UInt64] = []
      try store.learnedUsers { users += $0 }
      return users.sorted()
    }
    #expect(try learned(store) == Array(stride(from: 0, to: 300, by: 3)))
    try store.remove([3, 4])
    #expect(try learned(store).count == 99)
    #expect(try store.entries(of: [6], asOf: nil)[0].map(\.hadRow) == [true])
  }

  func keepsWhatIsServed() throws {
    let store = try open(FeatureStoreOptions())
    func served(_ version: UInt64, from: Milliseconds = 0) -> ServedVersions {
      var served = ServedVersions(before: from)
      served.begin(store: 5, at: from)
      served.serve(version)
      return served
    }
    func write(_ version: UInt64, at time: Milliseconds) throws {
      try store.write([EmbeddingWrite(user: 7, entry: Fixture.entry(1, at: time, version: version))])
    }
    func times() throws -> [Milliseconds] { try store.entries(of: [7], asOf: nil)[0].map(\.eventTime) }
    store.keep([served(3), served(5)])
    for time in 1...20 as ClosedRange<Int64> { try write(UInt64(time), at: time) }
    // The newest four, and of each state the newest two.
    #expect(try times() == [20, 19, 18, 17, 5, 4, 3, 2])
    // What is served goes on, and what only an earlier state held goes with the next write.
    store.keep([served(18)])
    try write(21, at: 21)
    #expect(try times() == [21, 20, 19, 18, 17])
    // What was made under another numbering is not of these versions.
    store.keep([served(40, from: 20)])
    try write(1, at: 22)
    #expect(try times() == [22, 21, 20, 19])
    store.keep([])
    for time in 23...26 as ClosedRange<Int64> { try write(1, at: time) }
    #expect(try times() == [26, 25, 24, 23])
  }

  /// A user who acts every ten seconds, versions every minute, and each served a quarter of an hour later.
  func keepsWhatWillBeServed() throws {
    let store = try open(FeatureStoreOptions())
    var served = ServedVersions(before: 0)
    served.begin(store: 5, at: 0)
    var (oldest, most) = (0 as Int64, 0)
    for second in stride(from: 10, to: 4 * 3600, by: 10) as StrideTo<Int64> {
      if second > 900 { served.serve(UInt64((second - 900) / 60)) }
      store.keep([served])
      let entry = Fixture.entry(1, at: second * 1000, version: UInt64(second / 60))
      try store.write([EmbeddingWrite(user: 7, entry: entry)])
      let entries = try store.entries(of: [7], asOf: nil)[0]
      let read = entries.filter { served.covers($0.version, madeAt: $0.madeAt) }
      guard second > 1800 else { continue }
      #expect(read.count >= 2)
      oldest = max(oldest, second - (read.first?.madeAt ?? 0) / 1000)
      most = max(most, entries.count)
    }
    #expect(oldest < 3 * 900, "what is read is \(oldest) s old")
    #expect(most < 16, "\(most) entries")
  }

  func comesBack(half: Bool) throws {
    var options = FeatureStoreOptions()
    options.halfPrecision = half
    var random = SeededRandom(seed: 3)
    var expected: [UInt64: [EmbeddingEntry]] = [:]
    do {
      let store = try open(options)
      for time in 1...200 as ClosedRange<Int64> {
        let user = UInt64.random(in: 0..<20, using: &random)
        // Numbers that float16 holds exactly.
        let entry = Fixture.entry(Float(Int.random(in: -512...512, using: &random)) / 64, at: time)
        try store.write([EmbeddingWrite(user: user, entry: entry)])
        expected[user] = Array(([entry] + (expected[user] ?? [])).prefix(4))
      }
      try store.remove([3])
      expected[3] = []
      try store.sync()
    }
    let store = try open(options)
    for user in 0..<20 as Range<UInt64> {
      #expect(try store.entries(of: [user], asOf: nil)[0] == expected[user] ?? [], "user \(user)")
    }
  }
}

@Suite("Embedded feature store") struct EmbeddedStoreTests {
  private func contract(compactionBytes: Int = 64 << 20) throws -> StoreContract {
    let directory = try Fixture.directory()
    return StoreContract { try EmbeddedStore(directory: directory, options: $0, compactionBytes: compactionBytes) }
  }

  @Test func `the last entries of a user are kept, in order of event time`() throws {
    try contract().keepsTheLastEntries()
  }
  @Test func `an entry of the same event time is replaced`() throws { try contract().replacesOneOfTheSameTime() }
  @Test func `shapes lie side by side`() throws { try contract().keepsShapesSideBySide() }
  @Test func `entries that are served to a model are kept beside the last ones`() throws {
    try contract().keepsWhatIsServed()
  }
  @Test func `entries of versions that will be served are there when they are`() throws {
    try contract().keepsWhatWillBeServed()
  }

  @Test func `entries that are served come back after a restart, from a journal that was written anew, too`() throws {
    let directory = try Fixture.directory()
    var served = ServedVersions(before: 0)
    served.begin(store: 5, at: 0)
    served.serve(3)
    func open(_ served: [ServedVersions]) throws -> EmbeddedStore {
      try EmbeddedStore(directory: directory, keeping: served, compactionBytes: 64 << 10)
    }
    for round in 0..<2 {
      let store = try open([served])
      for time in 1...400 as ClosedRange<Int64> where round == 0 || time > 200 {
        try store.write([EmbeddingWrite(user: 7, entry: Fixture.entry(1, at: time, version: UInt64(time)))])
      }
      try store.sync()
      #expect(store.entries(of: [7], asOf: nil)[0].map(\.version) == [400, 399, 398, 397, 4, 3, 2])
    }
    #expect(try open([]).entries(of: [7], asOf: nil)[0].first?.version == 400)
  }

  @Test(arguments: [false, true]) func `everything comes back after a restart`(half: Bool) throws {
    try contract().comesBack(half: half)
  }

  @Test func `the journal is written anew before it outgrows the table, and comes back`() throws {
    let directory = try Fixture.directory()
    func open() throws -> EmbeddedStore { try EmbeddedStore(directory: directory, compactionBytes: 128 << 10) }
    do {
      let store = try open()
      for round in 1...400 as ClosedRange<Int64> {
        try store.write((0..<20).map { EmbeddingWrite(user: $0, entry: Fixture.entry(Float(round), at: round)) })
      }
      try store.sync()
      #expect(store.journalBytes < 400 << 10)
      #expect(store.extent.users == 20)
    }
    let again = try open()
    #expect(again.entries(of: [19], asOf: nil)[0].map(\.eventTime) == [400, 399, 398, 397])
    #expect(again.extent.users == 20)
  }

  @Test func `of whom something was learned is known`() throws { try contract().knowsOfWhomSomethingWasLearned() }

  /// Whether any file of a directory holds these bytes.
  private func has(_ directory: String, _ bytes: [UInt8]) throws -> Bool {
    try FileManager.default.contentsOfDirectory(atPath: directory).contains { name in
      try Data(contentsOf: URL(filePath: "\(directory)/\(name)")).range(of: Data(bytes)) != nil
    }
  }

  @Test(arguments: [false, true]) func `the bytes of a forgotten user leave the disk`(isKilledBetween: Bool) throws {
    let directory = try Fixture.directory()
    let user: UInt64 = 0xDEAD_BEEF_CAFE_F00D
    let bytes = withUnsafeBytes(of: user.littleEndian) { Array($0) }
    func open(_ delay: Duration) throws -> EmbeddedStore {
      try EmbeddedStore(directory: directory, erasureDelay: delay)
    }
    do {
      let store = try open(isKilledBetween ? .seconds(3600) : .zero)
      for round in 1...3 as ClosedRange<Int64> {
        try store.write([user, 1, 2].map { EmbeddingWrite(user: $0, entry: Fixture.entry(1, at: round)) })
      }
      try store.sync()
      #expect(try has(directory, bytes))
      try store.remove([user])
      #expect(store.entries(of: [user], asOf: nil) == [[]])
      if isKilledBetween { #expect(try has(directory, bytes)) } else { try store.sync() }
    }
    if isKilledBetween {
      let store = try open(.zero)
      #expect(store.entries(of: [user], asOf: nil) == [[]])
      try store.sync()
    }
    #expect(try !has(directory, bytes))
    #expect(try open(.zero).entries(of: [1, 2], asOf: nil).map(\.count) == [3, 3])
  }

  @Test func `what is too old leaves memory in slices, is not read at a start, and leaves the journal`() throws {
    let directory = try Fixture.directory()
    let now = Atomic<Int64>(1000)
    var options = FeatureStoreOptions()
    options.timeToLive = .milliseconds(100)
    func open() throws -> EmbeddedStore {
      try EmbeddedStore(
        directory: directory, options: options, compactionBytes: 64 << 10,
        clock: { now.load(ordering: .relaxed) })
    }
    func write(_ store: EmbeddedStore, _ users: Range<UInt64>, madeAt: Milliseconds) throws {
      try store.write(users.map { EmbeddingWrite(user: $0, entry: Fixture.entry(1, at: madeAt, madeAt: madeAt)) })
    }
    do {
      let store = try open()
      try write(store, 0..<3000, madeAt: 950)
      try write(store, 0..<1000, madeAt: 1000)
      try store.sync()
      #expect(store.extent.users == 3000)
      now.store(1051, ordering: .relaxed)
      // Some users at a time, round and round; nobody is forgotten before their time.
      for _ in 0..<4 { try store.sync() }
      #expect(store.extent.users == 1000 && store.extent.bytes == 1000 * (96 + 64))
      #expect(store.journalBytes < 400 << 10)
      #expect(store.entries(of: [999, 1000], asOf: nil).map(\.count) == [1, 0])
      try write(store, 2000..<2001, madeAt: 1051)
      #expect(store.extent.users == 1001)
    }
    now.store(1101, ordering: .relaxed)
    let again = try open()
    #expect(again.extent.users == 1)
    now.store(1152, ordering: .relaxed)
    try again.sync()
    #expect(again.extent == FeatureStoreExtent())
  }

  @Test func `half precision takes half the memory and three digits`() throws {
    let directory = try Fixture.directory()
    var options = FeatureStoreOptions()
    options.halfPrecision = true
    let store = try EmbeddedStore(directory: directory, options: options)
    try store.write([EmbeddingWrite(user: 1, entry: Fixture.entry(0.1, at: 1))])
    let value = store.entries(of: [1], asOf: nil)[0][0].values[0]
    #expect(value != 0.1 && abs(value - 0.1) < 1e-4)
    #expect(store.extent.bytes == 96 + 32)
  }

  @Test func `a second process is refused`() throws {
    let directory = try Fixture.directory()
    let store = try EmbeddedStore(directory: directory)
    #expect(throws: FeatureStoreError.self) { try EmbeddedStore(directory: directory) }
    _ = store.extent
  }

  @Test func `bytes that are no entry are refused with what was expected`() {
    var bytes = EntryBytes.encode(Fixture.entry(1, at: 1), half: false)
    #expect((try? EntryBytes.decode(bytes)) == Fixture.entry(1, at: 1))
    for length in [0, 1, 39, bytes.count - 1] {
      #expect(throws: DecodeError.self) { try EntryBytes.decode(Array(bytes[..<length])) }
    }
    bytes[0] = 9
    #expect(throws: DecodeError.invalid(field: "entry format", value: "9", expected: "1")) {
      try EntryBytes.decode(bytes)
    }
    bytes[0] = 1
    bytes[7] = 0xFF
    #expect(throws: DecodeError.self) { try EntryBytes.decode(bytes) }
    bytes[7] = 0
    bytes[12] = 2
    #expect(throws: DecodeError.invalid(field: "flags", value: "2", expected: "0 or 1")) {
      try EntryBytes.decode(bytes)
    }
  }
}
