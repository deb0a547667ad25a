// Rows and gradients as float16, against a real shard.

import Base
import Testing
import Wire

@testable import Sharding

@Suite("Halves on a shard") struct HalvesTests {
  private func claimed() -> ShardFixture {
    let shard = ShardFixture()
    shard.claim()
    return shard
  }

  private func rows(_ shard: ShardFixture, _ numbers: NumberType) throws -> [Float] {
    let answer = try #require(shard.send(ShardFixture.pull(dense: true, numbers: numbers)).first)
    var reader = ByteReader(answer)
    _ = try MessageHeader(decoding: &reader)
    let reply = try PullReply(decoding: &reader)
    #expect(reply.tensors[0].values.array == [0, 0])
    return reply.rows[0].array
  }

  @Test func `a pull as halves answers the rounded weights`() throws {
    let shard = claimed()
    shard.send(ShardFixture.push(.init(gradient: 0.123)))
    let whole = try rows(shard, .float32)
    #expect(try rows(shard, .float16) == whole.map { Float(Float16($0)) })
    #expect(whole != whole.map { Float(Float16($0)) })
  }

  @Test func `a push as halves steps by the rounded gradients`() throws {
    let (halves, floats) = (claimed(), claimed())
    halves.send(ShardFixture.push(.init(gradient: 0.123, numbers: .float16)))
    floats.send(ShardFixture.push(.init(gradient: Float(Float16(0.123)))))
    #expect(halves.state == floats.state)
  }

  @Test func `a gradient that no half can hold is refused and counted`() throws {
    let shard = claimed()
    shard.send(ShardFixture.push(.init()))
    let before = try rows(shard, .float32)
    shard.send(ShardFixture.push(.init(from: 10, to: 20, gradient: 70_000, numbers: .float16)))
    #expect(try rows(shard, .float32) == before)
    #expect(shard.core.status().counters["rejectedNonFinite"] == 3)
    #expect(shard.core.status().chains.first?.applied == 20)
  }

  @Test func `a type that is not known is a mismatch, named`() {
    let shard = claimed()
    let text = "data type is 9; expected 0 (float32) or 1 (float16)"
    var pull = ShardFixture.pull().array
    pull[16 + 22] = 9
    #expect(shard.refusal(Blob(pull)) == ErrorReply(.mismatch, "pull: \(text)"))
    var push = ShardFixture.push(.init()).array
    push[16 + 96 + 8 + 12] = 9
    #expect(shard.refusal(Blob(push)) == ErrorReply(.mismatch, "push: \(text)"))
  }
}
