import Base
import Streams
import Testing

@Suite("Batch assembler") struct BatchAssemblerTests {
  let schema = EventSchema(
    features: [
      FeatureSpec(name: "user"), FeatureSpec(name: "recent", kind: .ids(limit: 8)),
      FeatureSpec(name: "age", kind: .dense(width: 1)), FeatureSpec(name: "item"), FeatureSpec(name: "unused"),
    ], tasks: [])

  func columns(_ examples: [(user: UInt64, recent: [UInt64], item: UInt64)]) throws -> FeatureColumns {
    var columns = FeatureColumns(schema: schema)
    for example in examples {
      let block = FeatureBlock(
        schema: schema,
        values: [.ids([example.user]), .ids(example.recent), .numbers([0.5]), .ids([example.item]), .ids([1])])
      try block.append(to: &columns, schema: schema)
    }
    return columns
  }

  @Test func `features that share a table share its rows, and sightings count occurrences`() throws {
    var assembler = BatchAssembler(tableOfFeature: [0, 1, nil, 1, nil], tableCount: 2)
    assembler.assemble(try columns([(7, [3, 0, 3], 9), (.max, [], 3)]))
    #expect(assembler.uniqueIds == [[7, .max], [3, 0, 9]])
    #expect(assembler.sightings == [[1, 1], [3, 1, 1]])
    #expect(assembler.rowNumbers == [[0, 1], [0, 1, 0], [], [2, 0], []])
  }

  @Test func `nothing of a batch is left in the next one`() throws {
    var used = BatchAssembler(tableOfFeature: [0, 0, nil, 0, nil], tableCount: 1)
    used.assemble(try columns((0..<100).map { ($0, [$0 + 1, $0 * 2], $0 % 5) }))
    let small = try columns([(4, [4], 5)])
    used.assemble(small)
    #expect(used.uniqueIds == [[4, 5]])
    #expect(used.sightings == [[2, 1]])
    #expect(used.rowNumbers == [[0], [0], [], [1], []])
    used.assemble(try columns([]))
    #expect(used.uniqueIds == [[]])
  }

  @Test func `row numbers lead back to the ids, whatever the ids`() throws {
    var random = SeededRandom(seed: 11)
    var assembler = BatchAssembler(tableOfFeature: [0, 1, nil, 1, nil], tableCount: 2)
    for _ in 0..<20 {
      let examples = (0..<Int.random(in: 0...200, using: &random)).map { _ in
        (
          user: UInt64.random(in: 0...50, using: &random) << 40,
          recent: (0..<Int.random(in: 0...8, using: &random)).map { _ in UInt64.random(in: 0...30, using: &random) },
          item: UInt64.random(in: 0 ... .max, using: &random)
        )
      }
      let batch = try columns(examples)
      assembler.assemble(batch)
      for feature in [0, 1, 3] {
        let unique = assembler.uniqueIds[assembler.tableOfFeature[feature]!]
        #expect(assembler.rowNumbers[feature].map { unique[Int($0)] } == batch.ids[feature])
      }
      for table in 0..<2 {
        #expect(Set(assembler.uniqueIds[table]).count == assembler.uniqueIds[table].count)
        let total = [0, 1, 3].filter { assembler.tableOfFeature[$0] == table }.reduce(0) { $0 + batch.ids[$1].count }
        #expect(Int(assembler.sightings[table].reduce(0, +)) == total)
      }
    }
  }
}
