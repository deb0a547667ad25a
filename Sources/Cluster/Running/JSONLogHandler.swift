// Logs as JSON, one object a line, to stderr: what `log.jsonl` of each role holds.

internal import Base
internal import Foundation
internal import Glibc
public import Logging

/// Writes each log line as one JSON object: `time`, `level`, `role`, `index`, `message`, and `metadata` if there is any.
public struct JSONLogHandler: LogHandler {
  /// Values that every line of this logger carries.
  public var metadata: Logger.Metadata = [:]
  /// Lines below this level are left out.
  public var logLevel: Logger.Level
  private let instance: RoleInstance
  private let descriptor: Int32

  private struct Line: Encodable {
    var time: String
    var level: String
    var role: String
    var index: Int
    var message: String
    var metadata: [String: String]?
    var error: String?
  }

  /// A handler for one process.
  /// - Parameter descriptor: where lines go, stderr by default; each line is one `write`.
  public init(_ instance: RoleInstance, level: Logger.Level = .info, descriptor: Int32 = 2) {
    self.instance = instance
    logLevel = level
    self.descriptor = descriptor
  }

  /// A logger that writes so.
  public static func logger(_ instance: RoleInstance, level: Logger.Level = .info) -> Logger {
    Logger(label: instance.directoryName) { _ in JSONLogHandler(instance, level: level) }
  }

  /// One value of the metadata.
  public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  /// Writes a line.
  public func log(event: LogEvent) {
    let merged = metadata.merging(event.metadata ?? [:]) { $1 }
    let line = Line(
      time: Self.timestamp(Clocks.wall()), level: event.level.rawValue, role: instance.role.rawValue,
      index: instance.index, message: event.message.description,
      metadata: merged.isEmpty ? nil : merged.mapValues(\.description), error: event.error.map { "\($0)" })
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard var bytes = try? encoder.encode(line) else { return }
    bytes.append(UInt8(ascii: "\n"))
    _ = unsafe bytes.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
  }

  /// A time as `2026-05-08T12:34:56.789Z`.
  static func timestamp(_ time: Milliseconds) -> String {
    Date(timeIntervalSince1970: Double(time) / 1000).formatted(
      Date.ISO8601FormatStyle(includingFractionalSeconds: true))
  }
}
