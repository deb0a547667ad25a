// When a client sends what: within the shard's credits, again when an answer is overdue, a ping when all is quiet, and
// with growing pauses while a shard does not answer.

internal import Base
internal import Wire

extension ShardClient {
  /// Sends a request as soon as the shard's credits allow it, in order.
  mutating func send(_ message: Blob, to shard: Int) {
    let limit = peers[shard].credits.byteLimit
    guard message.count <= limit else {
      failure = .mismatch(
        shard: shard, "a request of \(message.count) bytes is above its limit of \(limit); make batches smaller")
      return
    }
    if let message = peers[shard].credits.submit(message) { outgoing.append((shard, message)) }
  }

  /// Notes that a shard answered a request; what waited for that goes out.
  mutating func heard(from shard: Int, request: UInt64, wentWell: Bool, now: Int64) {
    peers[shard].heardAt = now
    if wentWell { peers[shard].attempts = 0 }
    peers[shard].credits.answered(request)
    while let message = peers[shard].credits.next() { outgoing.append((shard, message)) }
  }

  /// Sends again what is overdue.
  public mutating func tick(now: Int64) {
    guard failure == nil else { return }
    for shard in peers.indices {
      let peer = peers[shard]
      if peer.isSynchronizing {
        if now - peer.helloAt > peer.pause { sayHello(to: shard, now: now) }
        continue
      }
      if let pingAt = peer.pingAt {
        if now - pingAt > retryAfter { synchronize(shard, now: now) }
      } else if now - peer.heardAt > heartbeatEvery {
        peers[shard].pingAt = now
        outgoing.append((shard, PlainMessage.empty(.ping, request: request())))
      }
      let push = peer.pushes.oldestUnapplied
      let pull = pulls.values.filter { $0.requests[shard] != nil && $0.replies[shard] == nil }.map { $0.sentAt[shard] }
        .min()
      if let oldest = [push, pull].compactMap({ $0 }).min(), now - oldest > retryAfter {
        synchronize(shard, now: now)
      }
      // The news that a push is durable can be lost, and a shard that came back may lack what it had acknowledged as
      // applied. On a chain that has fallen silent nothing else would ever tell.
      if let kept = peer.pushes.oldestApplied, now - max(kept, peer.helloAt) > 4 * retryAfter {
        synchronize(shard, now: now)
      }
      if peer.claimed.count < chains.count, now - peer.claimAt > retryAfter { synchronize(shard, now: now) }
    }
  }

  /// Finds out where a shard stands; nothing else is sent to it until it has answered.
  /// - Parameter afterPause: the shard is there and refused: it is not asked again at once.
  mutating func synchronize(_ shard: Int, now: Int64, afterPause: Bool = false) {
    guard !peers[shard].isSynchronizing else { return }
    peers[shard].isSynchronizing = true
    peers[shard].pingAt = nil
    peers[shard].credits.reset()
    resynchronizations += 1
    guard afterPause else { return sayHello(to: shard, now: now) }
    peers[shard].helloAt = now
    lengthenPause(of: shard)
  }

  /// Doubles the pause before the next hello, from an eighth of the patience to twice of it, less up to a half at random:
  /// many clients do not come back in step.
  private mutating func lengthenPause(of shard: Int) {
    let longest = (retryAfter / 8) << Int64(min(peers[shard].attempts, 4))
    peers[shard].pause = longest / 2 + Int64(random.uniform() * Double(longest / 2))
    peers[shard].attempts += 1
  }

  mutating func sayHello(to shard: Int, now: Int64) {
    peers[shard].helloAt = now
    lengthenPause(of: shard)
    outgoing.append((shard, Hello(role: .trainer, chains: chains).encoded(request: request())))
  }

  mutating func claimAll(now: Int64) {
    guard peers.allSatisfy({ $0.welcome != nil }) else { return }
    if generation == 0 {
      for shard in peers.indices {
        for state in peers[shard].welcome?.chains ?? [] { raise(above: state.ownership.generation, of: shard) }
      }
      generation = max(generation, 1)
    }
    guard failure == nil else { return }
    for shard in peers.indices where !peers[shard].isSynchronizing { sendClaims(to: shard, now: now) }
  }

  mutating func raise(above known: UInt64, of shard: Int) {
    guard known < Ownership.generationLimit else {
      failure = .mismatch(shard: shard, "generation \(known) owns a partition, which nobody can claim above")
      return
    }
    generation = max(generation, known + 1)
  }

  mutating func sendClaims(to shard: Int, now: Int64) {
    peers[shard].claimAt = now
    for chain in chains where !peers[shard].claimed.contains(chain) {
      send(Claim(chain: chain, ownership: ownership).encoded(request: request()), to: shard)
    }
  }
}
