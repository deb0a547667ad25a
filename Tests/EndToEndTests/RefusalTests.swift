import Base
import Cluster
import Foundation
import Glibc
import Testing

@Suite("What guira up refuses") struct RefusalTests {
  @Test func `a wrong configuration is told whole, with exit code 2, and nothing is made`() throws {
    let scratch = try Scratch()
    let file = "\(scratch.path)/wrong.yaml"
    let text = try String(contentsOfFile: sampleConfiguration, encoding: .utf8)
      .replacingOccurrences(of: "kind: fm", with: "kind: forest")
    try text.write(toFile: file, atomically: true, encoding: .utf8)
    let outcome = try guira(["up", file, "--state", scratch.state, "--set", "shards.count=0", "--set", "shard.count=3"])
    #expect(outcome.code == 2)
    for part in ["forest", "shards.count", "shard"] { #expect(outcome.errors.contains(part), "\(outcome.errors)") }
    #expect(!Files.exists(scratch.state))
  }

  @Test func `missing events, and a directory that holds something else, are refused before anything starts`() throws {
    let scratch = try Scratch()
    let missing = try guira(scratch.up("\(scratch.path)/nowhere"))
    #expect(missing.code == 1)
    #expect(missing.errors.contains("nowhere"))
    let other = "\(scratch.path)/other"
    try FileManager.default.createDirectory(atPath: other, withIntermediateDirectories: true)
    try "a,b\n1,2\n".write(toFile: other + "/table.csv", atomically: true, encoding: .utf8)
    let shape = try guira(scratch.up(other))
    #expect(shape.code == 1)
    #expect(shape.errors.contains("table.csv"))
    #expect(!Files.exists(scratch.state))
  }

  @Test func `a busy port is named`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(100)
    let taken = try #require(listen(scratch.httpPort))
    defer { close(taken) }
    let outcome = try guira(scratch.up(traffic))
    #expect(outcome.code == 1)
    #expect(outcome.errors.contains("\(scratch.httpPort)"))
    #expect(!Files.exists(scratch.state))
  }

  @Test func `a state directory that is no cluster's, or another cluster's, is left as it was`() throws {
    let scratch = try Scratch()
    let traffic = try scratch.makeTraffic(100)
    try FileManager.default.createDirectory(atPath: scratch.state, withIntermediateDirectories: true)
    try "mine".write(toFile: scratch.state + "/notes.txt", atomically: true, encoding: .utf8)
    let foreign = try guira(scratch.up(traffic))
    #expect(foreign.code == 1)
    #expect(foreign.errors.contains("not the state of a cluster"))
    #expect(try Files.names(in: scratch.state) == ["notes.txt"])
  }
}
