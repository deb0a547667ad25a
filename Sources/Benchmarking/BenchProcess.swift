// Another process of this program as a benchmark's server. The kernel ends it when the thread that started it ends;
// `deinit` ends it before.

internal import Base
internal import Foundation
internal import Glibc
internal import Wire

/// A benchmark that could not be run.
public struct BenchmarkError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What happened.
  public let description: String
}

/// A running server, ended by its process number.
final class BenchProcess {
  let service: BenchService
  let endpoint: String
  private let process = Process()

  /// Starts `executable bench server …`; it serves once it has filled its table.
  init(_ settings: PullPushSettings, _ service: BenchService, executable: String) throws {
    self.service = service
    endpoint = "tcp://127.0.0.1:\(try Self.freePort())"
    process.executableURL = URL(filePath: executable)
    process.arguments =
      ["bench", "server", "--service", service.rawValue, "--endpoint", endpoint, "--parent", "\(getpid())"]
      + ["--ids", "\(settings.ids)", "--dimension", "\(settings.dimension)", "--batch", "\(settings.batch)"]
      + ["--seed", "\(settings.seed)", "--journal", settings.journalDirectory, "--wire", "\(settings.numbers)"]
    process.standardInput = FileHandle.nullDevice
    // What it prints is for people: the JSON on our standard output stays alone.
    process.standardOutput = FileHandle.standardError
    do { try process.run() } catch { throw BenchmarkError(description: "cannot start \(executable): \(error)") }
  }

  deinit { stop() }

  func stop() {
    guard process.isRunning else { return }
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  /// Processor time the server has used, in nanoseconds.
  var cpuTime: Int64 { Self.cpuTime(of: process.processIdentifier) }

  /// Processor time a process has used, in nanoseconds.
  static func cpuTime(of process: Int32) -> Int64 {
    var clock = clockid_t()
    var time = timespec()
    guard unsafe clock_getcpuclockid(process, &clock) == 0, unsafe clock_gettime(clock, &time) == 0
    else { return 0 }
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  /// Processor time this process has used, in nanoseconds.
  static var ownCPUTime: Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  var isRunning: Bool { process.isRunning }

  /// A port nobody listens on at this moment.
  static func freePort() throws -> UInt16 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw FileError(errno, "make a socket") }
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let code = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw -> Int32 in
        guard unsafe bind(descriptor, raw, length) == 0 else { return -1 }
        return unsafe getsockname(descriptor, raw, &length)
      }
    }
    guard code == 0 else { throw FileError(errno, "find a free port") }
    return UInt16(bigEndian: address.sin_port)
  }
}
