// What a batch asks of each shard, what it takes of the answers, and what it gives back.

internal import Base
internal import Sharding
internal import Wire

extension TrainingBatch {
  /// The pull of a shard's rows and dense tensors; nil when it holds nothing of the batch.
  func pull(_ request: UInt64, from shard: Int, _ options: TrainerOptions) -> Blob? {
    let parts = parts[shard].filter { !$0.ids.isEmpty }
    let hasTensors = options.tensorIndex.contains { options.tensors[$0].shard == shard }
    guard !parts.isEmpty || hasTensors else { return nil }
    return PullRequest.encoded(
      request: request, mapNumber: options.map.number, eventTime: eventTime, wantsDense: hasTensors,
      numbers: options.numbers, sections: parts.map { ($0.table, $0.ids, $0.sightings) })
  }

  /// Puts the replies' rows in the order of the batch's unique ids.
  func gather(_ replies: [PullReply?], _ options: TrainerOptions, into pass: Pass) {
    for (table, clusterTable) in options.tableIndex.enumerated() {
      let count = assembler.uniqueIds[table].count * options.tables[clusterTable].weightCount
      resize(&pass.rows[table], to: count)
    }
    for (shard, reply) in replies.enumerated() {
      guard let reply else { continue }
      var section = 0
      for (table, part) in parts[shard].enumerated() where !part.ids.isEmpty {
        let width = options.tables[part.table].weightCount
        scatter(reply.rows[section], to: part.places, width: width, in: &pass.rows[table])
        section += 1
      }
      for tensor in reply.tensors {
        guard let own = options.tensorIndex.firstIndex(of: tensor.tensor) else { continue }
        pass.dense[own] = tensor.values.array
      }
    }
  }

  /// Where the batch lies in its partition's chain of pushes.
  func stamp(_ ownership: Ownership) -> Stamp {
    Stamp(
      chain: chain, ownership: ownership, previousEnd: previousEnd, end: end, exampleCount: recordCount,
      eventTime: eventTime, watermark: watermark)
  }

  /// The push of a shard's gradients; without any when there is no pass.
  func push(_ request: UInt64, to shard: Int, _ stamp: Stamp, _ pass: Pass?, _ options: TrainerOptions) -> Blob {
    let parts = pass == nil ? [] : parts[shard].enumerated().filter { !$0.element.ids.isEmpty }
    let tensors =
      pass == nil ? [] : options.tensorIndex.indices.filter { options.tensors[options.tensorIndex[$0]].shard == shard }
    let (rows, dense) = (pass?.rowGradients ?? [], pass?.denseGradients ?? [])
    let rowBytes = parts.reduce(0) {
      $0 + $1.element.ids.count * (12 + options.tables[$1.element.table].weightCount * options.numbers.byteCount)
    }
    let tensorBytes = tensors.reduce(0) { $0 + dense[$1].count * 4 }
    var writer = ByteWriter(
      capacity: 1024 + (parts.count + tensors.count) * 64 + arrivals.count * 16 + rowBytes + tensorBytes)
    PushRequest.begin(
      request: request, stamp: stamp, mapNumber: options.map.number, sections: parts.count, tensors: tensors.count,
      arrivals: arrivals, numbers: options.numbers, into: &writer)
    for (table, part) in parts {
      let width = options.tables[part.table].weightCount
      PushRequest.beginSection(
        table: part.table, ids: part.ids, sightings: part.sightings, floats: part.ids.count * width, into: &writer)
      writer.append(numbers: options.numbers, count: part.ids.count * width) { target in
        collect(part.places, width: width, of: rows[table], into: &target)
      }
    }
    for tensor in tensors {
      PushRequest.append(tensor: options.tensorIndex[tensor], gradients: dense[tensor], into: &writer)
    }
    return writer.finish()
  }
}
