// One process of the cluster under test.

import Cluster
import Foundation
import Glibc

/// A process that was started here; ends with this one.
final class Child {
  let instance: RoleInstance
  /// The moment it was told to die at; nil for none.
  let fault: String?
  /// Where it keeps its own files.
  let state: String
  let log: String
  /// Whether a signal of ours ends it.
  private(set) var isCondemned = false
  private let process: Process

  init(
    _ instance: RoleInstance, command: String, configuration: String, state: String, log: String,
    environment: [String: String], fault: String?
  ) throws {
    self.instance = instance
    self.fault = fault
    self.state = state
    self.log = log
    process = Process()
    process.executableURL = URL(filePath: command)
    process.arguments = [
      instance.role.rawValue, "--config", configuration, "--state", state, "--index", "\(instance.index)",
    ]
    var all = ProcessInfo.processInfo.environment
    // The kernel ends the process with the thread that started it.
    all["GUIRA_SUPERVISOR"] = "\(getpid())"
    all["OPENBLAS_NUM_THREADS"] = "1"
    all.merge(environment) { $1 }
    if let fault { all["GUIRA_FAULT"] = fault }
    process.environment = all
    process.standardInput = FileHandle.nullDevice
    if !FileManager.default.fileExists(atPath: log) {
      _ = FileManager.default.createFile(atPath: log, contents: nil)
    }
    let handle = try FileHandle(forWritingTo: URL(filePath: log))
    try handle.seekToEnd()
    process.standardOutput = handle
    process.standardError = handle
    try process.run()
    try handle.close()
  }

  var isRunning: Bool { process.isRunning }

  /// Whether SIGKILL ended it.
  var wasKilled: Bool { process.terminationReason == .uncaughtSignal && process.terminationStatus == SIGKILL }

  /// How it ended, in words.
  var ending: String {
    process.terminationReason == .uncaughtSignal
      ? "signal \(process.terminationStatus)" : "code \(process.terminationStatus)"
  }

  /// The last lines it wrote.
  var lastWords: String {
    let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
    return text.split(separator: "\n").suffix(2).joined(separator: " | ")
  }

  func kill() {
    isCondemned = true
    signal(SIGKILL)
  }

  func signal(_ number: Int32) {
    if process.isRunning { _ = Glibc.kill(process.processIdentifier, number) }
  }

  /// Kills it and waits until it is gone.
  func end() {
    kill()
    process.waitUntilExit()
  }
}
