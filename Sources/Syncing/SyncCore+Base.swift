// Bases: all rows, scanned from the shards while training goes on. A base has the number of the version that was newest
// when its scan began; a replica that takes it then applies every version since, and is ready only after those. Rows are
// absolute values, so it does not matter at which moment of the scan each was read.

internal import Base
internal import Embeddings
internal import Wire

/// A base that is being made.
struct BaseBuilder {
  var number: UInt64
  var incarnations: [UInt64]
  var shapes: [TableShape]
  var shard = 0
  var table = 0
  var cursor: UInt64 = 0
  var parts = 0
  var bytes = 0
  var request: UInt64 = 0
  var askedAt: Int64 = longAgo
  var tensors: [String: [Float]] = [:]
}

extension SyncCore {
  mutating func beginBase(now: Int64, into actions: inout [SyncAction]) {
    guard shards.allSatisfy({ $0.welcome != nil }), let welcome = shards[0].welcome else { return }
    building = BaseBuilder(
      number: newest, incarnations: shards.compactMap { $0.welcome?.incarnation }, shapes: welcome.tables)
    bytesSinceBase = 0
    stepBase(now: now, into: &actions)
  }

  /// Asks for the next slice, or again for one that is overdue.
  mutating func stepBase(now: Int64, into actions: inout [SyncAction]) {
    guard var builder = building else { return }
    guard builder.request == 0 || now - builder.askedAt > options.retryAfter.nanoseconds else { return }
    guard builder.shard < shards.count else { return }
    builder.request = request()
    builder.askedAt = now
    if builder.table < builder.shapes.count {
      let question = ScanRequest(table: builder.table, rows: options.scanRows, cursor: builder.cursor)
      actions.append(.sendShard(builder.shard, question.encoded(request: builder.request)))
    } else {
      actions.append(.sendShard(builder.shard, densePull(of: builder.shard, request: builder.request)))
    }
    building = builder
  }

  mutating func scanned(
    _ reply: ScanReply, request: UInt64, now: Int64, into actions: inout [SyncAction]
  ) throws(DecodeError) {
    guard var builder = building, builder.request == request, builder.table < builder.shapes.count else { return }
    guard reply.incarnation == builder.incarnations[builder.shard] else {
      building = nil  // the shard came back: row numbers may differ, so the scan begins anew
      return
    }
    builder.request = 0
    var section = reply.section
    if section.remaining > 0 {
      let shape = builder.shapes[builder.table]
      var merged = MergedTable(name: shape.name, weightCount: shape.weightCount)
      try merged.merge(CutSection(&section))
      if !merged.isEmpty { append([merged.take()], [], isLast: false, to: &builder, into: &actions) }
    }
    builder.cursor = reply.cursor
    if reply.isLast {
      builder.cursor = 0
      builder.table += 1
    }
    building = builder
    stepBase(now: now, into: &actions)
  }

  mutating func pulledDense(
    _ reply: PullReply, request: UInt64, of shard: Int, now: Int64, into actions: inout [SyncAction]
  ) throws(DecodeError) {
    guard var builder = building, builder.request == request, let welcome = shards[shard].welcome else { return }
    guard reply.incarnation == builder.incarnations[builder.shard] else {
      building = nil
      return
    }
    builder.request = 0
    for tensor in reply.tensors where welcome.tensors.indices.contains(tensor.tensor) {
      builder.tensors[welcome.tensors[tensor.tensor].name] = tensor.values.array
    }
    builder.shard += 1
    (builder.table, builder.cursor) = (0, 0)
    building = builder
    if builder.shard < shards.count {
      stepBase(now: now, into: &actions)
    } else {
      finish(builder, into: &actions)
    }
  }

  private mutating func finish(_ finished: BaseBuilder, into actions: inout [SyncAction]) {
    var builder = finished
    let changes = builder.tensors.sorted { $0.key < $1.key }.map { TensorChange(name: $0.key, values: $0.value) }
    append([], changes, isLast: true, to: &builder, into: &actions)
    base = (builder.number, builder.parts)
    baseBytes = builder.bytes
    building = nil
    actions.append(.finishBase(base: builder.number, parts: builder.parts))
    count("bases")
  }

  private func append(
    _ tables: [TableChange], _ tensors: [TensorChange], isLast: Bool, to builder: inout BaseBuilder,
    into actions: inout [SyncAction]
  ) {
    let content = VersionContent(
      number: builder.number, basePart: (builder.parts, isLast ? builder.parts + 1 : 0), created: 0,
      newestEventTime: newestEventTime, exampleCount: exampleCount, totals: totals, epochs: shards.map(\.cursor),
      identities: shards.map(\.identity), arrivals: [], tables: tables, tensors: tensors)
    let blob = content.encoded(halfPrecision: options.halfPrecision)
    actions.append(.storeBasePart(base: builder.number, part: builder.parts, blob))
    builder.parts += 1
    builder.bytes += blob.count
  }
}
