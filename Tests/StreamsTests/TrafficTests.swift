import Base
import Glibc
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

  @Test func `moods come and go with their drift, and leave what has none as it was`() throws {
    typealias Shown = (time: Milliseconds, logit: Double)
    func shown(_ change: @escaping (inout TrafficOptions) -> Void) throws -> [[Shown]] {
      var byUser: [UInt64: [Shown]] = [:]
      let records = records { options in
        (options.users, options.zipfExponent, options.impressionsPerSecond) = (20, 0, 0.02)
        change(&options)
      }
      for record in records {
        guard let truth = record.truth, case .impression(let impression) = record.event,
          case .ids(let ids) = try impression.features.values(of: .synthetic)[0]
        else { continue }
        byUser[ids[0], default: []].append((impression.time, log(truth.click / (1 - truth.click))))
      }
      return Array(byUser.values)
    }
    /// How alike what a user does is over up to an hour, and over more than half a day: covariance of logits.
    func alike(_ users: [[Shown]]) -> (soon: Double, later: Double) {
      var (soon, later) = ((sum: 0.0, count: 0.0), (sum: 0.0, count: 0.0))
      for user in users {
        let mean = user.map(\.logit).reduce(0, +) / Double(user.count)
        for (place, first) in user.enumerated() {
          for second in user[(place + 1)...] {
            let product = (first.logit - mean) * (second.logit - mean)
            if second.time - first.time < 3_600_000 { soon = (soon.sum + product, soon.count + 1) }
            if second.time - first.time > 43_200_000 { later = (later.sum + product, later.count + 1) }
          }
        }
      }
      return (soon.sum / soon.count, later.sum / later.count)
    }
    let calm = alike(try shown { _ in })
    let moody = alike(try shown { $0.mood = 2 })
    #expect(abs(calm.soon) < 0.5)
    #expect(moody.soon > 2 && abs(moody.later) < 0.5, "\(moody)")
    #expect(records { $0.impressions = 200 } == records { ($0.impressions, $0.moodDrift) = (200, .seconds(1)) })
  }
}
