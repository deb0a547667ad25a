// What a client knows of one shard: where it stands, what was pushed to it, and how much may be unanswered.

internal import Base
internal import Wire

/// One shard as its client sees it.
struct ShardPeer {
  var welcome: Welcome?
  var incarnation: UInt64 = 0
  var credits = Credits()
  var helloAt: Int64 = longAgo
  /// When the shard was last heard of, or was last asked whether it lives.
  var heardAt: Int64 = longAgo
  /// When a ping was sent that is not answered yet.
  var pingAt: Int64?
  /// Troubles since the last request that went well: each doubles the pause before the next hello.
  var attempts = 0
  var pause: Int64 = 0
  var isSynchronizing = true
  var pushes = KeptPushes()
  var durable: [ChainKey: Position] = [:]
  var applied: [ChainKey: Position] = [:]
  var claimed: Set<ChainKey> = []
  var claimAt: Int64 = longAgo
}

/// How much a client may have unanswered at one shard, and what waits for that.
///
/// `hello` and `ping` are not counted: they find out what became of the rest.
struct Credits {
  /// The most requests; the shard's welcome says it.
  var requestLimit = Int.max
  /// The most bytes.
  var byteLimit = Int.max
  private(set) var bytes = 0
  private var unanswered: [UInt64: Int] = [:]
  private var waiting: [Blob] = []
  private var firstWaiting = 0

  /// How many requests are unanswered.
  var count: Int { unanswered.count }

  /// The request number of a message.
  private static func number(of message: Blob) -> UInt64 {
    unsafe message.bytes.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self)
  }

  private func hasRoom(for message: Blob) -> Bool {
    unanswered.isEmpty || (unanswered.count < requestLimit && bytes <= byteLimit - message.count)
  }

  /// Takes a request; gives it back when it may be sent now, else keeps it for `next`.
  mutating func submit(_ message: Blob) -> Blob? {
    guard firstWaiting == waiting.count, hasRoom(for: message) else {
      waiting.append(message)
      return nil
    }
    note(message)
    return message
  }

  private mutating func note(_ message: Blob) {
    bytes += message.count - (unanswered.updateValue(message.count, forKey: Self.number(of: message)) ?? 0)
  }

  /// A request was answered.
  mutating func answered(_ request: UInt64) {
    bytes -= unanswered.removeValue(forKey: request) ?? 0
  }

  /// The next request that waited and may be sent now, in order.
  mutating func next() -> Blob? {
    guard firstWaiting < waiting.count, hasRoom(for: waiting[firstWaiting]) else { return nil }
    let message = waiting[firstWaiting]
    firstWaiting += 1
    if firstWaiting == waiting.count {
      waiting.removeAll(keepingCapacity: true)
      firstWaiting = 0
    }
    note(message)
    return message
  }

  /// Forgets all requests: they were read or lost, and are sent anew.
  mutating func reset() {
    unanswered = [:]
    bytes = 0
    waiting = []
    firstWaiting = 0
  }
}
