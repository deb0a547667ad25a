import Base
import Cluster
import Foundation
import Glibc
import Streams
import Support
import Testing

@Suite("Events over HTTP", .serialized) struct IngestTests {
  /// Sends lines until they are acknowledged, as a client that retries does.
  private func send(_ lines: [String], to port: Int, until deadline: Int64) throws -> Int {
    var refusals = 0
    while Clocks.monotonic() < deadline {
      if let status = try? status(posting: lines.joined(separator: "\n"), to: port), status == 200 { return refusals }
      refusals += 1
      usleep(100_000)
    }
    throw StateError("not acknowledged in time")
  }

  private func status(posting body: String, to port: Int) throws -> Int {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/curl")
    process.arguments = [
      "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "10", "--data-binary", "@-",
      "http://127.0.0.1:\(port)/v1/events",
    ]
    let (input, output) = (Pipe(), Pipe())
    process.standardInput = input
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    input.fileHandleForWriting.write(Data(body.utf8))
    try input.fileHandleForWriting.close()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return Int(text) ?? 0
  }

  @Test func `a client that retries loses and repeats nothing while the ingest is killed`() throws {
    let scratch = try Scratch()
    let port = try Ports.free()
    let log = "\(scratch.path)/up.log"
    let process = try start(
      scratch.up(
        nil, ["--set", "ingest.port=\(port)", "--set", "tasks.click.window=1s", "--set", "tasks.like.window=1s"]),
      output: log)
    defer { if process.isRunning { process.terminate() } }
    let deadline = Clocks.monotonic() + 300_000_000_000
    var kills = 0
    for batch in 0..<30 {
      let now = Clocks.wall()
      let lines = (batch * 40..<batch * 40 + 40).flatMap { id in
        [
          #"{"type":"impression","id":\#(id),"time":\#(now),"features":{"user_id":\#(id % 9),"item_id":\#(id % 5)}}"#,
          #"{"type":"action","impression":\#(id),"action":"\#(id % 4 == 0 ? "click" : "view_end")","time":\#(now + 1)}"#,
        ]
      }
      _ = try send(lines, to: port, until: deadline)
      guard batch % 10 == 5, let pid = said("ingest-0", scratch)?.pid else { continue }
      #expect(kill(pid, SIGKILL) == 0)
      kills += 1
      // What was acknowledged is sent once more: the answer could have been lost.
      _ = try send(lines, to: port, until: deadline)
    }
    #expect(kills == 3)
    // Event time goes on with the clock, so the last windows close though nothing more is sent.
    while Clocks.monotonic() < deadline, (said("joiner-0", scratch)?.labels["click"]?.emitted ?? 0) < 1200 {
      usleep(100_000)
    }
    let labels = said("joiner-0", scratch)?.labels["click"]
    #expect(labels?.emitted == 1200)
    #expect(labels?.positive == 300)
    let metrics = try guira(["status", "--state", scratch.state, "--metrics"])
    #expect(metrics.output.contains("role=\"ingest\",index=\"0\""))
    kill(process.processIdentifier, SIGINT)
    process.waitUntilExit()
    #expect(process.terminationStatus == 0, "\((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
  }

  private func said(_ role: String, _ scratch: Scratch) -> RoleStatus? {
    guard let data = try? Data(contentsOf: URL(filePath: "\(scratch.state)/\(role)/status.json")) else { return nil }
    return try? JSONDecoder().decode(RoleStatus.self, from: data)
  }
}
