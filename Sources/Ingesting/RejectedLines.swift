// Where refused lines are set aside for people to look at: a file of JSON Lines, up to a size. Belongs to the writer.

internal import Base
internal import Glibc
internal import Streams

/// A file that refused lines are appended to until it is full.
struct RejectedLines: ~Copyable {
  private let path: String
  private let limit: Int
  private var descriptor: Int32
  private var bytes: Int

  /// Opens or makes the file.
  init(path: String, limit: Int) throws(FileError) {
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw FileError(errno, "open \(path)") }
    var status = stat()
    bytes = unsafe fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
    self.path = path
    self.limit = limit
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  /// Sets lines aside; gives how many found no room.
  mutating func append(_ lines: [RefusedLine], arrival: Milliseconds) -> Int {
    guard !lines.isEmpty else { return 0 }
    var left = 0
    var writer = ByteWriter(capacity: 4096)
    for line in lines {
      guard bytes + writer.count + line.text.count + 512 <= limit else {
        left += 1
        continue
      }
      writer.append(text: "{\"arrival\":")
      writer.append(decimal: arrival)
      writer.append(text: ",\"line\":")
      writer.append(decimal: UInt64(line.fault.line))
      writer.append(text: ",\"code\":")
      writer.append(quoted: line.fault.reason.code)
      writer.append(text: ",\"reason\":")
      writer.append(quoted: "\(line.fault.reason)")
      writer.append(text: ",\"text\":")
      writer.append(quoted: String(decoding: line.text, as: UTF8.self))
      writer.append(text: "}\n")
    }
    do throws(FileError) {
      try Files.write(writer.written, to: descriptor, path: path)
      bytes += writer.count
      return left
    } catch {
      // They are counted; that they cannot be kept is no reason to refuse what is right.
      return lines.count
    }
  }
}
