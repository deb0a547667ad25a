// The bad network: a thread between processes that cuts, stalls and harms what passes, link by link. Unix sockets only, so
// nothing leaves the machine.

import Base
import Glibc
import Synchronization

/// Forwards connections from one socket to another, and harms them when told to.
final class Proxy: Sendable {
  /// What happens to a link, by its number; times are monotonic nanoseconds.
  enum Order: Sendable {
    /// Its connections end, and new ones are refused until a time.
    case cut(Int, until: Int64)
    /// Nothing moves until a time.
    case stall(Int, until: Int64)
    /// A share of the messages vanishes until a time, in both directions.
    case lose(Int, share: Double, until: Int64)
    /// A share of the messages is harmed in all ways until a time, in both directions.
    case harm(Int, share: Double, until: Int64)
  }

  /// Where a link listens and where it leads; paths of sockets.
  struct Link: Sendable {
    var path: String
    var target: String
  }

  private let orders = Mailbox<Order>(bound: 1024)
  private let thread: OwnedThread
  private let results: Mailbox<Int>
  private let counts: HarmCounts

  init(_ links: [Link], seed: UInt64) throws {
    let listeners = try links.map { try Sockets.listen(at: $0.path) }
    let (orders, results) = (orders, Mailbox<Int>(bound: 1))
    self.results = results
    let counts = HarmCounts()
    self.counts = counts
    thread = OwnedThread(named: "proxy") {
      var loop = ProxyLoop(links: links, listeners: listeners, seed: seed, counts: counts)
      while !orders.isClosed { loop.turn(orders) }
      loop.end()
      _ = results.offer(loop.lost)
    }
  }

  /// How many messages were harmed by `Order.harm` so far, by kind.
  var harmed: [String: Int] { counts.values.withLock { $0 } }

  func send(_ order: Order) { _ = orders.offer(order) }

  /// Ends all connections; gives how many messages were lost on the way.
  func stop() -> Int {
    orders.close()
    thread.join()
    return results.takeAll().first ?? 0
  }
}

/// What the proxy's thread tells its owner while it works.
private final class HarmCounts: Sendable {
  let values = Mutex<[String: Int]>([:])
}

/// The proxy's thread.
private struct ProxyLoop {
  private struct Side {
    var descriptor: Int32
    var filter = FrameFilter()
    /// What is to be written to the other side.
    var passed: [UInt8] = []
    /// Nothing more comes; what came is still delivered, as the kernel would: a dead owner's last push arrives late.
    var hasEnded = false
  }

  private struct Connection {
    var link: Int
    var sides: [Side]
    var isOver = false
  }

  private let links: [Proxy.Link]
  private let listeners: [Int32]
  private var refused: [Int64]
  private var stalled: [Int64]
  private var lossy: [(share: Double, until: Int64)]
  private var harmful: [(share: Double, until: Int64)]
  private let counts: HarmCounts
  private var connections: [Connection] = []
  private var random: SeededRandom
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)
  private(set) var lost = 0

  /// So much may wait to be written before no more is read.
  private static let queueBytes = 4 << 20

  init(links: [Proxy.Link], listeners: [Int32], seed: UInt64, counts: HarmCounts) {
    self.links = links
    self.listeners = listeners
    random = SeededRandom(seed: seed)
    refused = links.map { _ in 0 }
    stalled = refused
    lossy = links.map { _ in (0, 0) }
    harmful = lossy
    self.counts = counts
  }

  /// Waits for something to do, at most 20 ms, and does it.
  mutating func turn(_ orders: Mailbox<Proxy.Order>) {
    let now = Clocks.monotonic()
    var polled = listeners.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    polled.append(pollfd(fd: orders.descriptor, events: Int16(POLLIN), revents: 0))
    for connection in connections {
      let isStalled = stalled[connection.link] > now
      for side in 0...1 {
        var events = Int16(0)
        let own = connection.sides[side]
        if own.passed.count < Self.queueBytes, !own.hasEnded { events |= Int16(POLLIN) }
        if !connection.sides[1 - side].passed.isEmpty { events |= Int16(POLLOUT) }
        polled.append(pollfd(fd: isStalled || events == 0 ? -1 : own.descriptor, events: events, revents: 0))
      }
    }
    poll(&polled, nfds_t(polled.count), 20)
    let first = listeners.count + 1
    for index in connections.indices {
      for side in 0...1 where polled[first + 2 * index + side].revents != 0 {
        work(index, side: side, polled[first + 2 * index + side].revents)
      }
    }
    for order in orders.takeAll() { obey(order) }
    for link in listeners.indices where polled[link].revents != 0 { accept(link) }
    for connection in connections where connection.isOver { close(connection) }
    connections.removeAll { $0.isOver }
  }

  mutating func end() {
    for connection in connections { close(connection) }
    for listener in listeners { Glibc.close(listener) }
  }

  private mutating func close(_ connection: Connection) {
    for side in connection.sides {
      lost += side.filter.lost
      Glibc.close(side.descriptor)
    }
  }

  private mutating func obey(_ order: Proxy.Order) {
    switch order {
    case .cut(let link, let until):
      refused[link] = until
      for index in connections.indices where connections[index].link == link { connections[index].isOver = true }
    case .stall(let link, let until): stalled[link] = until
    case .lose(let link, let share, let until): lossy[link] = (share, until)
    case .harm(let link, let share, let until): harmful[link] = (share, until)
    }
  }

  private mutating func accept(_ link: Int) {
    let client = Glibc.accept(listeners[link], nil, nil)
    guard client >= 0 else { return }
    _ = fcntl(client, F_SETFL, O_NONBLOCK)
    _ = fcntl(client, F_SETFD, FD_CLOEXEC)
    guard refused[link] < Clocks.monotonic(), let server = Sockets.connect(to: links[link].target) else {
      Glibc.close(client)
      return
    }
    connections.append(Connection(link: link, sides: [Side(descriptor: client), Side(descriptor: server)]))
  }

  private mutating func work(_ index: Int, side: Int, _ events: Int16) {
    let link = connections[index].link
    let now = Clocks.monotonic()
    let lossShare = lossy[link].until > now ? lossy[link].share : 0
    let harmShare = harmful[link].until > now ? harmful[link].share : 0
    if events & Int16(POLLOUT) != 0 { write(index, to: side) }
    guard events & Int16(POLLIN | POLLHUP | POLLERR) != 0, !connections[index].isOver,
      !connections[index].sides[side].hasEnded
    else { return }
    let got = read(connections[index].sides[side].descriptor, &buffer, buffer.count)
    guard got > 0 else {
      if got == 0 || (errno != EAGAIN && errno != EINTR) {
        connections[index].sides[side].hasEnded = true
        connections[index].isOver = connections[index].sides[side].passed.isEmpty
      }
      return
    }
    let passed = connections[index].sides[side].filter.pass(buffer[0..<got]) {
      if random.uniform() < lossShare { return .lose }
      guard random.uniform() < harmShare else { return nil }
      let harm = Harm.any(using: &random)
      counts.values.withLock { $0[harm.name, default: 0] += 1 }
      return harm
    }
    connections[index].sides[side].passed += passed
    if connections[index].sides[side].filter.isCut { connections[index].sides[side].hasEnded = true }
    write(index, to: 1 - side)
  }

  /// Writes what waits for a side.
  private mutating func write(_ index: Int, to side: Int) {
    let count = connections[index].sides[1 - side].passed.count
    guard count > 0 else { return }
    let descriptor = connections[index].sides[side].descriptor
    let wrote = connections[index].sides[1 - side].passed.withUnsafeBytes {
      Glibc.send(descriptor, $0.baseAddress, count, Int32(MSG_NOSIGNAL))
    }
    if wrote > 0 {
      connections[index].sides[1 - side].passed.removeFirst(wrote)
      let source = connections[index].sides[1 - side]
      connections[index].isOver = source.hasEnded && source.passed.isEmpty
    } else if errno != EAGAIN && errno != EINTR {
      connections[index].isOver = true
    }
  }
}

/// Unix sockets.
enum Sockets {
  static func listen(at path: String) throws -> Int32 {
    unlink(path)
    let descriptor = make()
    guard descriptor >= 0, withAddress(path, { Glibc.bind(descriptor, $0, $1) }) == 0,
      Glibc.listen(descriptor, 64) == 0
    else { throw FileError(errno, "listen at \(path)") }
    return descriptor
  }

  /// A connection to a socket; nil when nobody serves there.
  static func connect(to path: String) -> Int32? {
    let descriptor = make()
    guard descriptor >= 0 else { return nil }
    if withAddress(path, { Glibc.connect(descriptor, $0, $1) }) == 0 { return descriptor }
    close(descriptor)
    return nil
  }

  private static func make() -> Int32 {
    socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
  }

  private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    precondition(bytes.count < MemoryLayout.size(ofValue: address.sun_path), "\(path) is too long for a socket")
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }
}
