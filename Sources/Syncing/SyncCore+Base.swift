// Bases: all rows, scanned from the shards while training goes on. A base has the number of the version that was newest
// when its scan began; a replica that takes it then applies every version since, and is ready only after those. Rows are
// absolute values, so it does not matter at which moment of the scan each was read; but what was read must not be undone by
// a crash of its shard, so a base counts only when all of it is durable there.

internal import Base
internal import Embeddings
internal import Wire

/// A base that is being made.
struct BaseBuilder {
  var number: UInt64
  var incarnations: [UInt64]
  var shapes: [TableShape]
  /// Per shard: the epoch that must be durable for what was read of it.
  var epochs: [UInt64]
  var shard = 0
  /// The table being scanned; nil while the shard's dense tensors are asked for, which comes first.
  var table: Int?
  var cursor: UInt64 = 0
  var parts = 0
  var bytes = 0
  var request: UInt64 = 0
  var askedAt: Int64 = longAgo
  var tensors: [String: [Float]] = [:]

  /// Goes on with the next table, or the next shard.
  mutating func advance() {
    cursor = 0
    let next = (table ?? -1) + 1
    table = next < shapes.count ? next : nil
    if table == nil { shard += 1 }
  }
}

extension SyncCore {
  mutating func beginBase(now: Int64, into actions: inout [SyncAction]) {
    guard shards.allSatisfy({ $0.welcome != nil }), let welcome = shards[0].welcome else { return }
    building = BaseBuilder(
      number: newest, incarnations: shards.compactMap { $0.welcome?.incarnation }, shapes: welcome.tables,
      epochs: shards.map { _ in 0 })
    bytesSinceBase = 0
    versionsSinceBase = 0
    stepBase(now: now, into: &actions)
  }

  /// Asks for the next slice, or again for one that is overdue.
  mutating func stepBase(now: Int64, into actions: inout [SyncAction]) {
    guard var builder = building else { return }
    guard builder.shard < shards.count else {
      if zip(shards, builder.epochs).allSatisfy({ $0.durableEpoch >= $1 }) { finish(builder, into: &actions) }
      return
    }
    guard builder.request == 0 || now - builder.askedAt > options.retryAfter.nanoseconds else { return }
    builder.request = request()
    builder.askedAt = now
    if let table = builder.table {
      let question = ScanRequest(table: table, rows: options.scanRows, cursor: builder.cursor)
      actions.append(.sendShard(builder.shard, question.encoded(request: builder.request)))
    } else {
      actions.append(.sendShard(builder.shard, densePull(of: builder.shard, request: builder.request)))
    }
    building = builder
  }

  mutating func scanned(
    _ reply: ScanReply, request: UInt64, now: Int64, into actions: inout [SyncAction]
  ) throws(DecodeError) {
    guard var builder = building, builder.request == request, let table = builder.table else { return }
    guard reply.incarnation == builder.incarnations[builder.shard] else {
      building = nil  // the shard came back: row numbers may differ, so the scan begins anew
      return
    }
    builder.request = 0
    var section = reply.section
    if section.remaining > 0 {
      let shape = builder.shapes[table]
      var merged = MergedTable(name: shape.name, weightCount: shape.weightCount)
      try merged.merge(CutSection(&section), shard: builder.shard, epoch: reply.epoch)
      if !merged.isEmpty { append([merged.take()], [], isLast: false, to: &builder, into: &actions) }
    }
    builder.cursor = reply.cursor
    builder.epochs[builder.shard] = max(builder.epochs[builder.shard], reply.epoch)
    if reply.isLast { builder.advance() }
    building = builder
    stepBase(now: now, into: &actions)
  }

  mutating func pulledDense(
    _ reply: PullReply, request: UInt64, of shard: Int, now: Int64, into actions: inout [SyncAction]
  ) throws(DecodeError) {
    guard var builder = building, builder.request == request, builder.table == nil,
      let welcome = shards[shard].welcome
    else { return }
    guard reply.incarnation == builder.incarnations[builder.shard] else {
      building = nil
      return
    }
    builder.request = 0
    for tensor in reply.tensors where welcome.tensors.indices.contains(tensor.tensor) {
      builder.tensors[welcome.tensors[tensor.tensor].name] = tensor.values.array
    }
    builder.advance()
    building = builder
    stepBase(now: now, into: &actions)
  }

  private mutating func finish(_ finished: BaseBuilder, into actions: inout [SyncAction]) {
    var builder = finished
    let changes = builder.tensors.sorted { $0.key < $1.key }.map { TensorChange(name: $0.key, values: $0.value) }
    append([], changes, isLast: true, to: &builder, into: &actions)
    base = (builder.number, builder.parts)
    baseEpochs = builder.epochs
    baseBytes = builder.bytes
    building = nil
    actions.append(.finishBase(base: builder.number, parts: builder.parts))
    count("bases")
  }

  private mutating func append(
    _ tables: [TableChange], _ tensors: [TensorChange], isLast: Bool, to builder: inout BaseBuilder,
    into actions: inout [SyncAction]
  ) {
    let content = VersionContent(
      number: builder.number, basePart: (builder.parts, isLast ? builder.parts + 1 : 0), created: wall,
      newestEventTime: newestEventTime, exampleCount: exampleCount, totals: totals, epochs: builder.epochs,
      identities: shards.map(\.identity), progress: progressList, arrivals: [], tables: tables, tensors: tensors)
    noteShipped(tables)
    let blob = content.encoded(halfPrecision: options.halfPrecision)
    actions.append(.storeBasePart(base: builder.number, part: builder.parts, blob))
    builder.parts += 1
    builder.bytes += blob.count
  }
}
