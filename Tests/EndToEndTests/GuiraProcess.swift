// Runs the real `guira` as its users do: real processes, sockets, files and HTTP, in a scratch directory.

import Base
import Cluster
import Foundation
import Glibc
import Support
import Testing

/// A scratch directory with traffic, a free port range and the built command.
final class Scratch {
  let path: String
  let httpPort: Int

  init() throws {
    path = "/tmp/guira-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    // For two replicas, and a third one beside them.
    httpPort = try Ports.free(3)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  var state: String { "\(path)/state" }
  var report: String { "\(path)/report.json" }

  /// Synthetic traffic of some impressions.
  func makeTraffic(_ impressions: Int) throws -> String {
    let directory = "\(path)/traffic"
    let outcome = try guira(["events", "generate", "-o", directory, "--impressions", "\(impressions)"])
    try #require(outcome.code == 0, "\(outcome.errors)")
    return directory
  }

  /// The arguments of `guira up` on the sample configuration, small and quick.
  func up(_ events: String? = nil, _ more: [String] = []) -> [String] {
    let replay = events.map { ["--events", $0, "--report", report] } ?? []
    return ["up", sampleConfiguration, "--state", state] + replay + [
      "--set", "replicas.port=\(httpPort)", "--set", "sync.sparseEvery=1s", "--set", "sync.denseEvery=1s", "--set",
      "shards.epoch=250ms",
    ] + more
  }

  func readReport() throws -> Report {
    try Report(json: String(decoding: Data(contentsOf: URL(filePath: report)), as: UTF8.self))
  }

  /// The process numbers that roles wrote, whether they live or not.
  func rolePids() -> [Int32] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: state)) ?? []
    return names.compactMap { name in
      guard let data = try? Data(contentsOf: URL(filePath: "\(state)/\(name)/status.json")),
        let status = try? JSONDecoder().decode(PidOnly.self, from: data)
      else { return nil }
      return status.pid
    }
  }

  private struct PidOnly: Decodable { let pid: Int32 }
}

/// What a finished command said.
struct Outcome {
  let code: Int32
  let output: String
  let errors: String
}

let packageRoot = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().path(percentEncoded: false)
let sampleConfiguration = packageRoot + "deploy/cluster.yaml"

/// The command, built beside the tests.
let command: String = {
  let bundle = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
  let beside = bundle.appending(path: "guira").path(percentEncoded: false)
  return FileManager.default.isExecutableFile(atPath: beside) ? beside : packageRoot + ".build/debug/guira"
}()

/// Starts the command; its output goes to files, so that nothing blocks.
func start(_ arguments: [String], output: String, environment: [String: String] = [:]) throws -> Process {
  try Data().write(to: URL(filePath: output))
  let process = Process()
  process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
  process.executableURL = URL(filePath: command)
  process.arguments = arguments
  process.standardInput = FileHandle.nullDevice
  process.standardOutput = FileHandle(forWritingAtPath: output)
  process.standardError = FileHandle(forWritingAtPath: output)
  try process.run()
  return process
}

/// Runs the command to its end.
///
/// - Parameter environment: what is set beside this process's own environment.
func guira(_ arguments: [String], environment: [String: String] = [:]) throws -> Outcome {
  let process = Process()
  process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
  process.executableURL = URL(filePath: command)
  process.arguments = arguments
  process.standardInput = FileHandle.nullDevice
  let (output, errors) = (Pipe(), Pipe())
  process.standardOutput = output
  process.standardError = errors
  try process.run()
  // Read both at once: either alone may fill its pipe.
  let box = Mailbox<Data>(bound: 1)
  let thread = OwnedThread(named: "errors") { _ = box.offer(errors.fileHandleForReading.readDataToEndOfFile()) }
  let text = output.fileHandleForReading.readDataToEndOfFile()
  thread.join()
  process.waitUntilExit()
  return Outcome(
    code: process.terminationStatus, output: String(decoding: text, as: UTF8.self),
    errors: String(decoding: box.takeAll().first ?? Data(), as: UTF8.self))
}

/// A socket that listens on loopback; nil when the port is taken.
func listen(_ port: Int) -> Int32? {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = in_port_t(UInt16(port).bigEndian)
  address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  let bound = withUnsafePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      Glibc.bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
    }
  }
  if bound == 0, Glibc.listen(descriptor, 1) == 0 { return descriptor }
  close(descriptor)
  return nil
}
