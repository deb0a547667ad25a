// Blocks: each is read whole, then merged whole, in the order of its shard's epochs.

internal import Base
internal import Embeddings
internal import Sharding
internal import Wire

extension SyncCore {
  mutating func merge(
    _ reply: BlocksReply, request: UInt64, of shard: Int, now: Int64, into actions: inout [SyncAction]
  ) throws {
    // What an earlier store asked for may begin elsewhere.
    guard let welcome = shards[shard].welcome, store != 0, request >= storeRequest else { return }
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
      let state = shards[shard]
      let isOfPartial = !state.partial.isEmpty && record.epoch == state.partialEpoch
      if record.epoch <= state.cursor || isOfPartial && record.index < state.partial.count { continue }
      // A reader that waited may be answered when blocks were dropped meanwhile: anything but the next block is asked for
      // anew, and the shard then says that it is gone.
      guard record.index == state.partial.count, record.epoch - 1 == state.cursor else {
        count("misplacedRecords")
        shards[shard].partial = []
        return
      }
      shards[shard].partialEpoch = record.epoch
      let parsed = try BlockRecord.parse(record.payload)
      guard parsed.epoch == record.epoch else {
        throw DecodeError.invalid(field: "epoch of a record", value: "\(record.epoch)", expected: "\(parsed.epoch)")
      }
      guard case .end(let epoch, let end) = parsed else {
        shards[shard].partial.append(parsed)
        continue
      }
      // The whole block is read before any of it is merged: a damaged one must not leave a part of it behind.
      let changes = try shards[shard].partial.map { try read($0, tables: welcome.tables, tensors: welcome.tensors) }
      for change in changes { try merge(change, shard: shard, epoch: epoch) }
      shards[shard].partial = []
      shards[shard].cursor = epoch
      hasProgress = true
      shards[shard].merged.append(
        MergedBlock(epoch: epoch, chains: end.chains, arrivals: shard == 0 ? end.arrivals : [], mergedAt: now))
      shards[shard].cursorRequest = nextRequest
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
