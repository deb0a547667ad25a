import Base
import Foundation
import Streams
import Testing

@testable import Cluster

@Suite("import.yaml") struct ImportSettingsTests {
  private func problems(_ text: String) -> [String] {
    do {
      _ = try ImportMapping(text: text, file: "import.yaml")
      return []
    } catch { return error.problems.map(\.description) }
  }

  @Test(arguments: [ImportMapping.movieLens, .movieLensCSV, .criteo, .mind])
  func `a mapping reads back as it was written`(mapping: ImportMapping) throws {
    #expect(try ImportMapping(text: mapping.text, file: "import.yaml") == mapping)
  }

  @Test func `short forms have the obvious meaning`() throws {
    let mapping = try ImportMapping(
      text: """
        files: [clicks.csv]
        time: {column: at, unit: iso8601}
        features:
          - name: user_id
          - {name: tags, kind: ids, split: "|"}
          - {name: size, kind: dense, columns: [w, h], log1p: true}
        tasks:
          - {name: click}
          - {name: like, column: stars, atLeast: 4}
        """, file: "import.yaml")
    #expect(mapping.features[0] == ImportedFeature("user_id"))
    #expect(mapping.features[1] == ImportedFeature("tags", column: "tags", split: "|", limit: 32))
    #expect(mapping.features[2] == ImportedFeature("size", numbers: ["w", "h"], log1p: true))
    #expect(
      mapping.tasks == [ImportedTask("click", column: "click"), ImportedTask("like", column: "stars", .atLeast(4))])
  }

  @Test func `everything that is wrong is said at once, with its line`() {
    #expect(
      problems(
        """
        format: delimited
        time: {column: at, perSecond: 3}
        features:
          - {name: user, kind: id, split: ","}
          - {name: user, columns: [a, b]}
        tasks:
          - {name: view_end, equals: "1", atLeast: 2}
        tables:
          - {file: ../secret, key: a, adds: [b]}
        colour: red
        """) == [
          "import.yaml: delimiter is missing; say what separates values, such as \"::\"",
          "import.yaml:2: time.perSecond is given beside a column; remove one of them",
          "import.yaml:2: time.unit is missing; say how the time is written: s, ms, us, iso8601, mdy",
          "import.yaml:3: features has 'user' twice; give each a name of its own",
          "import.yaml:4: features.user.split is given for kind id; remove it, or use 'kind: ids'",
          "import.yaml:5: features.user.columns has 2 entries; use one, or 'kind: ids' or 'kind: dense'",
          "import.yaml:6: tasks has 'view_end'; choose another name: that action closes every impression",
          "import.yaml:7: tasks.view_end.atLeast is given beside 'equals'; remove one of them",
          "import.yaml:9: tables.0.file is '../secret'; give the name of a file beside the rows' own",
          "import.yaml:10: colour is not a known key; the keys here are: origin, files, format, delimiter, header, "
            + "columns, id, time, delay, features, tasks, candidates, tables",
        ])
    #expect(problems("features: []").count == 2)
  }

  @Test func `the mapping of the documentation reads`() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../docs/events.md")
    let page = try String(contentsOf: root, encoding: .utf8)
    let text = try #require(
      page.components(separatedBy: "```yaml mapping\n").last?.components(separatedBy: "```").first)
    let mapping = try ImportMapping(text: text, file: "import.yaml")
    #expect(mapping.features.map(\.kind) == [.id, .id, .ids(limit: 20), .dense(width: 2), .id])
    #expect(mapping.delay == .seconds(2))
  }

  @Test(arguments: [ImportMapping.movieLens, .criteo, .mind])
  func `the files of init read back and fit each other`(mapping: ImportMapping) throws {
    let files = FirstFiles(known: mapping, path: "data/", name: "9 my.data")
    #expect(try ImportMapping(text: files.mapping, file: "import.yaml") == mapping)
    let cluster = try ClusterConfiguration(text: files.cluster, file: "cluster.yaml")
    #expect(cluster.eventSchema.features == mapping.schema.features)
    #expect(cluster.eventSchema.tasks == mapping.schema.tasks)
    #expect(cluster.cluster.name == "guira-9-my")
  }
}
