// What is looked at before anything is started, so that a cluster comes up whole or not at all.

internal import Glibc

/// Checks of the machine before a cluster is started on it.
public enum Preflight {
  /// Everything that would keep the cluster from coming up, each with what to do; empty when all is well.
  public static func problems(_ configuration: ClusterConfiguration, executable: String) -> [String] {
    var problems: [String] = []
    if unsafe access(executable, X_OK) != 0 {
      problems.append("\(executable) cannot be run; was it moved or rebuilt? Start guira again")
    }
    for port in Endpoints.ports(of: configuration) {
      if let fault = fault(host: port.host, port: port.port) {
        problems.append("port \(port.port) of \(port.host) (\(port.use)) \(fault); set \(port.key)")
      }
    }
    return problems
  }

  /// The path of the running program, also when it was started through a link.
  public static func ownExecutable() -> String {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = unsafe readlink("/proc/self/exe", &buffer, buffer.count - 1)
    guard count > 0 else { return CommandLine.arguments.first ?? "guira" }
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Why one cannot listen on a port; nil when one can.
  static func fault(host: String, port: Int) -> String? {
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = AI_PASSIVE
    var found: UnsafeMutablePointer<addrinfo>?
    let code = unsafe getaddrinfo(host, "\(port)", &hints, &found)
    guard code == 0, let address = unsafe found else {
      return unsafe "cannot be resolved: \(String(cString: gai_strerror(code)))"
    }
    defer { unsafe freeaddrinfo(address) }
    let descriptor = unsafe socket(address.pointee.ai_family, Int32(SOCK_STREAM.rawValue) | O_CLOEXEC, 0)
    guard descriptor >= 0 else { return unsafe "cannot be tried: \(String(cString: strerror(errno)))" }
    defer { close(descriptor) }
    var yes: Int32 = 1
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    guard unsafe bind(descriptor, address.pointee.ai_addr, address.pointee.ai_addrlen) != 0 else { return nil }
    switch errno {
    case EADDRINUSE: return "is in use; stop what listens there"
    case EACCES: return "is not allowed to this user; use one above 1023"
    case EADDRNOTAVAIL: return "is not an address of this machine"
    case let other: return unsafe "cannot be used: \(String(cString: strerror(other)))"
    }
  }
}
