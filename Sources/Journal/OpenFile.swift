// A file that is open, closed when the value goes; turns the system's errors into the journal's. A failed write keeps
// its cause (full disk or other); a failed fsync is always `syncFailed`, which nobody may retry on the same file.

internal import Base
internal import Glibc

struct OpenFile: ~Copyable, Sendable {
  let layer: any FileLayer
  let path: String
  private let descriptor: Int32

  init(_ path: String, _ mode: FileMode, layer: any FileLayer) throws(JournalError) {
    do throws(FileError) { descriptor = try layer.open(path, mode) } catch { throw JournalError(error, path) }
    self.layer = layer
    self.path = path
  }

  deinit { layer.close(descriptor) }

  borrowing func size() throws(JournalError) -> Int {
    do throws(FileError) { return try layer.size(descriptor) } catch { throw JournalError(error, path) }
  }

  borrowing func read(count: Int, at offset: Int) throws(JournalError) -> Blob {
    do throws(FileError) {
      return try layer.read(descriptor, count: count, at: offset)
    } catch {
      throw JournalError(error, path)
    }
  }

  /// Writes some of `bytes` and says how many.
  borrowing func writeSome(_ bytes: RawSpan, at offset: Int) throws(JournalError) -> Int {
    do throws(FileError) {
      return try layer.write(descriptor, bytes, at: offset)
    } catch {
      throw JournalError(error, path)
    }
  }

  /// Writes all of `bytes`; after an error some of them may be written.
  borrowing func write(_ bytes: RawSpan, at offset: Int) throws(JournalError) {
    var done = 0
    while done < bytes.byteCount {
      done += try writeSome(bytes.extracting(done..<bytes.byteCount), at: offset + done)
    }
  }

  /// Waits until the content is on disk.
  ///
  /// A failure means that what was written is lost, or may be.
  borrowing func sync(dataOnly: Bool) throws(JournalError) {
    do throws(FileError) {
      try layer.sync(descriptor, dataOnly: dataOnly)
    } catch {
      throw .syncFailed(file: path, code: error.code)
    }
  }

  /// Begins to bring what was written to the disk, so that `sync` finds little left.
  borrowing func startWriteback() { layer.startWriteback(descriptor) }

  borrowing func truncate(to size: Int) throws(JournalError) {
    do throws(FileError) {
      try layer.truncate(descriptor, to: size)
    } catch {
      throw JournalError(error, path)
    }
  }
}

extension FileLayer {
  /// Whether `path` can be opened; only "not there" counts as no.
  func has(_ path: String) throws(JournalError) -> Bool {
    do throws(JournalError) {
      _ = try OpenFile(path, .read, layer: self)
      return true
    } catch {
      if error.isNotThere { return false }
      throw error
    }
  }

  /// The names in a directory; an error of this module.
  func list(_ directory: String) throws(JournalError) -> [String] {
    do throws(FileError) { return try names(in: directory) } catch { throw JournalError(error, directory) }
  }

  /// Deletes a file; no error when it is not there.
  func remove(_ path: String) throws(JournalError) {
    do throws(FileError) {
      try unlink(path)
    } catch {
      if error.code != ENOENT { throw JournalError(error, path) }
    }
  }

  /// Renames a file, replacing what has the new name, and waits until the names are on disk.
  func publish(_ temporary: String, as path: String, in directory: String, durable: Bool) throws(JournalError) {
    do throws(FileError) { try rename(temporary, to: path) } catch { throw JournalError(error, path) }
    if durable { try makeNamesDurable(directory) }
  }

  /// Waits until the names in a directory are on disk.
  func makeNamesDurable(_ directory: String) throws(JournalError) {
    do throws(FileError) {
      try syncDirectory(directory)
    } catch {
      throw .syncFailed(file: directory, code: error.code)
    }
  }

  /// Replaces a small file: readers and crashes see the old content or the new.
  ///
  /// - Parameters:
  ///   - temporary: the name until then, `path` with `.tmp` by default; two writers of one file need two.
  ///   - point: a moment to pass before the content has its name.
  func replace(
    _ path: String, with content: Blob, in directory: String, durable: Bool, temporary: String? = nil,
    passing point: FaultPoint? = nil
  ) throws(JournalError) {
    let temporary = temporary ?? path + ".tmp"
    do throws(JournalError) {
      let file = try OpenFile(temporary, .create, layer: self)
      try file.write(content.bytes, at: 0)
      if durable { try file.sync(dataOnly: false) }
    } catch {
      try? remove(temporary)
      throw error
    }
    point?.pass()
    try publish(temporary, as: path, in: directory, durable: durable)
  }
}
