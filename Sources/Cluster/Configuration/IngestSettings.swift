// How events come in, over HTTP and ZeroMQ.

/// `ingest`: the process that takes events, over HTTP and ZeroMQ, when it has a port.
public struct IngestSettings: Sendable, Equatable, Settings {
  /// The port it listens at; nil when events come another way.
  ///
  /// Default none: no such process is started.
  public var port: Int?
  /// Where it listens.
  ///
  /// Default 127.0.0.1. It asks for no password: let other addresses be reached by those only who may send events.
  public var host = "127.0.0.1"
  /// The port it takes events at over ZeroMQ too; nil for HTTP alone.
  ///
  /// Default none. On addresses other than loopback it needs keys (docs/security.md).
  public var zeromqPort: Int?
  /// The most bytes of a request.
  ///
  /// Default 8MiB.
  public var bodyBytes = 8 << 20
  /// How long an event is remembered, running time, so that a repetition is not taken again.
  ///
  /// Default 10m.
  public var window: Duration = .seconds(600)
  /// How far an event may be ahead of the clock before it is refused.
  ///
  /// Default 5m.
  public var allowedSkew: Duration = .seconds(300)
  /// How many bytes of refused events are set aside for people to look at.
  ///
  /// Default 64MiB; what does not fit is only counted.
  public var rejectedBytes = 64 << 20

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("port", &port, Scalar<Int>.integer(1...65_535).orWord("none"))
    section.value("host", &host, .host)
    section.value("zeromqPort", &zeromqPort, Scalar<Int>.integer(1...65_535).orWord("none"))
    section.value("bodyBytes", &bodyBytes, .size(1 << 10...1 << 30))
    section.value("window", &window, .duration(.zero ... .seconds(86_400)))
    section.value("allowedSkew", &allowedSkew, .duration(.zero ... .seconds(86_400)))
    section.value("rejectedBytes", &rejectedBytes, .size(0...1 << 40))
  }
}
