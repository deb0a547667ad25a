import Base
import Streams
import Testing

@testable import Joining

@Suite("Joining structures") struct StructureTests {
  @Test func `timers come out by due time, each once, whatever the order they went in`() {
    var random = SeededRandom(seed: 1)
    for spread in [1, 100, 1 << 40] as [Int64] {
      var timers = Timers()
      var reference: [Int64] = []
      var out: [Timers.Entry] = []
      var last = Int64.min
      for step in 0..<3000 {
        if random.uniform() < 0.6 {
          let due = max(last, 0) + Int64.random(in: -spread / 8...spread, using: &random)
          timers.add(Timers.Entry(due: due, slot: UInt32(step), serial: 0))
          reference.append(max(due, last))
        } else {
          #expect(timers.next == reference.min() ?? .max)
          timers.takeEarliest(into: &out)
          #expect(out.isEmpty == reference.isEmpty)
          guard let earliest = reference.min() else { continue }
          #expect(out.count == reference.count { $0 == earliest })
          #expect(out.allSatisfy { max($0.due, last) == earliest })
          reference.removeAll { $0 == earliest }
          last = earliest
        }
        #expect(timers.count == reference.count)
      }
    }
  }

  @Test func `timers at the ends of time work`() {
    var timers = Timers()
    for due in [Int64.max, 0, .min, -1, 1] { timers.add(Timers.Entry(due: due, slot: 0, serial: 0)) }
    var dues: [Int64] = []
    var out: [Timers.Entry] = []
    while timers.count > 0 {
      timers.takeEarliest(into: &out)
      dues += out.map(\.due)
    }
    #expect(dues == [.min, -1, 0, 1, .max])
  }

  @Test func `the index holds what a dictionary holds`() {
    var random = SeededRandom(seed: 2)
    var index = ImpressionIndex()
    var reference: [ImpressionID: Known] = [:]
    for step in 0..<40_000 as Range<UInt32> {
      let limit: UInt64 = step < 20_000 ? 4000 : 300
      let id = ImpressionID(high: UInt64.random(in: 0...1, using: &random), low: .random(in: 0...limit, using: &random))
      let values = [
        Known.slot(Int(step)), .remembered(next: step), .remembered(next: nil), .stored(due: Int64(step) - 9000),
      ]
      let value = random.uniform() < 0.55 ? values[Int(step) % 4] : nil
      index[id] = value
      reference[id] = value
      let other = ImpressionID(high: 0, low: .random(in: 0...limit, using: &random))
      guard index[other] == reference[other] else {
        Issue.record("id \(other) after step \(step)")
        return
      }
    }
    let found = reference.filter { index[$0.key] == $0.value }.count
    #expect(found == reference.count && index.count == reference.count)
  }

  @Test func `a checkpoint written in pieces holds the state in one piece, and reads`() throws {
    let scratch = ScratchDirectory()
    var scenario = Scenario(task("click", window: 1_000_000))
    let features = FeatureBlock(bytes: [UInt8](repeating: 7, count: 4000))
    for id in 1...1500 as ClosedRange<UInt64> {
      scenario.shown(.impression(Impression(id: ImpressionID(id), time: 1000, features: features)))
    }
    var whole = ByteWriter()
    scenario.core.encode(into: &whole)
    let path = "\(scratch.path)/joiner.checkpoint"
    var checkpoint = JoinerCheckpoint()
    checkpoint.exampleEnds = [Position(low: 3)]
    let bytes = try checkpoint.write(scenario.core, to: path)
    let file = Blob(try Files.read(path))
    #expect(bytes == file.count && bytes > 5 << 20)
    var (found, core) = try JoinerCheckpoint.decode(file)
    #expect(found.exampleEnds == checkpoint.exampleEnds)
    #expect(try core.view(UInt8.self, count: whole.count).array == whole.finish().array)
    try core.expectEnd()
  }
}
