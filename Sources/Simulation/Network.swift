// The simulated network. A client has one connection at a time to each server. What one side sends on a connection arrives
// in order or not at all; a cut loses the end of what was on its way, and what still arrives of the old connection may come
// after the first messages of the new one, as with sockets that a server reads in turn. Nobody answers an old connection.
//
// Each link draws from a random sequence of its own, so that the order in which a core sends to several peers does not
// change what happens to their messages.

internal import Base
internal import Wire

/// Who takes part.
enum Node: Hashable {
  case shard(Int)
  case sync
  /// A trainer's process; every restart is a new one.
  case trainer(Int)
  /// A replica's process; every restart is a new one.
  case replica(Int)
}

/// A client's connections to one server, one after the other.
final class Link {
  let client: Node
  let server: Node
  var connection = 0
  var isClosed = false
  /// No message passes before this time; the client is connecting.
  var downUntil: Int64 = longAgo
  /// The client does not read or write: its process stands still.
  var isFrozen = false
  var random: SeededRandom
  var lastToServer: Int64 = longAgo
  var lastToClient: Int64 = longAgo
  var sent: UInt64 = 0
  /// Per ended connection: the last message that still arrives.
  var lastArriving: [Int: UInt64] = [:]
  let number: Int

  init(client: Node, server: Node, number: Int, seed: UInt64) {
    self.client = client
    self.server = server
    self.number = number
    random = SeededRandom(seed: Hashing.mix(seed ^ Hashing.mix(UInt64(number) &+ 0x6c69_6e6b)))
  }

  func peer(_ connection: Int) -> PeerID {
    let name = UInt64(number) << 20 | UInt64(connection)
    return PeerID((0..<8).map { UInt8(truncatingIfNeeded: name >> (8 * $0)) })
  }
}

/// A message on its way.
struct Flight {
  var at: Int64
  var order: UInt64
  var link: Link
  var connection: Int
  var isToServer: Bool
  var number: UInt64
  var message: Blob
}

/// Everything on its way.
struct Network {
  let seed: UInt64
  /// The share of messages that are lost, delayed for long, or repeated on an old connection.
  var trouble = 0.0
  private(set) var links: [Link] = []
  private var heap: [Flight] = []
  private var order: UInt64 = 0
  private var byPeer: [PeerID: Link] = [:]
  private(set) var messages = 0

  init(seed: UInt64) { self.seed = seed }

  mutating func connect(_ client: Node, to server: Node) -> Link {
    let link = Link(client: client, server: server, number: links.count + 1, seed: seed)
    links.append(link)
    byPeer[link.peer(0)] = link
    return link
  }

  func openLinks(of node: Node) -> [Link] {
    links.filter { !$0.isClosed && ($0.client == node || $0.server == node) }
  }

  // MARK: Faults

  /// Ends a connection; of what the client sent, a part may still arrive.
  mutating func cut(_ link: Link, at now: Int64, losesAll: Bool = false) {
    let inFlight = heap.filter { $0.link === link && $0.isToServer && $0.connection == link.connection }.map(\.number)
    let first = inFlight.min() ?? link.sent
    let keep = losesAll || inFlight.isEmpty ? 0 : UInt64.random(in: 0...UInt64(inFlight.count), using: &link.random)
    link.lastArriving[link.connection] = keep == 0 ? 0 : first + keep - 1
    link.connection += 1
    link.downUntil = now + Int64.random(in: 1_000_000...80_000_000, using: &link.random)
    link.lastToServer = longAgo
    link.lastToClient = longAgo
    byPeer[link.peer(link.connection)] = link
  }

  /// The client's process ends.
  mutating func close(_ link: Link, at now: Int64) {
    cut(link, at: now)
    link.isClosed = true
  }

  // MARK: Messages

  mutating func send(_ message: Blob, on link: Link, now: Int64) {
    guard !link.isClosed else { return }
    messages += 1
    link.sent += 1
    let draw = link.random.uniform()
    let latency = delay(&link.random)
    // While it connects, a socket keeps some messages and drops others.
    guard draw >= trouble, now >= link.downUntil || draw < 0.7 else { return }
    let start = max(now, link.downUntil)
    link.lastToServer = max(link.lastToServer + 1, start + latency)
    put(message, link, toServer: true, connection: link.connection, at: link.lastToServer, number: link.sent)
    guard trouble > 0, draw > 1 - trouble else { return }
    // The same bytes again, later, from a connection nobody answers.
    let later = link.lastToServer + Int64.random(in: 1_000_000...300_000_000, using: &link.random)
    put(message, link, toServer: true, connection: -1, at: later, number: 0)
  }

  /// Sends to a client, if that connection is still there.
  mutating func reply(_ message: Blob, to peer: PeerID, now: Int64) {
    guard let link = byPeer[peer], !link.isClosed, link.peer(link.connection) == peer else { return }
    messages += 1
    let draw = link.random.uniform()
    let latency = delay(&link.random)
    guard draw >= trouble else { return }
    link.lastToClient = max(link.lastToClient + 1, now + latency)
    put(message, link, toServer: false, connection: link.connection, at: link.lastToClient, number: 0)
  }

  private func delay(_ random: inout SeededRandom) -> Int64 {
    let isLong = random.uniform() < 4 * trouble
    return Int64.random(in: isLong ? 20_000_000...400_000_000 : 100_000...2_000_000, using: &random)
  }

  private mutating func put(
    _ message: Blob, _ link: Link, toServer: Bool, connection: Int, at: Int64, number: UInt64
  ) {
    order += 1
    heap.append(
      Flight(
        at: at, order: UInt64(link.number) << 40 | order & (1 << 40 - 1), link: link, connection: connection,
        isToServer: toServer, number: number, message: message))
    var child = heap.count - 1
    while child > 0, Self.isBefore(heap[child], heap[(child - 1) / 2]) {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  /// The next message that arrives up to a time, in order of arrival.
  mutating func next(upTo now: Int64) -> Flight? {
    while let first = heap.first, first.at <= now {
      removeFirst()
      if first.isToServer {
        if let last = first.link.lastArriving[first.connection], first.number > last { continue }
      } else {
        guard first.connection == first.link.connection, !first.link.isClosed else { continue }
      }
      return first
    }
    return nil
  }

  private mutating func removeFirst() {
    let last = heap.removeLast()
    guard !heap.isEmpty else { return }
    heap[0] = last
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2]
      where child < heap.count && Self.isBefore(heap[child], heap[least]) {
        least = child
      }
      if least == parent { return }
      heap.swapAt(parent, least)
      parent = least
    }
  }

  private static func isBefore(_ left: Flight, _ right: Flight) -> Bool {
    (left.at, left.order) < (right.at, right.order)
  }
}
