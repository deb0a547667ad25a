// A model of a disk that several threads may use, as a shard's do: one operation at a time.

import Base
import Synchronization

@testable import Journal

/// unchecked because: every use of the disk holds the lock.
final class SharedDisk: FileLayer, @unchecked Sendable {
  let disk: ModelDisk
  private let mutex = Mutex<Void>(())

  init(_ disk: ModelDisk) { self.disk = disk }

  private func alone<Result: ~Copyable>(_ body: () throws(FileError) -> Result) throws(FileError) -> Result {
    try mutex.withLock { _ throws(FileError) in try body() }
  }

  func exists(_ directory: String) -> Bool { true }
  func lock(_ path: String) -> FileLock? { nil }
  func makeDirectory(_ path: String) throws(FileError) {}
  func close(_ descriptor: Int32) { try? alone { () throws(FileError) in disk.close(descriptor) } }

  func names(in directory: String) throws(FileError) -> [String] {
    try alone { () throws(FileError) in try disk.names(in: directory) }
  }

  func open(_ path: String, _ mode: FileMode) throws(FileError) -> Int32 {
    try alone { () throws(FileError) in try disk.open(path, mode) }
  }

  func size(_ descriptor: Int32) throws(FileError) -> Int {
    try alone { () throws(FileError) in try disk.size(descriptor) }
  }

  func read(_ descriptor: Int32, count: Int, at offset: Int) throws(FileError) -> Blob {
    try alone { () throws(FileError) in try disk.read(descriptor, count: count, at: offset) }
  }

  func write(_ descriptor: Int32, _ bytes: RawSpan, at offset: Int) throws(FileError) -> Int {
    let copy = bytes.withUnsafeBytes { Array($0) }
    return try alone { () throws(FileError) in try disk.write(descriptor, copy.span.bytes, at: offset) }
  }

  func sync(_ descriptor: Int32, dataOnly: Bool) throws(FileError) {
    try alone { () throws(FileError) in try disk.sync(descriptor, dataOnly: dataOnly) }
  }

  func truncate(_ descriptor: Int32, to size: Int) throws(FileError) {
    try alone { () throws(FileError) in try disk.truncate(descriptor, to: size) }
  }

  func rename(_ from: String, to: String) throws(FileError) {
    try alone { () throws(FileError) in try disk.rename(from, to: to) }
  }

  func unlink(_ path: String) throws(FileError) { try alone { () throws(FileError) in try disk.unlink(path) } }

  func syncDirectory(_ path: String) throws(FileError) {
    try alone { () throws(FileError) in try disk.syncDirectory(path) }
  }
}
