import Base
import CKernels
import Testing

@testable import Embeddings

@Suite("Cuckoo index") struct CuckooIndexTests {
  @Test(arguments: [1, 2, 3] as [UInt64])
  func `finds what a dictionary holds while it grows and shrinks`(seed: UInt64) {
    var index = CuckooIndex(salt: seed)
    var model: [UInt64: UInt32] = [:]
    var present: [UInt64] = []
    var random = SeededRandom(seed: seed)
    var wrong = 0
    for phase in 0..<6 {
      for step in 0..<12_000 {
        let isInsert = UInt64.random(in: 0..<10, using: &random) < (phase % 2 == 0 ? 9 : 1)
        if isInsert || present.isEmpty {
          let id = step == 0 ? .max : step == 1 ? 0 : random.next()
          let value = UInt32(truncatingIfNeeded: random.next()) >> 1
          if model[id] != nil {
            index.replace(id, with: value)
          } else {
            wrong += index.insert(id, value: value) ? 0 : 1
            present.append(id)
          }
          model[id] = value
        } else {
          let id = present.remove(at: Int.random(in: present.indices, using: &random))
          if index.remove(id) != model.removeValue(forKey: id) { wrong += 1 }
        }
      }
      for (id, value) in model where index.find(id) != value { wrong += 1 }
      for _ in 0..<1000 where index.find(random.next()) != CuckooIndex.empty { wrong += 1 }
      let (used, load, lines) = (index.used, index.load, index.lines)
      #expect(wrong == 0)
      #expect(used == model.count)
      #expect(lines <= CuckooIndex.fewestLines || load > 0.35)
    }
    let load = index.lowestLoadAtGrowth
    #expect(load >= 0.9)
  }

  @Test func `the batched look-up agrees with the single one in the middle of growth`() {
    var index = CuckooIndex(salt: 5)
    let rows = RowStore(floatCount: 1, countsFrequency: false)
    var random = SeededRandom(seed: 5)
    var ids: [UInt64] = []
    for count in 0..<3000 {
      ids.append(random.next())
      // Values of waiting ids, so that there is no row to prefetch.
      _ = index.insert(ids[count], value: CuckooIndex.pending | UInt32(count))
      guard count % 97 == 0 else { continue }
      let asked = ids + (0..<50).map { _ in random.next() }
      var values = [UInt32](repeating: 0, count: asked.count)
      guira_find(index.view, rows.view, asked, asked.count, &values)
      let expected = asked.map { index.find($0) }
      #expect(values == expected)
      var twin = [UInt32](repeating: 0, count: asked.count)
      var out: [Float] = [0]
      guira_gather_scalar(index.view, rows.view, asked, asked.count, 0, 0, &twin, &out)
      #expect(twin == expected)
    }
  }

  @Test func `ids made to collide are kept or refused, never lost`() {
    var index = CuckooIndex(salt: 0)
    var random = SeededRandom(seed: 9)
    // Ids whose two hash halves lie in the same small ranges share their lines at any size that fits in memory.
    var crafted: [UInt64] = []
    while crafted.count < 120 {
      let hash = (UInt64.random(in: 0..<64, using: &random) << 32) | UInt64.random(in: 0..<64, using: &random)
      crafted.append(unmix(hash))
    }
    crafted = Array(Set(crafted))
    var kept: [UInt64] = []
    for (place, id) in crafted.enumerated() where index.insert(id, value: UInt32(place)) { kept.append(id) }
    #expect(kept.count >= 64 && kept.count < crafted.count)
    var wrong = 0
    for id in kept where index.find(id) == CuckooIndex.empty { wrong += 1 }
    for _ in 0..<5000 where !index.insert(random.next(), value: 1) { wrong += 1 }
    for id in kept where index.remove(id) == CuckooIndex.empty { wrong += 1 }
    let lines = index.lines
    #expect(wrong == 0)
    #expect(lines < 2500, "a few crafted ids must not blow the index up")
  }

  /// The id whose hash with salt 0 this is.
  private func unmix(_ hash: UInt64) -> UInt64 {
    func unshift(_ word: UInt64, _ by: UInt64) -> UInt64 {
      var result = word
      for _ in 0..<64 / by { result = word ^ (result >> by) }
      return result
    }
    func inverse(_ odd: UInt64) -> UInt64 {
      var x = odd
      for _ in 0..<6 { x = x &* (2 &- odd &* x) }
      return x
    }
    var z = unshift(hash, 31)
    z = unshift(z &* inverse(0x94D0_49BB_1331_11EB), 27)
    return unshift(z &* inverse(0xBF58_476D_1CE4_E5B9), 30)
  }
}
