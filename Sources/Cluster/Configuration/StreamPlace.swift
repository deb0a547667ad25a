// Where a stream lives, as one word of the configuration: `journal`, or the address of a server and a name there.

/// What carries a stream.
public enum StreamPlace: Equatable, Sendable {
  /// Journals below the state directory.
  case journal
  /// Redis Streams whose keys begin with a prefix.
  case redis(host: String, port: Int, prefix: String)
  /// A Kafka topic; the brokers are `host:port`, with commas between.
  case kafka(brokers: String, topic: String)

  /// As the configuration writes it.
  var text: String {
    switch self {
    case .journal: "journal"
    case .redis(let host, let port, let prefix): "redis://\(host):\(port)/\(prefix)"
    case .kafka(let brokers, let topic): "kafka://\(brokers)/\(topic)"
    }
  }
}

extension Scalar where Value == StreamPlace {
  /// `journal`, `redis://host:port/prefix`, or `kafka://host:port,host:port/topic`.
  static var streamPlace: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> StreamPlace in
        if text == "journal" { return .journal }
        let refusal = Refusal(
          fault: "is '\(text.prefix(80))'", advice: "use journal, redis://host:port/prefix or kafka://host:port/topic")
        guard let end = text.range(of: "://") else { throw refusal }
        let rest = text[end.upperBound...]
        guard let slash = rest.firstIndex(of: "/") else { throw refusal }
        let name = try Scalar<String>.name.read(String(rest[rest.index(after: slash)...]))
        switch text[..<end.lowerBound] {
        case "redis":
          let (host, port) = try address(rest[..<slash], orElse: refusal)
          return .redis(host: host, port: port, prefix: name)
        case "kafka":
          let brokers = rest[..<slash].split(separator: ",", omittingEmptySubsequences: false)
          for broker in brokers { _ = try address(broker, orElse: refusal) }
          return .kafka(brokers: brokers.joined(separator: ","), topic: name)
        default: throw refusal
        }
      }, write: \.text)
  }

  private static func address(
    _ text: Substring, orElse refusal: Refusal
  ) throws(Refusal) -> (host: String, port: Int) {
    guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
      (1...65_535).contains(port)
    else { throw refusal }
    return (try Scalar<String>.host.read(String(text[..<colon])), port)
  }
}
