import Base
import Testing

@testable import UserModeling

@Suite("Pooling") struct PoolingTests {
  private let stored = [3, 2, 1].map { Fixture.entry(Float($0) * 3, at: Int64($0)) }

  private func pool(_ entries: Int, isCurrent: Bool) -> UserVector {
    var pooling = EmbeddingPooling()
    pooling.entries = entries
    return pooling.vector(of: stored, isCurrent: isCurrent, shape: Fixture.shape, now: 13)
  }

  @Test func `three entries are the current one and two stored, two without a current one`() {
    #expect(pool(3, isCurrent: true).values == [Float](repeating: 6, count: 16))
    #expect(pool(3, isCurrent: true).source == .current)
    #expect(pool(3, isCurrent: false).values == [Float](repeating: 7.5, count: 16))
    #expect(pool(3, isCurrent: false).source == .stored)
    #expect(pool(3, isCurrent: false).pooled == 2)
    #expect(pool(2, isCurrent: true).values[0] == 7.5)
    #expect(pool(1, isCurrent: true).values[0] == 9)
    #expect(pool(1, isCurrent: true).age == 10)
  }

  @Test func `entries of another shape are never pooled with the asked one`() {
    let other = EmbeddingShape(count: 4, dimension: 4)
    let mixed = [Fixture.entry(100, at: 9, version: 2, shape: other)] + stored
    let vector = EmbeddingPooling().vector(of: mixed, isCurrent: true, shape: Fixture.shape, now: 13)
    #expect(vector.values == [Float](repeating: 6, count: 16))
    #expect(vector.source == .stored)
    #expect(EmbeddingPooling().vector(of: mixed, isCurrent: true, shape: other, now: 13).values[0] == 100)
  }

  @Test func `an entry of an absurd time has an absurd age and traps nobody`() {
    for madeAt in [Int64.min, .max] {
      let entry = Fixture.entry(1, at: 1, madeAt: madeAt)
      let vector = EmbeddingPooling().vector(of: [entry], isCurrent: false, shape: Fixture.shape, now: 10)
      #expect(vector.age == (madeAt < 0 ? Int64.max : 0))
    }
    var pooling = EmbeddingPooling()
    pooling.timeToLive = .seconds(1)
    let entry = Fixture.entry(1, at: 1, madeAt: .min)
    #expect(pooling.vector(of: [entry], isCurrent: false, shape: Fixture.shape, now: .min).pooled == 1)
  }

  @Test func `what is too old does not count, and without entries there is the default`() {
    var pooling = EmbeddingPooling()
    pooling.timeToLive = .milliseconds(10)
    pooling.defaultValue = 0.5
    #expect(pooling.vector(of: stored, isCurrent: false, shape: Fixture.shape, now: 12).pooled == 2)
    #expect(pooling.vector(of: stored, isCurrent: false, shape: Fixture.shape, now: 13).values[0] == 9)
    let vector = pooling.vector(of: stored, isCurrent: true, shape: Fixture.shape, now: 14)
    #expect(vector.values == [Float](repeating: 0.5, count: 16))
    #expect(vector.source == .default && vector.pooled == 0 && vector.version == 0)
  }
}

@Suite("Compute queue") struct ComputeQueueTests {
  @Test func `a newer request of a user takes the place of the one that waits`() {
    var queue = ComputeQueue(limit: 10)
    queue.offer(Fixture.request(1, liked: [1], at: 10))
    queue.offer(Fixture.request(2, at: 10))
    queue.offer(Fixture.request(1, liked: [2], at: 20))
    queue.offer(Fixture.request(1, liked: [3], at: 15))
    #expect(queue.count == 2)
    #expect(queue.take(5) == [Fixture.request(1, liked: [2], at: 20), Fixture.request(2, at: 10)])
    #expect(queue.counters.replaced == 2 && queue.counters.offered == 4)
    #expect(queue.isPending(1))
    queue.finish([1, 2])
    #expect(!queue.isPending(1))
    #expect(queue.take(1).isEmpty)
  }

  @Test func `when it is full the longest waiting user goes`() {
    var queue = ComputeQueue(limit: 3)
    for user in 1...5 as ClosedRange<UInt64> { queue.offer(Fixture.request(user)) }
    #expect(queue.counters.dropped == 2)
    #expect(queue.take(9).map(\.user) == [3, 4, 5])
  }

  @Test func `a full queue that nobody takes from stays as small as it was`() {
    var queue = ComputeQueue(limit: 10)
    for user in 0..<50_000 as Range<UInt64> { queue.offer(Fixture.request(user)) }
    #expect(queue.count == 10 && queue.counters.dropped == 49_990)
    #expect(queue.orderCount <= 2048)
    #expect(queue.take(20).map(\.user) == Array(49_990..<50_000))
  }

  @Test func `whoever is taken out is not worked out, comes in again, and makes the queue no longer`() {
    var queue = ComputeQueue(limit: 10)
    for round in 1...5000 as ClosedRange<Int64> {
      queue.offer(Fixture.request(1, at: round))
      queue.offer(Fixture.request(2, at: round))
      queue.remove([1])
    }
    #expect(queue.count == 1 && queue.orderCount <= 2048)
    queue.offer(Fixture.request(1, at: 9000))
    #expect(Set(queue.take(9).map(\.user)) == [1, 2])
  }

  @Test func `no user is lost or done twice over any order of offers and takes`() {
    var random = SeededRandom(seed: 7)
    var queue = ComputeQueue(limit: 50)
    var newest: [UInt64: Milliseconds] = [:]
    for step in 1...20_000 as ClosedRange<Int64> {
      if Bool.random(using: &random) {
        let user = UInt64.random(in: 0..<40, using: &random)
        queue.offer(Fixture.request(user, at: step))
        newest[user] = step
      } else {
        for request in queue.take(Int.random(in: 0...3, using: &random)) {
          #expect(newest.removeValue(forKey: request.user) == request.eventTime)
          queue.finish([request.user])
        }
      }
      if queue.count != newest.count { Issue.record("\(queue.count) wait, not \(newest.count)") }
    }
    #expect(queue.counters.dropped == 0)
  }
}

@Suite("Shift between versions") struct SnapshotShiftTests {
  @Test func `cosine and ratio are what they say`() {
    let shift = SnapshotShift(old: [1, 0, 0, 2], new: [0, 1, 0, 3], width: 2)
    #expect(abs(shift.meanCosine - 0.5) < 1e-9)
    #expect(abs(shift.l2Ratio - (2.0.squareRoot() + 0.5) / 2) < 1e-9)
    #expect(SnapshotShift(old: [0, 0], new: [0, 0], width: 2).meanCosine == 1)
  }

  @Test func `a version that moves users too far is held until one is near again`() {
    var gate = SnapshotGate(width: 2, holdAbove: 0.1)
    var admitted = [(1, []), (2, [1, 0]), (3, [0, 1, 5, 5])].map { gate.admit(version: $0, vectors: $1) }
    #expect(admitted == [true, true, false])
    #expect(gate.heldVersion == 3 && gate.acceptedVersion == 2 && gate.heldCount == 1)
    admitted = [gate.admit(version: 4, vectors: [1, 0.1, 5, 5])]
    #expect(admitted == [true])
    #expect(gate.heldVersion == nil && gate.acceptedVersion == 4)
    var open = SnapshotGate(width: 2, holdAbove: nil)
    admitted = [(1, [1, 0]), (2, [-1, 0])].map { open.admit(version: $0, vectors: $1) }
    #expect(admitted == [true, true])
    #expect(open.shift?.meanCosine == -1)
  }
}
