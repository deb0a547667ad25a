import Base
import Cluster
import Foundation
import Testing

@Suite("A user's own file", .serialized) struct InitTests {
  /// Rows out of order, with a few that cannot be read.
  private func writeRows(_ path: String, _ count: Int) throws {
    var random = SeededRandom(seed: 5)
    var text = "ts,user_id,item,price,tags,clicked\n"
    for row in 0..<count {
      let user = random.next() % 50
      let item = random.next() % 30
      let clicked = (user + item) % 3 == 0 ? 1 : 0
      let time = 1_700_000_000 + row * 5 + Int(random.next() % 60)
      text += "\(time),\(user),item-\(item),\(Double(item) * 12.5),a\(item % 4)|b\(item % 3),\(clicked)\n"
      if row % 500 == 7 { text += "yesterday,1,x,1,a,1\n" }
    }
    try Data(text.utf8).write(to: URL(filePath: path))
  }

  @Test func `init looks at a CSV, and up runs what it wrote`() throws {
    let scratch = try Scratch()
    let rows = "\(scratch.path)/clicks.csv"
    try writeRows(rows, 2000)
    let looked = try guira(["events", "inspect", rows])
    #expect(looked.code == 0, "\(looked.errors)")
    #expect(looked.output.contains("ts"))
    #expect(looked.output.contains("→ task clicked, positive at 1"))
    let first = try guira(["init", rows, "--output", "\(scratch.path)/mine"])
    try #require(first.code == 0, "\(first.errors)")
    let again = try guira(["init", rows, "--output", "\(scratch.path)/mine"])
    #expect(again.errors.contains("is there already; nothing was written"))
    let outcome = try guira([
      "up", "\(scratch.path)/mine/cluster.yaml", "--state", scratch.state, "--events", rows, "--report", scratch.report,
      "--set", "replicas.port=\(scratch.httpPort)", "--set", "shards.epoch=250ms", "--speed", "max",
    ])
    try #require(outcome.code == 0, "\(outcome.errors)")
    let report = try scratch.readReport()
    #expect(report.labels["clicked"]?.emitted == 2000)
    #expect(report.digest.equal)
  }
}
