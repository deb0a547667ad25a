import Base
import Glibc
import Testing

@testable import Journal

/// A directory of its own for a test, deleted when the value goes.
final class TemporaryDirectory {
  let path: String

  init() throws {
    var template = Array("/tmp/guira-journal-XXXXXX".utf8CString)
    path = try #require(mkdtemp(&template).map { String(cString: $0) })
  }

  deinit { Self.delete(path) }

  private static func delete(_ path: String) {
    for name in (try? Files.names(in: path)) ?? [] { delete("\(path)/\(name)") }
    remove(path)
  }
}

@Suite("Journal") struct JournalTests {
  @Test func `what was synced is read back, in order, over segments, with its offsets`() throws {
    let disk = ModelDisk()
    var knowledge = Knowledge()
    var writer = try writer(disk)
    #expect(writer.recovery.isNew)
    for index in 0..<200 {
      try knowledge.append(&writer)
      if index % 7 == 6 { try knowledge.sync(&writer) }
    }
    #expect(disk.paths.filter { $0.hasSuffix(".segment") }.count > 5)
    // Segments that were ended are synced: readers may be ahead of the last `sync`, never behind.
    let before = try readAll(disk)
    #expect(before.count >= knowledge.acknowledged && before.count < 200)
    try knowledge.sync(&writer)
    try knowledge.check(disk, "all")
    #expect(knowledge.ends.count == 200 && writer.syncedEnd == writer.end)
    for index in [0, 1, 57, 198] {
      let rest = try readAll(disk, from: knowledge.ends[index])
      #expect(rest.map(\.end) == Array(knowledge.ends[(index + 1)...]))
    }
  }

  @Test func `what was only flushed is not read, and survives the process`() throws {
    let disk = ModelDisk()
    do {
      var writer = try writer(disk)
      try writer.append([1, 2, 3])
      try writer.flush()
      #expect(try readAll(disk).isEmpty)
    }
    let reopened = try writer(disk)
    #expect(reopened.recovery.keptUnsyncedBytes == 16)
    #expect(try readAll(disk).map(\.bytes) == [[1, 2, 3]])
  }

  @Test func `payloads of any length begin at a multiple of eight and are padded with zeros`() throws {
    let disk = ModelDisk()
    var writer = try writer(disk)
    for length in 0..<40 { try writer.append([UInt8](repeating: 0xFF, count: length)) }
    try writer.sync()
    var reader = try reader(disk)
    for length in 0..<40 {
      let record = try #require(try reader.next())
      #expect(record.range.count == length && record.range.lowerBound % 8 == 0 && record.end % 8 == 0)
      var payload = record.payload
      #expect(try payload.view(UInt8.self, count: length).array == [UInt8](repeating: 0xFF, count: length))
      try payload.expectEnd()
    }
    #expect(try reader.next() == nil)
  }

  @Test func `a record longer than a chunk or a segment is whole, one over the limit is refused`() throws {
    let disk = ModelDisk()
    var options = JournalOptions()
    options.segmentBytes = 4096
    options.recordLimit = 1 << 20
    var writer = try JournalWriter(
      files: JournalFiles(directory: "j", layer: disk), options: options, acceptLoss: false, lock: nil)
    let long = (0..<options.recordLimit).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    try writer.append([1])
    try writer.append(long)
    try writer.append([2])
    #expect(throws: JournalError.recordTooLong(bytes: long.count + 1, limit: long.count)) {
      try writer.append(long + [0])
    }
    try writer.sync()
    #expect(try readAll(disk).map(\.bytes) == [[1], long, [2]])
  }

  @Test func `retention deletes whole segments and tells a reader that comes too late`() throws {
    let disk = ModelDisk()
    var knowledge = Knowledge()
    var writer = try writer(disk)
    for _ in 0..<100 { try knowledge.append(&writer) }
    try knowledge.sync(&writer)
    var early = try reader(disk)
    #expect(try early.next() != nil)
    let full = disk.copy()
    let middle = knowledge.ends[50]
    try writer.deleteSegments(before: middle)
    #expect(writer.start > 0 && writer.start <= middle)
    #expect(throws: JournalError.deleted(offset: 0, first: writer.start)) { _ = try reader(disk) }
    // The segment it has open is read to its end, although it has no name any more.
    let ended = try JournalFiles(directory: "j", layer: full).label(
      ofSegment: JournalFiles(directory: "j", layer: full).segments()[1]
    ).second
    #expect(throws: JournalError.deleted(offset: ended, first: writer.start)) { while try early.next() != nil {} }
    #expect(early.offset == ended)
    #expect(try readAll(disk, from: middle).count == 49)
    try writer.deleteSegments(before: .max)
    #expect(disk.paths.filter { $0.hasSuffix(".segment") }.count == 1)
    let start = writer.start
    _ = consume writer
    let reopened = try JournalTests.open(disk)
    #expect(reopened.start == start && reopened.end == knowledge.ends.last)
  }

  @Test func `a missing segment, whichever it is, is damage that says what would be lost`() throws {
    let disk = ModelDisk()
    do {
      var writer = try writer(disk)
      for index in 0..<100 { try writer.append(record(index)) }
      try writer.sync()
    }
    for path in disk.paths where path.hasSuffix(".segment") {
      let broken = disk.copy()
      broken.delete(path)
      do {
        _ = try JournalTests.open(broken)
        Issue.record("\(path) was not missed")
      } catch JournalError.damaged(let damage) {
        #expect(damage.lost?.isEmpty == false, "\(damage)")
      }
      _ = try writer(broken, acceptLoss: true)
      _ = try JournalTests.open(broken)
    }
  }

  @Test func `accepting a loss renews the identity and never gives an offset to a second record`() throws {
    let disk = ModelDisk()
    var knowledge = Knowledge()
    var identity: JournalIdentity
    do {
      var writer = try writer(disk)
      for _ in 0..<100 { try knowledge.append(&writer) }
      try knowledge.sync(&writer)
      identity = writer.identity
    }
    var early = try reader(disk)
    #expect(try early.next() != nil)
    let path = disk.paths.filter { $0.hasSuffix(".segment") }[3]
    var content = disk.content(path)
    content[200] ^= 4
    disk.set(path, content)
    var lost = 0..<0 as Range<UInt64>
    do { _ = try JournalTests.open(disk) } catch JournalError.damaged(let damage) { lost = try #require(damage.lost) }
    #expect(lost.upperBound == knowledge.ends.last)
    var writer = try writer(disk, acceptLoss: true)
    #expect(writer.identity != identity)
    #expect(writer.recovery.acceptedLosses.map(\.lost) == [lost])
    #expect(throws: JournalError.identityChanged(was: identity, now: writer.identity)) {
      while try early.next() != nil {}
    }
    let next = try writer.append([9])
    #expect(next > knowledge.ends.last!)
    try writer.sync()
    let read = try readAll(disk)
    #expect(read.dropLast().map(\.end) == knowledge.ends.filter { $0 <= lost.lowerBound })
    #expect(read.last?.bytes == [9] && read.last?.end == next)
    #expect(try readAll(disk, from: lost.upperBound - 8).map(\.end) == [next])
    _ = consume writer
    let reopened = try JournalTests.open(disk)
    #expect(reopened.recovery.acceptedLosses.isEmpty && reopened.end == next)
  }

  @Test func `a journal that ends before what was published is damage, not a torn tail`() throws {
    let disk = ModelDisk()
    do {
      var writer = try writer(disk)
      for index in 0..<4 { try writer.append(record(index)) }
      try writer.sync()
    }
    let path = "j/00000000000000000000.segment"
    disk.set(path, Array(disk.content(path).dropLast(8)))
    #expect(throws: JournalError.self) { _ = try JournalTests.open(disk) }
  }

  @Test func `a consumer's place is replaced, listed and removed, and its name is checked`() throws {
    let directory = try TemporaryDirectory()
    try JournalConsumers.commit(directory: directory.path, consumer: "model.a", processed: 80, safe: 40)
    try JournalConsumers.commit(directory: directory.path, consumer: "model.a", processed: 96, safe: 48, durable: false)
    try JournalConsumers.commit(directory: directory.path, consumer: "sync", processed: 8, safe: 8)
    let places = try JournalConsumers.read(directory: directory.path)
    #expect(places.keys.sorted() == ["model.a", "sync"])
    #expect(places["model.a"]?.processed == 96 && places["model.a"]?.safe == 48)
    try JournalConsumers.remove(directory: directory.path, consumer: "sync")
    #expect(try JournalConsumers.read(directory: directory.path).keys.sorted() == ["model.a"])
    for name in ["", "a/b", "..", ".hidden", "a b", "a.tmp", String(repeating: "a", count: 101)] {
      #expect(throws: JournalError.invalidName(name)) {
        try JournalConsumers.commit(directory: directory.path, consumer: name, processed: 0, safe: 0)
      }
    }
  }

  @Test func `a second writer is refused, and a reader before the first is told so`() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/a/journal"
    #expect(throws: JournalError.notThere(path: path + "/head")) { _ = try JournalReader(directory: path, from: 0) }
    let first = try JournalWriter(directory: path)
    #expect(throws: JournalError.locked(directory: path)) { _ = try JournalWriter(directory: path) }
    #expect(throws: JournalError.beyondEnd(offset: 8, syncedEnd: 0)) { _ = try JournalReader(directory: path, from: 8) }
    #expect(first.end == 0)
    _ = consume first
    #expect(try JournalWriter(directory: path).recovery.isNew == false)
  }

  @Test func `a reader beside the writer sees every record once, whole and in order`() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path
    var options = JournalOptions()
    options.segmentBytes = 1 << 16
    let total = 8_000
    var writer = try JournalWriter(directory: path, options: options)
    let failures = Mailbox<String>(bound: 10)
    let thread = OwnedThread(named: "reader") {
      do {
        var reader = try JournalReader(directory: path, from: 0)
        var seen = 0
        while seen < total {
          guard let next = try reader.next() else {
            sched_yield()
            continue
          }
          if next.array != record(seen) { _ = failures.offer("record \(seen) reads differently") }
          seen += 1
        }
        if try reader.next() != nil { _ = failures.offer("a record too many") }
      } catch { _ = failures.offer("\(error)") }
    }
    for index in 0..<total {
      try writer.append(record(index))
      if index % 97 == 0 { try writer.sync() }
      // A restart in the middle: the reader goes on with the new writer's files.
      if index == total / 2 {
        try writer.flush()
        _ = consume writer
        writer = try JournalWriter(directory: path, options: options)
      }
    }
    try writer.sync()
    thread.join()
    #expect(failures.takeAll() == [])
  }

  @Test func `a killed process loses nothing it flushed, and its lock goes with it`() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path
    await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
      var writer = try JournalWriter(directory: path)
      for index in 0..<100 { try writer.append(record(index).span.bytes) }
      try writer.sync()
      for index in 100..<200 { try writer.append(record(index).span.bytes) }
      try writer.flush()
      for index in 200..<300 { try writer.append(record(index).span.bytes) }
      kill(getpid(), SIGKILL)
    }
    var before = try JournalReader(directory: path, from: 0)
    var seen = 0
    while try before.next() != nil { seen += 1 }
    #expect(seen == 100)
    let writer = try JournalWriter(directory: path)
    #expect(writer.recovery.keptUnsyncedBytes > 0 && writer.recovery.tornTail == nil)
    while let next = try before.next() {
      #expect(next.array == record(seen))
      seen += 1
    }
    #expect(seen == 200 && before.offset == writer.end)
  }

  @Test func `opening without verifying all still misses no byte, and readers verify`() throws {
    let disk = ModelDisk()
    do {
      var writer = try writer(disk)
      for index in 0..<100 { try writer.append(record(index)) }
      try writer.sync()
    }
    let path = disk.paths.filter { $0.hasSuffix(".segment") }[2]
    var options = JournalOptions()
    options.verifiesAllWhenOpening = false
    let files = { (disk: ModelDisk) in JournalFiles(directory: "j", layer: disk) }
    let flipped = disk.copy()
    var content = disk.content(path)
    content[100] ^= 1
    flipped.set(path, content)
    let opened = try JournalWriter(files: files(flipped), options: options, acceptLoss: false, lock: nil)
    #expect(opened.keptBytes == opened.end)
    #expect(try damage { _ = try readAll(flipped) }?.file == path)
    let short = disk.copy()
    short.set(path, content.dropLast())
    let found = try damage {
      _ = try JournalWriter(files: files(short), options: options, acceptLoss: false, lock: nil)
    }
    #expect(found?.file == path)
  }

  static func open(_ disk: ModelDisk) throws -> JournalWriter { try writer(disk) }
}
