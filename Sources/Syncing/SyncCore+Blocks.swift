// Blocks: each is read whole, then merged whole, in the order of its shard's epochs.

internal import Base
internal import Embeddings
internal import Sharding
internal import Wire

extension SyncCore {
  mutating func merge(
    _ reply: BlocksReply, of shard: Int, now: Int64, into actions: inout [SyncAction]
  ) throws {
    guard let welcome = shards[shard].welcome, store != 0 else { return }
    if reply.identityLow != shards[shard].identity {
      restart()
      return
    }
    if reply.incarnation != welcome.incarnation {
      // The shard came back: its table numbers may differ, and a block half read may never end.
      shards[shard].welcome = nil
      shards[shard].partial = []
      shards[shard].isWaiting = false
      building = nil
      return
    }
    shards[shard].durableEpoch = reply.durableEpoch
    for record in reply.records {
      guard record.epoch > shards[shard].cursor, record.epoch - 1 == shards[shard].cursor,
        record.index == shards[shard].partial.count
      else { continue }
      let parsed = try BlockRecord.parse(record.payload)
      guard case .end(let epoch, let end) = parsed else {
        shards[shard].partial.append(parsed)
        continue
      }
      guard epoch == record.epoch else {
        throw DecodeError.invalid(field: "end of block", value: "\(epoch)", expected: "\(record.epoch)")
      }
      // The whole block is read before any of it is merged: a damaged one must not leave a part of it behind.
      let changes = try shards[shard].partial.map { try read($0, tables: welcome.tables, tensors: welcome.tensors) }
      for change in changes { try merge(change, shard: shard, epoch: epoch) }
      shards[shard].partial = []
      shards[shard].cursor = epoch
      hasProgress = true
      shards[shard].merged.append(
        MergedBlock(epoch: epoch, chains: end.chains, arrivals: shard == 0 ? end.arrivals : [], mergedAt: now))
      count("blocks")
    }
    shards[shard].isWaiting = false
  }

  private enum BlockChange {
    case rows(TableShape, [CutSection])
    case tensor(String, View<Float>)
  }

  private func read(
    _ part: BlockRecord.Parsed, tables shapes: [TableShape], tensors names: [TensorShape]
  ) throws -> BlockChange? {
    switch part {
    case .table(let index, _, var section):
      guard shapes.indices.contains(index) else {
        throw DecodeError.invalid(field: "table", value: "\(index)", expected: "below \(shapes.count)")
      }
      let shape = shapes[index]
      var sections: [CutSection] = []
      while section.remaining > 0 {
        sections.append(try CutSection(&section, weightCount: tables[shape.name]?.weightCount ?? shape.weightCount))
      }
      return .rows(shape, sections)
    case .tensor(let index, _, let values, _):
      guard names.indices.contains(index), names[index].count == values.count else {
        throw DecodeError.invalid(
          field: "tensor", value: "\(index) of \(values.count) numbers", expected: "one of the shard's \(names.count)")
      }
      return .tensor(names[index].name, values)
    case .shape, .end:
      return nil
    }
  }

  private mutating func merge(_ change: BlockChange?, shard: Int, epoch: UInt64) throws {
    switch change {
    case .rows(let shape, let sections):
      var merged = tables[shape.name] ?? MergedTable(name: shape.name, weightCount: shape.weightCount)
      tables[shape.name] = nil
      for section in sections { try merged.merge(section, shard: shard, epoch: epoch) }
      tables[shape.name] = merged
    case .tensor(let name, let values):
      tensors[name] = values.array
      changedTensors.insert(name)
    case nil:
      break
    }
  }
}
