import Base
import Testing

@testable import Streams

@Suite("Synthetic traffic") struct TrafficTests {
  private func records(_ change: (inout TrafficOptions) -> Void = { _ in }) -> [TrafficRecord] {
    var options = TrafficOptions()
    options.impressions = 4000
    change(&options)
    var generator = TrafficGenerator(options)
    var records: [TrafficRecord] = []
    while let record = generator.next() { records.append(record) }
    return records
  }

  @Test func `the same seed gives the same traffic, another seed another`() {
    let first = records { $0.impressions = 300 }
    #expect(records { $0.impressions = 300 } == first)
    let other = records {
      $0.impressions = 300
      $0.seed = 2
    }
    #expect(other != first)
  }

  @Test func `the truth foretells the clicks as well as it says`() throws {
    let records = records()
    var clicked: Set<UInt64> = []
    for record in records {
      if case .action(let action) = record.event, action.name == "click" { clicked.insert(action.impression.low) }
    }
    let truths = records.compactMap(\.truth).sorted { $0.click < $1.click }
    #expect(truths.count == 4000)
    let expected = truths.map(\.click).reduce(0, +)
    #expect(abs(Double(clicked.count) / expected - 1) < 0.05)
    // AUC by ranks: the best any model can reach is well above chance and below certainty.
    var positives = 0.0
    var rankSum = 0.0
    for (rank, truth) in truths.enumerated() where clicked.contains(truth.impression) {
      positives += 1
      rankSum += Double(rank + 1)
    }
    let auc = (rankSum - positives * (positives + 1) / 2) / (positives * (4000 - positives))
    #expect((0.7...0.9).contains(auc), "\(auc)")
    #expect(truths.allSatisfy { $0.like < $0.click })
  }

  @Test func `records come in delivery order; some twice, some out of order, some late`() {
    let records = records()
    #expect(zip(records, records.dropFirst()).allSatisfy { $0.delivery <= $1.delivery })
    var latest: Milliseconds = 0
    var (disordered, late) = (0, 0)
    var seen: [String: Int] = [:]
    for record in records {
      let behind = latest - record.event.time
      if behind > 5000 { late += 1 } else if behind > 0 { disordered += 1 }
      latest = max(latest, record.event.time)
      seen["\(record.event)", default: 0] += 1
    }
    let count = Double(records.count)
    #expect((0.002...0.02).contains(Double(late) / count), "\(late)")
    #expect((0.02...0.1).contains(Double(disordered) / count), "\(disordered)")
    #expect((0.01...0.03).contains(Double(seen.values.filter { $0 == 2 }.count) / Double(seen.count)))
  }

  @Test func `every view ends, after its click, within the window`() {
    let records = records { $0.repeatedShare = 0 }
    var shown: [UInt64: Milliseconds] = [:]
    var ended: [UInt64: Milliseconds] = [:]
    var clicked: [UInt64: Milliseconds] = [:]
    for record in records {
      switch record.event {
      case .impression(let impression): shown[impression.id.low] = impression.time
      case .action(let action):
        if action.name == "view_end" { ended[action.impression.low] = action.time }
        if action.name == "click" { clicked[action.impression.low] = action.time }
      case .watermark: break
      }
    }
    #expect(Set(shown.keys) == Set(ended.keys))
    let window = EventSchema.synthetic.tasks[0].windowMilliseconds
    #expect(ended.allSatisfy { (0..<window).contains($1 - shown[$0]!) })
    #expect(clicked.allSatisfy { (shown[$0]!...ended[$0]!).contains($1) })
  }

  @Test func `popular items come often, and new ones take the place of old ones`() throws {
    let records = records {
      $0.itemLifetime = .seconds(20)
      $0.items = 100
    }
    var counts: [UInt64: Int] = [:]
    for case .impression(let impression) in records.map(\.event) {
      guard case .ids(let ids) = try impression.features.values(of: .synthetic)[1] else { continue }
      counts[ids[0], default: 0] += 1
    }
    #expect(counts.count > 200)
    let top = counts.values.sorted(by: >).prefix(counts.count / 10).reduce(0, +)
    #expect(Double(top) / 4000 > 0.3)
  }
}
