// Opening a conversation with a shard and taking a partition.

public import Base

/// What a client is; servers authorise opcodes by it (Authorization.swift).
public enum PeerRole: UInt16, Sendable, CaseIterable {
  /// Pulls and pushes.
  case trainer = 1
  /// Reads blocks and scans.
  case sync = 2
  /// Operators' commands and the supervisor: status, digest, forget.
  case `operator` = 3
  /// Follows versions.
  case replica = 4
  /// Serves; asks nothing but how others are.
  case shard = 5
  /// Looks rows up on replicas, and brings events.
  case application = 6
  /// Takes events in; asks nothing but how others are.
  case ingest = 7
}

/// Opens a conversation; also asks where the shard stands in some chains.
public struct Hello: Equatable, Sendable {
  /// The oldest protocol version the client reads.
  public var oldestVersion: UInt16 = WireProtocol.oldestVersion
  /// The newest it speaks.
  public var newestVersion: UInt16 = WireProtocol.version
  /// What the client is.
  public var role: PeerRole
  /// The chains whose state it wants.
  public var chains: [ChainKey]

  /// A hello of a role.
  public init(role: PeerRole, chains: [ChainKey] = []) {
    self.role = role
    self.chains = chains
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.hello, request: request).encode(into: &writer)
    writer.append(oldestVersion)
    writer.append(newestVersion)
    writer.append(role.rawValue)
    writer.append(UInt16(chains.count))
    writer.append(array: chains)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    oldestVersion = try reader.read()
    newestVersion = try reader.read()
    let raw = try reader.read(UInt16.self)
    guard let role = PeerRole(rawValue: raw) else {
      throw .invalid(field: "role", value: "\(raw)", expected: "1 trainer, 2 sync, 3 operator, 4 replica or 5 shard")
    }
    self.role = role
    let count = Int(try reader.read(UInt16.self))
    chains = try reader.view(ChainKey.self, count: count).array
    try reader.expectEnd()
  }
}

/// A table as the shard has it.
public struct TableShape: Hashable, Sendable {
  /// Its name.
  public var name: String
  /// Weights per row.
  public var weightCount: Int
  /// Weights and optimizer state per row, in floats.
  public var floatCount: Int

  /// A shape from its parts.
  public init(name: String, weightCount: Int, floatCount: Int) {
    self.name = name
    self.weightCount = weightCount
    self.floatCount = floatCount
  }
}

/// A dense tensor as the cluster has it.
public struct TensorShape: Hashable, Sendable {
  /// Its name.
  public var name: String
  /// How many numbers it holds.
  public var count: Int
  /// The shard that owns it.
  public var shard: Int

  /// A shape from its parts.
  public init(name: String, count: Int, shard: Int) {
    self.name = name
    self.count = count
    self.shard = shard
  }
}

/// The answer to `Hello`.
public struct Welcome: Equatable, Sendable {
  /// Which shard answers.
  public var shard: Int
  /// How many shards the cluster map has.
  public var shardCount: Int
  /// The number of the cluster map.
  public var mapNumber: UInt64
  /// Drawn at random when the shard's process started; a new one means the shard came back.
  public var incarnation: UInt64
  /// The identity of the shard's journal (DESIGN 3.3).
  public var identityHigh: UInt64
  /// Its lower half.
  public var identityLow: UInt64
  /// The epoch that is open.
  public var epoch: UInt64
  /// The last epoch whose block is synced.
  public var durableEpoch: UInt64
  /// The chains that were asked for.
  public var chains: [ChainState]
  /// All tables, in index order.
  public var tables: [TableShape]
  /// All dense tensors of the cluster, in index order.
  public var tensors: [TensorShape]
  /// The most requests the client may have unanswered here; 0 for any number.
  public var requestCredits: Int
  /// The most bytes of them, whole mebibytes; 0 for any number.
  public var byteCredits: Int

  /// A welcome from its parts.
  public init(
    shard: Int, shardCount: Int, mapNumber: UInt64, incarnation: UInt64, identityHigh: UInt64, identityLow: UInt64,
    epoch: UInt64, durableEpoch: UInt64, chains: [ChainState], tables: [TableShape], tensors: [TensorShape],
    requestCredits: Int = 0, byteCredits: Int = 0
  ) {
    self.shard = shard
    self.shardCount = shardCount
    self.mapNumber = mapNumber
    self.incarnation = incarnation
    self.identityHigh = identityHigh
    self.identityLow = identityLow
    self.epoch = epoch
    self.durableEpoch = durableEpoch
    self.chains = chains
    self.tables = tables
    self.tensors = tensors
    self.requestCredits = requestCredits
    self.byteCredits = byteCredits
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.hello, .reply, request: request).encode(into: &writer)
    writer.append(UInt32(shard))
    writer.append(UInt32(shardCount))
    writer.append(mapNumber)
    writer.append(incarnation)
    writer.append(identityHigh)
    writer.append(identityLow)
    writer.append(epoch)
    writer.append(durableEpoch)
    writer.append(UInt32(chains.count))
    writer.append(UInt32(tables.count))
    writer.append(UInt32(tensors.count))
    writer.append(UInt16(clamping: requestCredits))
    writer.append(UInt16(clamping: byteCredits >> 20))
    writer.append(array: chains)
    for table in tables {
      writer.append(UInt32(table.weightCount))
      writer.append(UInt32(table.floatCount))
      writer.append(string: table.name)
    }
    for tensor in tensors {
      writer.append(UInt32(tensor.count))
      writer.append(UInt32(tensor.shard))
      writer.append(string: tensor.name)
    }
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    shard = Int(try reader.read(UInt32.self))
    shardCount = Int(try reader.read(UInt32.self))
    mapNumber = try reader.read()
    incarnation = try reader.read()
    identityHigh = try reader.read()
    identityLow = try reader.read()
    epoch = try reader.read()
    durableEpoch = try reader.read()
    let chainCount = try reader.count("chains", limit: 1 << 16)
    let tableCount = try reader.count("tables", limit: WireProtocol.sectionLimit)
    let tensorCount = try reader.count("tensors", limit: WireProtocol.sectionLimit)
    requestCredits = Int(try reader.read(UInt16.self))
    byteCredits = Int(try reader.read(UInt16.self)) << 20
    chains = try reader.view(ChainState.self, count: chainCount).array
    tables = []
    for _ in 0..<tableCount {
      let weights = Int(try reader.read(UInt32.self))
      let floats = Int(try reader.read(UInt32.self))
      tables.append(TableShape(name: try reader.string(), weightCount: weights, floatCount: floats))
    }
    tensors = []
    for _ in 0..<tensorCount {
      let count = Int(try reader.read(UInt32.self))
      let shard = Int(try reader.read(UInt32.self))
      tensors.append(TensorShape(name: try reader.string(), count: count, shard: shard))
    }
    try reader.expectEnd()
  }
}

/// Takes a partition: fences older owners at once, is answered when durable (DESIGN 3.3).
public struct Claim: Equatable, Sendable {
  /// The chain.
  public var chain: ChainKey
  /// The new owner, above any seen.
  public var ownership: Ownership

  /// A claim of a chain.
  public init(chain: ChainKey, ownership: Ownership) {
    self.chain = chain
    self.ownership = ownership
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter()
    MessageHeader(.claim, request: request).encode(into: &writer)
    writer.append(chain)
    writer.append(ownership)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    chain = try reader.read()
    ownership = try reader.read()
    try reader.expectEnd()
  }
}

/// The state of one chain: the answer to a claim or a push, and, unasked, the news that it is durable.
public struct ChainReply: Equatable, Sendable {
  /// The shard's incarnation.
  public var incarnation: UInt64
  /// The chain's state.
  public var state: ChainState

  /// A reply from its parts.
  public init(incarnation: UInt64, state: ChainState) {
    self.incarnation = incarnation
    self.state = state
  }

  /// The whole message.
  public func encoded(_ opcode: Opcode, request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: 192)
    MessageHeader(opcode, .reply, request: request).encode(into: &writer)
    writer.append(incarnation)
    writer.append(state)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    incarnation = try reader.read()
    state = try reader.read()
    try reader.expectEnd()
  }
}

/// The answer to a ping.
public struct Pong: Equatable, Sendable {
  /// The shard's incarnation; another one than before means it came back.
  public var incarnation: UInt64
  /// The newest epoch that is durable.
  public var durableEpoch: UInt64

  /// An answer from its parts.
  public init(incarnation: UInt64, durableEpoch: UInt64) {
    self.incarnation = incarnation
    self.durableEpoch = durableEpoch
  }

  /// The whole message.
  public func encoded(request: UInt64) -> Blob {
    var writer = ByteWriter(capacity: 64)
    MessageHeader(.ping, .reply, request: request).encode(into: &writer)
    writer.append(incarnation)
    writer.append(durableEpoch)
    return writer.finish()
  }

  /// Reads the body.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    incarnation = try reader.read()
    durableEpoch = try reader.read()
    try reader.expectEnd()
  }
}
