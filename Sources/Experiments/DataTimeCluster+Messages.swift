// Messages between the parts of the cluster: all arrive, at once and in order, and what the cores want done is done.

internal import Base
internal import Sharding
internal import Syncing
internal import Training
internal import Wire

extension DataTimeCluster {
  /// Delivers all there is, and what comes of it.
  func deliver() throws {
    while true {
      for (index, trainer) in trainers.enumerated() {
        for (shard, message) in trainer.core.client.takeOutgoing() {
          mail.append(.toShard(shard, from: PeerID([0x74, UInt8(index)]), message))
        }
      }
      guard !mail.isEmpty else { return }
      let letters = mail
      mail = []
      for letter in letters { try deliver(letter) }
    }
  }

  private func deliver(_ letter: Letter) throws {
    switch letter {
    case .toShard(let shard, let peer, let message):
      var actions: [ShardAction] = []
      shards[shard].core.receive(message, from: peer, now: nanoseconds, into: &actions)
      try perform(actions, of: shard)
    case .toPeer(let peer, let shard, let message):
      if peer == Self.syncPeer {
        var actions: [SyncAction] = []
        sync.receive(message, fromShard: shard, now: nanoseconds, into: &actions)
        perform(actions)
      } else if peer.bytes.first == 0x74 {
        let trainer = trainers[Int(peer.bytes[1])]
        trainer.core.client.receive(message, from: shard, now: nanoseconds)
        if let failure = trainer.core.client.failure { throw ExperimentError("a trainer ended: \(failure)") }
      }
    case .toSync(let message):
      var actions: [SyncAction] = []
      sync.receive(message, from: Self.replicaPeer, now: nanoseconds, into: &actions)
      perform(actions)
    case .toReplica(let message):
      if let answer = follower.receive(message, now: nanoseconds) { mail.append(.toSync(answer)) }
      if let refusal = follower.refusal { throw ExperimentError(refusal) }
    }
  }

  func perform(_ actions: [ShardAction], of shard: Int) throws {
    for action in actions {
      switch action {
      case .send(let peer, let message): mail.append(.toPeer(peer, from: shard, message))
      case .append, .beginSegment, .keepForgotten, .checkpointBegin, .checkpointCancel: break
      case .sync(let epoch):
        var more: [ShardAction] = []
        shards[shard].core.blockSynced(epoch: epoch, into: &more)
        try perform(more, of: shard)
      case .checkpointSection(let section):
        sections.append(section)
        shards[shard].core.checkpointWritten(sections: 1)
      case .checkpointFinish(let manifest):
        isCheckpointDone = true
        var more: [ShardAction] = []
        shards[shard].core.checkpointEnded(.success(manifest), into: &more)
        try perform(more, of: shard)
      }
    }
  }

  func perform(_ actions: [SyncAction]) {
    for action in actions {
      switch action {
      case .sendShard(let shard, let message): mail.append(.toShard(shard, from: Self.syncPeer, message))
      case .beginStore: (versions, baseParts) = ([:], [:])
      case .storeVersion(let number, let blob): versions[number] = blob
      case .storeBasePart(_, let part, let blob): baseParts[part] = blob
      case .sendVersion(_, let number): send(versions[number], number)
      case .sendBasePart(_, let base, let part): send(baseParts[part], base)
      case .send, .finishBase, .readState, .describe: break
      }
    }
  }

  private func send(_ content: Blob?, _ number: UInt64) {
    guard let content else { return }
    let message = VersionMessage(
      store: sync.heading.store, number: number, newest: sync.heading.newest, content: ByteReader(content))
    mail.append(.toReplica(message.encoded(request: 0)))
  }
}
