// How far each consumer of a journal has come, for retention and back-pressure. A consumer writes its own small file,
// from its own process; the journal's owner reads them all.

internal import Base
internal import Glibc

/// The places of a journal's named consumers.
public enum JournalConsumers {
  static let prefix = "consumer-"

  /// Notes how far `consumer` has come, atomically.
  ///
  /// - Parameters:
  ///   - directory: the journal's.
  ///   - consumer: 1 to 100 letters, digits, `.`, `_`, `-`.
  ///   - processed: the offset up to which it has handled records; what back-pressure looks at.
  ///   - safe: the offset up to which it will never ask for records again; what retention looks at.
  ///   - durable: whether to wait for the disk; without it a power failure may bring back an older place.
  public static func commit(
    directory: String, consumer: String, processed: UInt64, safe: UInt64, durable: Bool = true
  ) throws(JournalError) {
    try commit(
      directory: directory, consumer: consumer, processed: processed, safe: safe, durable: durable,
      layer: FileLayers.layer(of: directory))
  }

  static func commit(
    directory: String, consumer: String, processed: UInt64, safe: UInt64, durable: Bool, layer: any FileLayer
  ) throws(JournalError) {
    guard isValidName(consumer) else { throw .invalidName(consumer) }
    let label = Label(.consumer, first: processed, second: safe)
    let path = "\(directory)/\(prefix)\(consumer)"
    // An old owner that wakes up may commit at the same time as its successor.
    try layer.replace(
      path, with: label.encoded, in: directory, durable: durable, temporary: "\(path).\(getpid()).tmp")
  }

  /// The places of all consumers that ever committed and were not removed.
  public static func read(directory: String) throws(JournalError) -> [String: (processed: UInt64, safe: UInt64)] {
    try read(directory: directory, layer: FileLayers.layer(of: directory))
  }

  static func read(
    directory: String, layer: any FileLayer
  ) throws(JournalError) -> [String: (processed: UInt64, safe: UInt64)] {
    var places: [String: (processed: UInt64, safe: UInt64)] = [:]
    for name in try layer.list(directory) where name.hasPrefix(prefix) && !name.hasSuffix(".tmp") {
      let label = try Label(.consumer, at: "\(directory)/\(name)", layer: layer)
      places[String(name.dropFirst(prefix.count))] = (label.first, label.second)
    }
    return places
  }

  /// Forgets a consumer, so that retention no longer waits for it; no error when it is unknown.
  public static func remove(directory: String, consumer: String) throws(JournalError) {
    guard isValidName(consumer) else { throw .invalidName(consumer) }
    let layer = FileLayers.layer(of: directory)
    try layer.remove("\(directory)/\(prefix)\(consumer)")
    try layer.makeNamesDurable(directory)
  }
}

/// Whether `name` may be part of a file's name: no separators, nothing hidden, not a temporary.
func isValidName(_ name: String) -> Bool {
  let bytes = Array(name.utf8)
  guard (1...100).contains(bytes.count), bytes[0] != UInt8(ascii: "."), !name.hasSuffix(".tmp") else { return false }
  return bytes.allSatisfy { byte in
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
      true
    default: false
    }
  }
}
