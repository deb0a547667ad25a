// The records a block is made of, as they lie in the journal and travel to sync (docs/formats.md).
//
// Each begins with 16 bytes: kind, number (a table's or tensor's index), epoch. A block is: any number of table and
// tensor records, then one end record; it counts only when the end is there. A shape record stands at the start of every
// run of the shard and voids what an earlier run left unfinished.

public import Base
public import Wire

/// One record of a shard's journal.
public enum BlockRecord {
  enum Kind: UInt32 {
    case shape = 0
    case table = 1
    case tensor = 2
    case end = 3
  }

  /// What a run of the shard calls its tables and tensors by index.
  public struct Shape: Equatable, Sendable {
    /// Tables in index order.
    public var tables: [TableShape]
    /// Tensors in index order.
    public var tensors: [TensorShape]
  }

  /// The positions and arrivals at the end of a block.
  public struct End: Equatable, Sendable {
    /// Every chain the shard knows, as it stood when the epoch closed.
    public var chains: [ChainState]
    /// The arrivals of the pushes applied in the epoch.
    public var arrivals: [PushArrivals]
  }

  /// When the actions behind one push arrived.
  public struct PushArrivals: Equatable, Sendable {
    /// The push's chain.
    public var chain: ChainKey
    /// The end of the push.
    public var end: Position
    /// The arrivals.
    public var counts: [ArrivalCount]
  }

  /// A record with its content still to be read.
  public enum Parsed {
    /// The start of a run.
    case shape(Shape)
    /// Changed rows of a table: a section of `Embeddings`.
    case table(index: Int, epoch: UInt64, section: ByteReader)
    /// A dense tensor: values, then optimizer state.
    case tensor(index: Int, epoch: UInt64, values: View<Float>, state: View<Float>)
    /// The end of a block.
    case end(epoch: UInt64, End)

    /// The epoch it is of; 0 for the start of a run.
    public var epoch: UInt64 {
      switch self {
      case .shape: 0
      case .table(_, let epoch, _), .tensor(_, let epoch, _, _), .end(let epoch, _): epoch
      }
    }
  }

  static func begin(_ kind: Kind, number: Int, epoch: UInt64, into writer: inout ByteWriter) {
    writer.append(kind.rawValue)
    writer.append(UInt32(number))
    writer.append(epoch)
  }

  static func encode(_ shape: Shape) -> Blob {
    var writer = ByteWriter()
    begin(.shape, number: 0, epoch: 0, into: &writer)
    writer.append(UInt32(shape.tables.count))
    writer.append(UInt32(shape.tensors.count))
    for table in shape.tables {
      writer.append(UInt32(table.weightCount))
      writer.append(UInt32(table.floatCount))
      writer.append(string: table.name)
    }
    for tensor in shape.tensors {
      writer.append(UInt32(tensor.count))
      writer.append(UInt32(tensor.shard))
      writer.append(string: tensor.name)
    }
    return writer.finish()
  }

  static func encodeTensor(index: Int, epoch: UInt64, values: [Float], state: [Float]) -> Blob {
    var writer = ByteWriter(capacity: 64 + 4 * (values.count + state.count))
    begin(.tensor, number: index, epoch: epoch, into: &writer)
    writer.append(UInt32(values.count))
    writer.append(UInt32(state.count))
    writer.append(array: values)
    writer.append(array: state)
    return writer.finish()
  }

  static func encode(_ end: End, epoch: UInt64) -> Blob {
    var writer = ByteWriter()
    begin(.end, number: 0, epoch: epoch, into: &writer)
    writer.append(UInt32(end.chains.count))
    writer.append(UInt32(end.arrivals.count))
    writer.append(array: end.chains)
    for push in end.arrivals {
      writer.append(push.chain)
      writer.append(push.end)
      writer.append(UInt64(push.counts.count))
      writer.append(array: push.counts)
    }
    return writer.finish()
  }

  /// Reads one record.
  public static func parse(_ record: ByteReader) throws(DecodeError) -> Parsed {
    var reader = record
    let raw = try reader.read(UInt32.self)
    let number = Int(try reader.read(UInt32.self))
    let epoch = try reader.read(UInt64.self)
    guard let kind = Kind(rawValue: raw) else {
      throw .invalid(field: "block record kind", value: "\(raw)", expected: "0...3")
    }
    switch kind {
    case .shape:
      let tableCount = try reader.count("tables", limit: WireProtocol.sectionLimit)
      let tensorCount = try reader.count("tensors", limit: WireProtocol.sectionLimit)
      var shape = Shape(tables: [], tensors: [])
      for _ in 0..<tableCount {
        let weights = Int(try reader.read(UInt32.self))
        let floats = Int(try reader.read(UInt32.self))
        shape.tables.append(TableShape(name: try reader.string(), weightCount: weights, floatCount: floats))
      }
      for _ in 0..<tensorCount {
        let count = Int(try reader.read(UInt32.self))
        let shard = Int(try reader.read(UInt32.self))
        shape.tensors.append(TensorShape(name: try reader.string(), count: count, shard: shard))
      }
      return .shape(shape)
    case .table:
      return .table(index: number, epoch: epoch, section: reader)
    case .tensor:
      let valueCount = Int(try reader.read(UInt32.self))
      let stateCount = Int(try reader.read(UInt32.self))
      let values = try reader.view(Float.self, count: valueCount)
      let state = try reader.view(Float.self, count: stateCount)
      return .tensor(index: number, epoch: epoch, values: values, state: state)
    case .end:
      let chainCount = try reader.count("chains", limit: 1 << 20)
      let arrivalCount = try reader.count("arrivals", limit: 1 << 24)
      var end = End(chains: try reader.view(ChainState.self, count: chainCount).array, arrivals: [])
      for _ in 0..<arrivalCount {
        let chain = try reader.read(ChainKey.self)
        let position = try reader.read(Position.self)
        let count = Int(clamping: try reader.read(UInt64.self))
        let counts = try reader.view(ArrivalCount.self, count: count).array
        end.arrivals.append(PushArrivals(chain: chain, end: position, counts: counts))
      }
      return .end(epoch: epoch, end)
    }
  }
}
