// What the ingest takes, and how much of it; every limit is answered with a status of its own (docs/events.md, "Over HTTP").

public import Base
public import Hosting
public import Streams
public import Wire

/// How events come in.
public struct IngestOptions: Sendable {
  /// What events look like.
  public var schema: EventSchema
  /// How many partitions impressions have, and actions too.
  public var partitions = 1
  /// Where it listens, and its limits.
  public var http: HTTPHostOptions
  /// Where it takes events over ZeroMQ too, as in `tcp://127.0.0.1:8301`; nil for nowhere.
  public var endpoint: String?
  /// Its key and the allow-list, for that endpoint; nil when it asks for none.
  public var security: LinkSecurity?
  /// The most bytes of a request's body.
  ///
  /// Default 8 MiB.
  public var bodyByteLimit = 8 << 20
  /// The most events of a request.
  ///
  /// Default 10,000.
  public var eventLimit = 10_000
  /// The most requests whose events wait to be written; further ones are answered 429.
  ///
  /// Default 256.
  public var waitingLimit = 256
  /// How long an event is remembered, running time, so that it is not taken twice.
  ///
  /// Default 10 minutes.
  public var window = Duration.seconds(600)
  /// The most events that are remembered; the oldest are forgotten first.
  ///
  /// Default 4 million, about 32 bytes each.
  public var rememberedLimit = 4_000_000
  /// How far an event may be ahead of this machine's clock; one that is further ahead is refused.
  ///
  /// Default 5 minutes.
  public var allowedSkew = Duration.seconds(300)
  /// How far watermarks stay behind the newest event.
  public var latenessMilliseconds: Int64 = 0
  /// The longest time between watermarks while events come.
  ///
  /// Default 100 ms; ten times as long while none comes.
  public var watermarkInterval = Duration.milliseconds(100)
  /// What clients are told to wait when they are refused for a while.
  ///
  /// Default 1 s.
  public var retryAfter = Duration.seconds(1)

  /// An ingest for events of a schema, everything else by default.
  public init(schema: EventSchema, port: Int) {
    self.schema = schema
    http = HTTPHostOptions(port: port)
    http.grace = .seconds(2)  // a request waits for a sync of the journal
  }
}

/// What an ingest has done.
public struct IngestCounters: Equatable, Sendable {
  /// Impressions in the journal.
  public var impressions: UInt64 = 0
  /// Actions in the journal.
  public var actions: UInt64 = 0
  /// Events that had been taken before.
  public var repeated: UInt64 = 0
  /// Events that were refused, by reason (docs/events.md, "What is refused").
  public var refused: [String: UInt64] = [:]
  /// Refused lines that were not set aside, as the file for them was full.
  public var notSetAside: UInt64 = 0
  /// Requests answered, by status.
  public var answers: [Int: UInt64] = [:]
  /// Syncs of the journals.
  public var syncs: UInt64 = 0
  /// The newest event time.
  public var newestTime: Milliseconds = 0
  /// The newest watermark.
  public var watermark: Milliseconds = 0

  /// Nothing yet.
  public init() {}

  /// All refused events.
  public var allRefused: UInt64 { refused.reduce(0) { $0 + $1.value } }
}
