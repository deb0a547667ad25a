// A real redis-server for tests: on loopback, with an append-only file in a directory of its own, ended by its id.

import Base
import Foundation
import Glibc
public import Redis

/// A Redis server of a test's own, on a free port of loopback.
public final class RedisProcess {
  /// Its port.
  public let port: Int
  /// Where it is.
  public var address: RedisAddress { RedisAddress(host: "127.0.0.1", port: port) }
  private var process: Process?
  private let directory: String
  private let arguments: [String]

  /// Nil, loudly, when there is no redis-server.
  ///
  /// - Parameter arguments: added to its usual ones, and stronger than those.
  public init?(arguments: [String] = []) throws {
    guard Self.path != nil else {
      print("*** SKIPPED: redis-server is not installed; what needs it was NOT tested ***")
      return nil
    }
    // As every role does: a server that is gone is an error of the write.
    signal(SIGPIPE, SIG_IGN)
    self.arguments = arguments
    port = try Self.freePort()
    var template = Array("/tmp/guira-redis-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw FileError(errno, "make a scratch directory") }
    directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    try start()
  }

  deinit {
    kill()
    try? FileManager.default.removeItem(atPath: directory)
  }

  private static let path: String? = ["/usr/bin/redis-server", "/usr/local/bin/redis-server"].first {
    FileManager.default.isExecutableFile(atPath: $0)
  }

  /// Starts it, with the data it had when it ended, and returns when it answers.
  public func start() throws {
    let process = Process()
    process.executableURL = URL(filePath: Self.path ?? "")
    process.arguments =
      [
        "--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always",
        "--dir", directory, "--daemonize", "no",
      ] + arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    self.process = process
    for _ in 0..<500 {
      let answer = try? RedisConnection(address, patience: .seconds(1)).ask([["PING"].map { Array($0.utf8) }])
      if case .status? = answer?.first { return }
      usleep(10_000)
    }
    throw FileError(ETIMEDOUT, "start redis-server")
  }

  /// As `kill -9` does.
  public func kill() {
    guard let process, process.isRunning else { return }
    Glibc.kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  private static func freePort() throws -> Int {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let code = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw -> Int32 in
        guard bind(descriptor, raw, length) == 0 else { return -1 }
        return getsockname(descriptor, raw, &length)
      }
    }
    guard code == 0 else { throw FileError(errno, "find a free port") }
    return Int(UInt16(bigEndian: address.sin_port))
  }
}
