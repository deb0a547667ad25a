import Base
import Foundation
import Glibc
import Testing

/// The files in `deploy/`, each checked by the tool it is for.
///
/// A tool that is not installed is named loudly and skipped; `make test-deploy` installs those that are packages.
@Suite("Deployment files") struct DeployTests {
  private static let deploy = packageRoot + "deploy"

  /// Where a tool is: on the path, or where `make test-deploy` puts it.
  static func find(_ tool: String) -> String? {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
    let found = (folders + [packageRoot + ".build/deploy-tools/bin"]).map { "\($0)/\(tool)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
    if found == nil {
      print("*** SKIPPED: \(tool) is not installed; what it checks was NOT tested. make test-deploy ***")
    }
    return found
  }

  /// Runs a tool to its end; what it says on both outputs.
  static func run(
    _ tool: String, _ arguments: [String], in directory: String = deploy, input: Data = Data()
  ) throws -> (code: Int32, text: String) {
    let scratch = "/tmp/guira-deploy-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    defer { for end in ["in", "out"] { try? FileManager.default.removeItem(atPath: "\(scratch).\(end)") } }
    try input.write(to: URL(filePath: scratch + ".in"))
    try Data().write(to: URL(filePath: scratch + ".out"))
    let process = Process()
    process.executableURL = URL(filePath: tool)
    process.arguments = arguments
    process.currentDirectoryURL = URL(filePath: directory)
    process.standardInput = FileHandle(forReadingAtPath: scratch + ".in")
    process.standardOutput = FileHandle(forWritingAtPath: scratch + ".out")
    process.standardError = process.standardOutput
    try process.run()
    process.waitUntilExit()
    return (process.terminationStatus, try String(contentsOfFile: scratch + ".out", encoding: .utf8))
  }

  @Test func `systemd takes the units`() throws {
    guard let tool = Self.find("systemd-analyze") else { return }
    let scratch = try Scratch()
    let units = try FileManager.default.contentsOfDirectory(atPath: Self.deploy + "/systemd").sorted()
    #expect(units.count == 7)
    for unit in units {
      // The command is where it was built, not where a package would put it.
      let text = try String(contentsOfFile: "\(Self.deploy)/systemd/\(unit)", encoding: .utf8)
      try text.replacingOccurrences(of: "/usr/bin/guira", with: command)
        .write(toFile: "\(scratch.path)/\(unit)", atomically: true, encoding: .utf8)
    }
    for unit in units {
      let said = try Self.run(
        tool, ["verify", "--man=no", unit.replacingOccurrences(of: "@.", with: "@0.")], in: scratch.path)
      #expect(said.code == 0 && said.text == "", "\(unit): \(said.text)")
    }
  }

  @Test func `hadolint finds nothing in the Dockerfile`() throws {
    guard let tool = Self.find("hadolint") else { return }
    let said = try Self.run(tool, ["--no-color", "docker/Dockerfile"])
    #expect(said.code == 0 && said.text == "", "\(said.text)")
  }

  @Test(arguments: ["kubernetes", "kubernetes-users"]) func `kustomize builds what Kubernetes takes`(
    folder: String
  ) throws {
    guard let kubectl = Self.find("kubectl") else { return }
    let built = try Self.run(kubectl, ["kustomize", folder])
    #expect(built.code == 0 && built.text.contains("kind: StatefulSet"), "\(built.text)")
    #expect(built.text.contains("guira soap --config") == (folder == "kubernetes-users"))
    guard let validate = Self.find("kubernetes-validate") else { return }
    let scratch = try Scratch()
    try built.text.write(toFile: "\(scratch.path)/all.yaml", atomically: true, encoding: .utf8)
    let said = try Self.run(validate, ["--strict", "all.yaml"], in: scratch.path)
    #expect(said.code == 0, "\(said.text)")
  }

  @Test func `every configuration in deploy is one`() throws {
    for file in ["cluster.yaml", "kuairand.yaml", "kubernetes/cluster.yaml", "kubernetes-users/cluster.yaml"] {
      let said = try Self.run(command, ["config", "check", "\(Self.deploy)/\(file)"])
      #expect(said.code == 0, "\(file): \(said.text)")
    }
  }

  @Test func `Prometheus takes configuration and rules, and alerts fire when they should`() throws {
    guard let tool = Self.find("promtool") else { return }
    let checked = try Self.run(tool, ["check", "config", "prometheus.yaml"], in: Self.deploy + "/prometheus")
    #expect(checked.code == 0, "\(checked.text)")
    let tested = try Self.run(tool, ["test", "rules", "guira.rules.test.yaml"], in: Self.deploy + "/prometheus")
    #expect(tested.code == 0, "\(tested.text)")
  }
}
