// User embeddings from the platform, for applications (docs/protocol.md, "User embeddings").

public import Base

/// Asks for the embeddings of some users, with their features or without.
public struct EmbedRequest: Sendable {
  /// The most users one request may name.
  public static let userLimit = 16_384
  /// The most bytes of features one user may have.
  public static let featureLimit = 1 << 20
  /// The most downstream models one request may name.
  public static let modelLimit = 4096

  /// The upstream model.
  public var model: String
  /// Embeddings per user that the asking model reads; 0 for what the model gives.
  public var count: Int
  /// Numbers in each; 0 for what the model gives.
  public var dimension: Int
  /// How the embeddings are to travel.
  public var numbers: NumberType
  /// The event time of the newest thing the features tell of.
  public var eventTime: Milliseconds
  /// The users; they may repeat.
  public var users: View<UInt64>
  /// By user the bytes of a feature block; empty when the request has none.
  public var features: [[UInt8]]
  /// The downstream models that will read the answer; empty for none in particular.
  public var models: [String]

  /// The whole message.
  public static func encoded(
    model: String, users: [UInt64], count: Int = 0, dimension: Int = 0, numbers: NumberType = .float32,
    eventTime: Milliseconds = 0, features: [[UInt8]] = [], for models: [String] = [], request: UInt64
  ) -> Blob {
    var writer = ByteWriter(capacity: 96 + 8 * users.count)
    MessageHeader(.embed, request: request).encode(into: &writer)
    writer.append(UInt32(numbers.rawValue))
    writer.append(UInt32(users.count))
    writer.append(UInt32(count))
    writer.append(UInt32(dimension))
    writer.append(eventTime)
    writer.append(UInt32(features.count))
    writer.append(string: model)
    writer.align()
    writer.append(array: users)
    for block in features {
      writer.append(UInt32(block.count))
      writer.append(bytes: block)
    }
    // Who does not name any sends what was sent before there were names.
    if !models.isEmpty {
      writer.append(UInt32(models.count))
      for model in models { writer.append(string: model) }
    }
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    numbers = try NumberType(wire: reader.read())
    let userCount = try reader.count("users", limit: Self.userLimit)
    count = try reader.count("embeddings", limit: 1 << 16)
    dimension = try reader.count("numbers in an embedding", limit: 1 << 16)
    eventTime = try reader.read()
    let blocks = try reader.count("feature blocks", limit: Self.userLimit)
    guard blocks == 0 || blocks == userCount else {
      throw .invalid(field: "feature blocks", value: "\(blocks)", expected: "0 or \(userCount)")
    }
    model = try reader.string()
    try reader.align()
    users = try reader.view(count: userCount)
    features = []
    for _ in 0..<blocks {
      let bytes = try reader.count("bytes of features", limit: Self.featureLimit)
      features.append(try reader.view(UInt8.self, count: bytes).array)
    }
    models = []
    if reader.remaining > 0 {
      for _ in 0..<(try reader.count("models", limit: Self.modelLimit)) { models.append(try reader.string()) }
    }
    try reader.expectEnd()
  }
}

/// The embeddings of some users.
public struct EmbedReply: Sendable {
  /// What is known of one user's vector beside its numbers.
  public struct Origin: BitwiseCopyable, Sendable, Equatable {
    /// The version of the newest entry; 0 for the default.
    public var version: UInt64
    /// The event time of the newest entry; 0 for the default.
    public var eventTime: Milliseconds
    /// Milliseconds since the newest entry was made.
    public var age: Milliseconds
    /// 0 default, 1 stored, 2 current.
    public var source: UInt32
    /// How many entries were averaged.
    public var pooled: UInt32

    /// An origin from its parts.
    public init(version: UInt64, eventTime: Milliseconds, age: Milliseconds, source: UInt32, pooled: UInt32) {
      self.version = version
      self.eventTime = eventTime
      self.age = age
      self.source = source
      self.pooled = pooled
    }
  }

  /// The most bytes of embeddings one answer may have.
  public static let byteLimit = 64 << 20

  /// Embeddings per user.
  public var count: Int
  /// Numbers in each.
  public var dimension: Int
  /// By user.
  public var origins: View<Origin>
  /// `[users × count × dimension]`.
  public var values: View<Float>

  /// The whole message; `fill` writes each user's numbers.
  public static func encoded(
    request: UInt64, count: Int, dimension: Int, numbers: NumberType, origins: [Origin],
    fill: (inout MutableSpan<Float>) -> Void
  ) -> Blob {
    let total = origins.count * count * dimension
    var writer = ByteWriter(capacity: 64 + origins.count * 32 + total * 4)
    MessageHeader(.embed, .reply, request: request).encode(into: &writer)
    writer.append(UInt32(origins.count))
    writer.append(UInt32(count))
    writer.append(UInt32(dimension))
    writer.append(UInt32(numbers.rawValue))
    writer.append(array: origins)
    writer.append(numbers: numbers, count: total, fill: fill)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    let users = try reader.count("users", limit: EmbedRequest.userLimit)
    count = try reader.count("embeddings", limit: 1 << 16)
    dimension = try reader.count("numbers in an embedding", limit: 1 << 16)
    let numbers = try NumberType(wire: reader.read())
    origins = try reader.view(count: users)
    let (width, overflow) = (count * dimension).multipliedReportingOverflow(by: users)
    guard !overflow else {
      throw .invalid(field: "numbers", value: "\(users) × \(count * dimension)", expected: "fewer")
    }
    values = try reader.numbers(numbers, count: width)
    try reader.expectEnd()
  }
}
