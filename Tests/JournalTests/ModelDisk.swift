// A disk and page cache in memory, under the module's file layer. It can stop at any operation, and then tells what a
// disk may hold after the process died (all that was written) or the machine did (what was synced, and any part of the
// rest, in pieces). It can be full, and fail an fsync.

import Base
import Glibc

@testable import Journal

/// unchecked because: each test uses its disk from one thread.
final class ModelDisk: FileLayer, @unchecked Sendable {
  enum Crash: CaseIterable {
    case processDied, unsyncedDropped, torn, tornOtherwise, tornThirdWay
    /// Of the changes of names since the last fsync of the directory any may be there and any not.
    case namesReordered
  }

  private final class Node {
    var content: [UInt8] = []
    var durable: [UInt8] = []
    var unsynced: [Change] = []

    enum Change {
      case write([UInt8], at: Int)
      case truncate(Int)
    }
  }

  private enum NameChange {
    case add(String, Node)
    case rename(String, String, Node)
    case remove(String)

    /// The directory whose fsync makes it last.
    var directory: Substring {
      switch self {
      case .add(let path, _), .rename(let path, _, _), .remove(let path):
        path[..<(path.lastIndex(of: "/") ?? path.startIndex)]
      }
    }

    func apply(to names: inout [String: Node]) {
      switch self {
      case .add(let path, let node): names[path] = node
      case .rename(let from, let to, let node):
        names[from] = nil
        names[to] = node
      case .remove(let path): names[path] = nil
      }
    }
  }

  private var names: [String: Node] = [:]
  private var durableNames: [String: Node] = [:]
  private var pending: [NameChange] = []
  private var opened: [Int32: Node] = [:]
  private var lastDescriptor: Int32 = 2
  private var random = SeededRandom(seed: 1)
  private(set) var operations = 0
  /// The operation, counted from 0, that does not happen, nor any after it.
  var crashAt: Int?
  /// The bytes all files together may have.
  var capacity: Int?
  /// How many fsyncs fail from now on.
  ///
  /// What a failed one should have written is gone from the disk but still in memory.
  var failingSyncs = 0

  // MARK: looking and damaging

  var paths: [String] { names.keys.sorted() }
  func content(_ path: String) -> [UInt8] { names[path]?.content ?? [] }
  func set(_ path: String, _ content: [UInt8]) {
    let node = Node()
    node.content = content
    node.durable = content
    names[path] = node
    durableNames[path] = node
  }
  func delete(_ path: String) {
    names[path] = nil
    durableNames[path] = nil
  }

  /// A disk with the same files, all of them synced.
  func copy() -> ModelDisk {
    let disk = ModelDisk()
    for (path, node) in names { disk.set(path, node.content) }
    return disk
  }

  /// The disk a restarted process finds.
  func after(_ crash: Crash, seed: UInt64) -> ModelDisk {
    let disk = ModelDisk()
    if crash == .processDied {
      var copies: [ObjectIdentifier: Node] = [:]
      func copy(_ node: Node) -> Node {
        if let made = copies[ObjectIdentifier(node)] { return made }
        let made = Node()
        (made.content, made.durable, made.unsynced) = (node.content, node.durable, node.unsynced)
        copies[ObjectIdentifier(node)] = made
        return made
      }
      disk.names = names.mapValues(copy)
      disk.durableNames = durableNames.mapValues(copy)
      disk.pending = pending.map { change in
        switch change {
        case .add(let path, let node): .add(path, copy(node))
        case .rename(let from, let to, let node): .rename(from, to, copy(node))
        case .remove: change
        }
      }
      return disk
    }
    var random = SeededRandom(seed: seed &* 31 &+ UInt64(Crash.allCases.firstIndex(of: crash)!))
    var survivors = durableNames
    if crash == .namesReordered {
      for change in pending where random.uniform() < 0.5 { change.apply(to: &survivors) }
    } else if crash != .unsyncedDropped {
      for change in pending.prefix(Int.random(in: 0...pending.count, using: &random)) { change.apply(to: &survivors) }
    }
    for path in survivors.keys.sorted() {
      let node = survivors[path]!
      disk.set(path, crash == .unsyncedDropped ? node.durable : Self.torn(node, using: &random))
    }
    return disk
  }

  private static func torn(_ node: Node, using random: inout SeededRandom) -> [UInt8] {
    var content = node.durable
    let chance = [0.1, 0.5, 0.9].randomElement(using: &random)!
    for change in node.unsynced {
      switch change {
      case .truncate(let size):
        if random.uniform() < chance, size < content.count { content.removeSubrange(size...) }
      case .write(let bytes, let offset):
        if random.uniform() < 0.3 {
          content += [UInt8](repeating: 0, count: max(0, offset + bytes.count - content.count))
        }
        let piece = [1, 8, 64, 4096].randomElement(using: &random)!
        for begin in stride(from: 0, to: bytes.count, by: piece) where random.uniform() < chance {
          let end = min(begin + piece, bytes.count)
          content += [UInt8](repeating: 0, count: max(0, offset + end - content.count))
          content.replaceSubrange((offset + begin)..<(offset + end), with: bytes[begin..<end])
        }
      }
    }
    return content
  }

  // MARK: the layer

  private func step(_ operation: String) throws(FileError) {
    defer { operations += 1 }
    if let crashAt, operations >= crashAt { throw FileError(EIO, "\(operation): the machine is gone") }
  }

  private func node(_ descriptor: Int32) -> Node { opened[descriptor]! }

  func exists(_ directory: String) -> Bool { true }

  func lock(_ path: String) -> FileLock? { nil }

  func makeDirectory(_ path: String) throws(FileError) {}

  func names(in directory: String) throws(FileError) -> [String] {
    names.keys.filter { $0.hasPrefix(directory + "/") }.map { String($0.dropFirst(directory.count + 1)) }.sorted()
  }

  func open(_ path: String, _ mode: FileMode) throws(FileError) -> Int32 {
    if mode == .create {
      try step("create \(path)")
      let node = Node()
      names[path] = node
      pending.append(.add(path, node))
    }
    guard let node = names[path] else { throw FileError(ENOENT, "open \(path)") }
    lastDescriptor += 1
    opened[lastDescriptor] = node
    return lastDescriptor
  }

  func close(_ descriptor: Int32) { opened[descriptor] = nil }

  func size(_ descriptor: Int32) throws(FileError) -> Int { node(descriptor).content.count }

  func read(_ descriptor: Int32, count: Int, at offset: Int) throws(FileError) -> Blob {
    let content = node(descriptor).content
    return Blob(Array(content[min(offset, content.count)..<min(offset + count, content.count)]))
  }

  func write(_ descriptor: Int32, _ bytes: RawSpan, at offset: Int) throws(FileError) -> Int {
    var wanted = bytes.withUnsafeBytes { Array($0) }
    var crashed: FileError?
    do throws(FileError) {
      try step("write")
    } catch {
      // A write the crash interrupts may have happened in part.
      guard operations == crashAt! + 1 else { throw error }
      wanted = Array(wanted.prefix(Int.random(in: 0...wanted.count, using: &random)))
      crashed = error
    }
    let node = node(descriptor)
    if let capacity {
      let growth = max(0, offset + wanted.count - node.content.count)
      let free = capacity - names.values.reduce(0) { $0 + $1.content.count }
      if growth > free { wanted = Array(wanted.prefix(max(0, wanted.count - growth + max(0, free)))) }
      guard !wanted.isEmpty else { throw FileError(ENOSPC, "write") }
    }
    let end = offset + wanted.count
    node.content += [UInt8](repeating: 0, count: max(0, end - node.content.count))
    node.content.replaceSubrange(offset..<end, with: wanted)
    node.unsynced.append(.write(wanted, at: offset))
    if let crashed { throw crashed }
    return wanted.count
  }

  func sync(_ descriptor: Int32, dataOnly: Bool) throws(FileError) {
    try step("fsync")
    let node = node(descriptor)
    if failingSyncs > 0 {
      failingSyncs -= 1
      node.unsynced = []  // what Linux does: the pages count as clean
      throw FileError(EIO, "fsync")
    }
    // Pages an earlier fsync lost stay lost: only what was written since goes to the disk.
    if node.unsynced.isEmpty { return }
    node.durable = node.content
    node.unsynced = []
  }

  func truncate(_ descriptor: Int32, to size: Int) throws(FileError) {
    try step("truncate")
    let node = node(descriptor)
    node.content.removeSubrange(min(size, node.content.count)...)
    node.unsynced.append(.truncate(size))
  }

  func rename(_ from: String, to: String) throws(FileError) {
    guard let node = names[from] else { throw FileError(ENOENT, "rename \(from)") }
    try change(.rename(from, to, node), "rename \(from)", from)
  }

  func unlink(_ path: String) throws(FileError) { try change(.remove(path), "delete \(path)", path) }

  private func change(_ change: NameChange, _ operation: String, _ path: String) throws(FileError) {
    guard names[path] != nil else { throw FileError(ENOENT, operation) }
    try step(operation)
    change.apply(to: &names)
    pending.append(change)
  }

  func syncDirectory(_ path: String) throws(FileError) {
    try step("fsync \(path)")
    // Names in other directories wait for their own fsync.
    for change in pending where change.directory == path { change.apply(to: &durableNames) }
    pending.removeAll { $0.directory == path }
  }
}
