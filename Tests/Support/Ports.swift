// Ports for servers that tests start. Each is given once in a process, and none that the kernel gives to connections, so
// neither another test nor an outgoing connection takes one before its server listens.

import Base
import Glibc
import Synchronization

/// Ports on loopback.
public enum Ports {
  /// Below the range of ports that connections get (32768 and up unless set otherwise).
  private static let range = 10_000..<32_000
  /// Processes that run tests at the same time begin at different places.
  private static let next = Mutex(Int.random(in: range))

  /// A port that nobody listens at, with `count - 1` such ports behind it.
  public static func free(_ count: Int = 1) throws -> Int {
    try next.withLock { next in
      for _ in 0..<range.count {
        if next + count > range.upperBound { next = range.lowerBound }
        let port = next
        next += count
        if (port..<port + count).allSatisfy(canListen) { return port }
      }
      throw FileError(EADDRINUSE, "find \(count) free ports")
    }
  }

  private static func canListen(_ port: Int) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(port).bigEndian)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    } == 0
  }
}
