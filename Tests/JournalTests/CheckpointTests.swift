import Base
import Testing

@testable import Journal

@Suite("Checkpoints") struct CheckpointTests {
  private static func files(_ disk: ModelDisk) -> CheckpointFiles { CheckpointFiles(directory: "c", layer: disk) }

  /// Writes a checkpoint of numbered sections over several data files.
  @discardableResult
  private static func write(_ disk: ModelDisk, _ name: String, from first: Int, count: Int = 12) throws
    -> CheckpointInfo
  {
    var writer = try CheckpointWriter(files: files(disk), name: name, fileBytes: 400, durable: true)
    for index in 0..<count {
      let bytes = record(first + index)
      try writer.append(bytes.span.bytes)
      if index % 5 == 4 { try writer.sync() }
    }
    return try writer.finish(manifest: Blob("sections from \(first)"))
  }

  private static func check(_ disk: ModelDisk, _ name: String, from first: Int, count: Int = 12) throws {
    var reader = try CheckpointReader(files: files(disk), name: name)
    #expect(String(decoding: reader.manifest.array, as: UTF8.self) == "sections from \(first)")
    for index in 0..<count {
      let section = try #require(try reader.next())
      #expect(section.array == record(first + index))
      #expect(section.range.lowerBound % 8 == 0)
    }
    let last = try reader.next()?.range
    #expect(last == nil)
  }

  @Test func `a checkpoint is read back, listed, and the last finished is the latest`() throws {
    let directory = try TemporaryDirectory()
    #expect(try Checkpoints.latest(directory: directory.path + "/none") == nil)
    let path = directory.path + "/checkpoints"
    for (index, name) in ["zebra", "ant", "mole"].enumerated() {
      var writer = try CheckpointWriter(directory: path, name: name, fileBytes: 300)
      for section in 0..<10 { try writer.append(record(index * 100 + section).span.bytes) }
      let info = try writer.finish(manifest: Blob(name))
      #expect(info.sections == 10 && info.number == UInt32(index + 1))
      #expect(try Checkpoints.latest(directory: path) == info)
    }
    #expect(try Checkpoints.list(directory: path).checkpoints.map(\.name) == ["zebra", "ant", "mole"])
    #expect(try Files.names(in: path).count > 9)
    var reader = try CheckpointReader(directory: path, name: "ant")
    #expect(reader.manifest.array == Array("ant".utf8))
    for section in 0..<10 { #expect(try reader.next()?.array == record(100 + section)) }
    #expect(try reader.next()?.end == nil)
    try Checkpoints.delete(directory: path, name: "mole")
    try Checkpoints.delete(directory: path, name: "mole")
    #expect(try Checkpoints.latest(directory: path)?.name == "ant")
    #expect(try Files.names(in: path).allSatisfy { !$0.hasPrefix("mole") })
    #expect(throws: JournalError.alreadyThere(path: path + "/ant.checkpoint")) {
      _ = try CheckpointWriter(directory: path, name: "ant")
    }
    #expect(throws: JournalError.invalidName("../x")) { _ = try CheckpointWriter(directory: path, name: "../x") }
    #expect(throws: JournalError.notThere(path: path + "/mole.checkpoint")) {
      try Checkpoints.verify(directory: path, name: "mole")
    }
  }

  @Test func `an empty checkpoint and empty sections are whole`() throws {
    let disk = ModelDisk()
    let none = try CheckpointWriter(files: Self.files(disk), name: "none", fileBytes: 400, durable: true)
    #expect(try none.finish(manifest: Blob([])).sections == 0)
    var one = try CheckpointWriter(files: Self.files(disk), name: "one", fileBytes: 400, durable: true)
    try one.append(RawSpan())
    #expect(try one.finish(manifest: Blob([])).bytes == 8)
    #expect(try Checkpoints.verify(Self.files(disk), name: "none").sections == 0)
    #expect(try Checkpoints.verify(Self.files(disk), name: "one").sections == 1)
  }

  @Test func `a checkpoint given up leaves nothing behind`() throws {
    let disk = ModelDisk()
    try Self.write(disk, "kept", from: 0)
    let before = disk.paths
    var writer = try CheckpointWriter(files: Self.files(disk), name: "other", fileBytes: 400, durable: true)
    for index in 0..<12 { try writer.append(record(index).span.bytes) }
    try writer.sync()
    #expect(disk.paths.count > before.count + 1)
    try writer.cancel()
    #expect(disk.paths == before)
  }

  @Test func `on a full disk the checkpoint fails, and the earlier ones stay`() throws {
    let disk = ModelDisk()
    try Self.write(disk, "first", from: 0)
    let used = disk.paths.reduce(0) { $0 + disk.content($1).count }
    for limit in stride(from: 0, to: used, by: 130) {
      disk.capacity = used + limit
      do {
        try Self.write(disk, "second", from: 0)
        Issue.record("there was room for the second with \(limit) bytes")
      } catch JournalError.diskFull {}
      try Self.check(disk, "first", from: 0)
      #expect(try Checkpoints.list(Self.files(disk)).checkpoints.count == 1)
    }
    disk.capacity = nil
    try Self.write(disk, "second", from: 0)
    try Self.check(disk, "second", from: 0)
  }

  @Test func `a crash at any operation leaves every finished checkpoint, and none in part`() throws {
    var stop = 0
    var isDone = false
    while !isDone {
      let disk = ModelDisk()
      try Self.write(disk, "a", from: 0)
      var isFinished = false
      var isDeleted = false
      disk.crashAt = disk.operations + stop
      do {
        try Self.write(disk, "b", from: 100)
        isFinished = true
        try Checkpoints.delete(Self.files(disk), name: "a")
        isDeleted = true
        isDone = true
      } catch {}
      for (crash, seed) in ModelDisk.Crash.allCases.flatMap({ crash in (0..<6).map { (crash, UInt64(stop * 6 + $0)) } })
      {
        let context = "stopped at operation \(stop), \(crash), seed \(seed)"
        let found = disk.after(crash, seed: seed)
        let names = try Checkpoints.list(Self.files(found)).checkpoints.map(\.name)
        if isFinished { #expect(names.contains("b"), "\(context)") } else { #expect(names.contains("a"), "\(context)") }
        if isDeleted { #expect(names == ["b"], "\(context)") }
        let still = try Checkpoints.list(Self.files(found.after(.unsyncedDropped, seed: 0))).checkpoints.map(\.name)
        #expect(still == names, "\(context): a checkpoint that was listed went with the power")
        for name in names { try Self.check(found, name, from: name == "a" ? 0 : 100) }
        // The next writer removes what is left, and only that.
        try Self.write(found, "c", from: 200)
        #expect(try Checkpoints.list(Self.files(found)).checkpoints.map(\.name) == names + ["c"], "\(context)")
        let owners = Set(found.paths.compactMap { CheckpointFiles.owner(ofData: String($0.dropFirst(2))) })
        #expect(owners == Set(names + ["c"]), "\(context)")
        #expect(!found.paths.contains { $0.hasSuffix(".tmp") }, "\(context)")
      }
      stop += 1
    }
    #expect(stop > 20, "only \(stop) operations were stopped at")
  }

  @Test func `every flipped bit and every missing byte is found with its file`() throws {
    let disk = ModelDisk()
    try Self.write(disk, "a", from: 0)
    var random = SeededRandom(seed: 22)
    for round in 0..<3000 {
      let path = disk.paths.randomElement(using: &random)!
      var content = disk.content(path)
      let byte = Int.random(in: 0..<content.count, using: &random)
      if round % 10 == 0 {
        content.removeSubrange(byte...)
      } else {
        content[byte] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      }
      let broken = disk.copy()
      broken.set(path, content)
      let found = try damage { try Checkpoints.verify(Self.files(broken), name: "a") }
      #expect(found?.file == path, "byte \(byte) of \(path): \(String(describing: found))")
      #expect(found.map { $0.fileOffset <= byte } ?? false)
    }
    for path in disk.paths where path.hasSuffix(".data") {
      let missing = disk.copy()
      missing.delete(path)
      #expect(throws: JournalError.self) { try Checkpoints.verify(Self.files(missing), name: "a") }
    }
  }

  @Test func `a data file of another checkpoint is refused, and a damaged manifest is not passed over in silence`()
    throws
  {
    let disk = ModelDisk()
    try Self.write(disk, "a", from: 0)
    try Self.write(disk, "b", from: 0)
    let mixed = disk.copy()
    mixed.set("c/a-000001.data", disk.content("c/b-000001.data"))
    #expect(throws: JournalError.self) { try Checkpoints.verify(Self.files(mixed), name: "a") }
    let broken = disk.copy()
    var manifest = disk.content("c/b.checkpoint")
    manifest[20] ^= 1
    broken.set("c/b.checkpoint", manifest)
    let listing = try Checkpoints.list(Self.files(broken))
    #expect(listing.checkpoints.map(\.name) == ["a"] && listing.damaged.map(\.file) == ["c/b.checkpoint"])
    try Checkpoints.delete(Self.files(broken), name: "b")
    #expect(try Checkpoints.list(Self.files(broken)).damaged.isEmpty)
  }
}
