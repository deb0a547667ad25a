// What each request does. Every request is answered, with an `ErrorReply` when it is refused; the conversation goes on.

public import Base
internal import Embeddings
public import Wire

extension ShardCore {
  /// Handles one message.
  ///
  /// Bytes from outside never trap: they get an error reply, or are dropped when not even the header can be read.
  public mutating func receive(_ message: Blob, from peer: PeerID, now: Int64, into actions: inout [ShardAction]) {
    clients.heard(peer, at: now)
    var reader = ByteReader(message)
    let header: MessageHeader
    do {
      header = try MessageHeader(decoding: &reader)
    } catch {
      count("malformed")
      actions.append(.send(peer, ErrorReply(.malformed, "\(error)").encoded(opcode: .hello, request: 0)))
      return
    }
    guard header.kind == .request else {
      count("malformed")
      return
    }
    if let refusal = refusal(of: header.opcode, from: peer) {
      actions.append(.send(peer, refusal.encoded(opcode: header.opcode, request: header.request)))
      return
    }
    do {
      guard message.count <= options.creditBytes else {
        throw ErrorReply(.malformed, "the request has \(message.count) bytes; the limit is \(options.creditBytes)")
      }
      if let reply = try answer(header, &reader, peer: peer, now: now, actions: &actions) {
        actions.append(.send(peer, reply))
      }
    } catch let error as ErrorReply {
      count(error.code == .malformed || error.code == .mismatch ? "malformed" : "refused")
      actions.append(.send(peer, error.encoded(opcode: header.opcode, request: header.request)))
    } catch {
      count("malformed")
      var code = ErrorCode.malformed
      if case DecodeError.invalid(NumberType.fieldName, _, _) = error { code = .mismatch }
      let reply = ErrorReply(code, "\(header.opcode): \(error)")
      actions.append(.send(peer, reply.encoded(opcode: header.opcode, request: header.request)))
    }
  }

  /// The reply, or nil when it comes later.
  private mutating func answer(
    _ header: MessageHeader, _ reader: inout ByteReader, peer: PeerID, now: Int64, actions: inout [ShardAction]
  ) throws -> Blob? {
    let request = header.request
    switch header.opcode {
    case .hello:
      let hello = try Hello(decoding: &reader)
      remember(hello.role, of: peer)
      return try welcome(hello).encoded(request: request)
    case .ping:
      try reader.expectEnd()
      return Pong(incarnation: incarnation, durableEpoch: durableEpoch).encoded(request: request)
    case .claim:
      return try claim(Claim(decoding: &reader), request: request, peer: peer)
    case .pull:
      return try pull(PullRequest(decoding: &reader), request: request)
    case .push:
      return try push(PushRequest(decoding: &reader), request: request, peer: peer, now: now)
    case .forget:
      return try forget(IDsRequest(decoding: &reader), request: request, peer: peer, actions: &actions)
    case .closeEpoch:
      wantsEarlyClose = wantsEarlyClose || isChanged
      return PlainMessage.empty(.closeEpoch, .reply, request: request)
    case .blocksSince:
      return try blocks(BlocksRequest(decoding: &reader), request: request, peer: peer, now: now)
    case .scan:
      return try scan(ScanRequest(decoding: &reader), request: request)
    case .status:
      return PlainMessage.text(.status, status().json, request: request)
    case .digest:
      let halfPrecision = try reader.read(UInt32.self) != 0
      return digest(halfPrecision: halfPrecision).encoded(request: request)
    case .inspect:
      return try inspect(IDsRequest(decoding: &reader), request: request)
    case .checkpoint:
      let wish = try CheckpointRequest(decoding: &reader)
      try requestCheckpoint(wish, peer: peer, request: request)
      return nil
    case .durable, .follow, .version, .publish, .versions, .pin, .resume, .rows, .embed, .events:
      throw ErrorReply(.malformed, "a shard does not answer '\(header.opcode)'; ask sync or a replica")
    }
  }

  private func welcome(_ hello: Hello) throws -> Welcome {
    guard hello.oldestVersion <= WireProtocol.version, hello.newestVersion >= WireProtocol.oldestVersion else {
      throw ErrorReply(
        .mismatch,
        "the shard speaks protocol \(WireProtocol.oldestVersion)...\(WireProtocol.version), the client "
          + "\(hello.oldestVersion)...\(hello.newestVersion)")
    }
    return Welcome(
      shard: options.index, shardCount: options.map.shardCount, mapNumber: options.map.number,
      incarnation: incarnation, identityHigh: identity.high, identityLow: identity.low, epoch: openEpoch,
      durableEpoch: durableEpoch, chains: hello.chains.map { chains[$0]?.state ?? ChainState(chain: $0) },
      tables: shape.tables, tensors: shape.tensors, requestCredits: options.creditRequests,
      byteCredits: options.creditBytes)
  }

  private mutating func claim(_ claim: Claim, request: UInt64, peer: PeerID) throws -> Blob? {
    guard (1..<Ownership.generationLimit).contains(claim.ownership.generation) else {
      throw ErrorReply(.malformed, "claim: generation \(claim.ownership.generation); expected 1 to 2^62 - 1")
    }
    guard chains[claim.chain] != nil || chains.count < Self.chainLimit else {
      throw ErrorReply(.busy, "the shard keeps \(chains.count) chains and takes no more")
    }
    var chain = chains[claim.chain] ?? Chain(state: ChainState(chain: claim.chain))
    guard claim.ownership >= chain.state.ownership else {
      throw ErrorReply(
        .fenced, "generation \(chain.state.ownership.generation) owns the partition; claim above it",
        position: chain.state.applied, generation: chain.state.ownership.generation)
    }
    if claim.ownership > chain.state.ownership {
      chain.state.ownership = claim.ownership
      isChanged = true
      count("claims")
    }
    chain.pusher = peer
    chains[claim.chain] = chain
    FaultPoint.claimTaken.pass()
    // Answered when the block that holds it is synced, so that a position once answered never goes back.
    let epoch = isChanged ? openEpoch : openEpoch - 1
    if epoch <= durableEpoch {
      return ChainReply(incarnation: incarnation, state: chain.state).encoded(.claim, request: request)
    }
    wantsEarlyClose = isChanged
    awaiting.append(Awaiting(peer: peer, request: request, epoch: epoch, opcode: .claim, claim: claim))
    return nil
  }

  private func checkMap(_ number: UInt64) throws {
    guard number == options.map.number else {
      throw ErrorReply(.staleMap, "the cluster map is number \(options.map.number), the request used \(number)")
    }
  }

  private func box(_ index: Int) throws -> TableBox {
    guard tables.indices.contains(index) else {
      throw ErrorReply(.mismatch, "table \(index) does not exist; the shard has \(tables.count) tables")
    }
    return tables[index]
  }

  private mutating func pull(_ pull: PullRequest, request: UInt64) throws -> Blob {
    try checkMap(pull.mapNumber)
    var floats = 0
    for section in pull.sections { floats += section.ids.count * (try box(section.table)).shape.weightCount }
    guard floats * 4 <= WireProtocol.frameLimit / 2 else {
      throw ErrorReply(.mismatch, "the reply would have \(floats * 4) bytes; ask for fewer ids at a time")
    }
    let tensors = pull.wantsDense ? dense.entries.indices.filter { dense.entries[$0] != nil } : []
    for tensor in tensors { floats += dense.entries[tensor]?.values.count ?? 0 }
    var writer = ByteWriter(capacity: 256 + floats * 4 + 16 * (pull.sections.count + tensors.count))
    PullReply.begin(
      request: request, incarnation: incarnation, sections: pull.sections.count, tensors: tensors.count,
      numbers: pull.numbers, into: &writer)
    for (number, section) in pull.sections.enumerated() {
      let box = try box(section.table)
      let count = section.ids.count * box.shape.weightCount
      PullReply.beginNumbers(number: number, count: count, into: &writer)
      writer.append(numbers: pull.numbers, count: count) { rows in
        box.table.pull(
          ids: section.ids.span, sightings: section.sightings.span, eventTime: pull.eventTime, into: &rows)
      }
      self.count("pulledRows", UInt64(section.ids.count))
    }
    for tensor in tensors {
      let values = dense.entries[tensor]?.values ?? []
      PullReply.beginNumbers(number: tensor, count: values.count, into: &writer)
      writer.append(array: values)
    }
    count("pulls")
    return writer.finish()
  }

  private mutating func push(_ push: PushRequest, request: UInt64, peer: PeerID, now: Int64) throws -> Blob {
    let stamp = push.stamp
    try checkMap(push.mapNumber)
    guard var chain = chains[stamp.chain], chain.state.ownership == stamp.ownership else {
      let state = chains[stamp.chain]?.state ?? ChainState(chain: stamp.chain)
      throw ErrorReply(
        .fenced,
        "generation \(state.ownership.generation) owns the partition, the push is of generation "
          + "\(stamp.ownership.generation)", position: state.applied, generation: state.ownership.generation)
    }
    guard stall.isEmpty else { throw ErrorReply(.busy, stall) }
    if stamp.end <= chain.state.applied {
      count("repeated")
      return ChainReply(incarnation: incarnation, state: chain.state).encoded(.push, request: request)
    }
    guard stamp.previousEnd == chain.state.applied else {
      throw ErrorReply(
        .gap, "the push begins at \(stamp.previousEnd), the shard has applied \(chain.state.applied)",
        position: chain.state.applied, generation: chain.state.ownership.generation)
    }
    try validate(push)

    let rateFactor = rateFactor(of: stamp.chain)
    for section in push.sections {
      if let rateFactor { try box(section.table).table.setRateFactor(rateFactor) }
      let counts = try apply(section, stamp: stamp)
      count("pushedRows", UInt64(section.ids.count))
      count("rejectedNonFinite", UInt64(counts.rejectedNonFinite))
      if counts.refused > 0, fullTable.open.isEmpty, let full = try box(section.table).table.refusal(counts) {
        fullTable.open = "\(full)"
      }
      FaultPoint.pushHalf.pass()
    }
    for tensor in push.tensors
    where !dense.apply(gradient: tensor.values.span, to: tensor.tensor, rateFactor: rateFactor ?? 1) {
      count("rejectedNonFinite")
    }
    chain.state.applied = stamp.end
    ahead.passed(stamp.end, of: stamp.chain)
    let (examples, overflow) = chain.state.exampleCount.addingReportingOverflow(stamp.exampleCount)
    chain.state.exampleCount = overflow ? .max : examples
    chain.state.eventTime = max(chain.state.eventTime, stamp.eventTime)
    chain.state.watermark = max(chain.state.watermark, stamp.watermark)
    chain.pusher = peer
    chain.lastPush = now
    chains[stamp.chain] = chain
    FaultPoint.pushApplied.pass()
    keep(push.arrivals, of: stamp)
    isChanged = true
    count("pushes")
    return ChainReply(incarnation: incarnation, state: chain.state).encoded(.push, request: request)
  }

  /// What the step sizes of a consumer are multiplied by now; nil when they never change.
  private func rateFactor(of chain: ChainKey) -> Float? {
    guard let schedule = schedules[chain.consumer] else { return nil }
    let examples = chains.values.reduce(UInt64(0)) { sum, other in
      guard other.state.chain.consumer == chain.consumer else { return sum }
      let (total, overflow) = sum.addingReportingOverflow(other.state.exampleCount)
      return overflow ? .max : total
    }
    return schedule.factor(after: examples)
  }

  /// Keeps a push's arrivals for the open epoch's block, as far as it has room: they measure freshness and nothing else.
  private mutating func keep(_ arrivals: View<ArrivalCount>, of stamp: Stamp) {
    guard arrivals.count > 0 else { return }
    let bytes = 64 + arrivals.count * MemoryLayout<ArrivalCount>.stride
    guard openArrivalBytes + bytes <= Self.arrivalBytes else { return count("droppedArrivals", UInt64(arrivals.count)) }
    openArrivalBytes += bytes
    if openArrivalBytes > Self.arrivalBytes / 2 { wantsEarlyClose = true }
    openArrivals.append(BlockRecord.PushArrivals(chain: stamp.chain, end: stamp.end, counts: arrivals.array))
  }

  private mutating func apply(_ section: IDSection, stamp: Stamp) throws -> PushCounts {
    let box = try box(section.table)
    let kept =
      ahead.isEmpty
      ? nil
      : ahead.filtered(section, of: stamp.chain, from: stamp.previousEnd, width: box.shape.weightCount)
    guard let kept else {
      return box.table.push(
        ids: section.ids.span, sightings: section.sightings.span, gradients: section.gradients.span,
        eventTime: stamp.eventTime)
    }
    count("keptForgotten", UInt64(section.ids.count - kept.ids.count))
    return box.table.push(
      ids: kept.ids.span, sightings: kept.sightings.span, gradients: kept.gradients.span, eventTime: stamp.eventTime)
  }

  /// Refuses a push that does not fit the shard, before any of it is applied.
  private func validate(_ push: PushRequest) throws {
    // Others subtract these from their clocks and sum the counts.
    for arrival in push.arrivals.array where !arrival.isPlausible {
      throw ErrorReply(
        .malformed,
        "push: \(arrival.count) examples whose actions arrived at \(arrival.arrival); expected at most 2^32, and UTC "
          + "milliseconds from 0 to 2^50 - 1")
    }
    for section in push.sections {
      let shape = try box(section.table).shape
      guard section.gradients.count == section.ids.count * shape.weightCount else {
        throw ErrorReply(
          .mismatch,
          "table '\(shape.name)' has \(shape.weightCount) weights per row: \(section.ids.count) ids need "
            + "\(section.ids.count * shape.weightCount) gradients, the push has \(section.gradients.count)")
      }
    }
    for tensor in push.tensors {
      guard dense.entries.indices.contains(tensor.tensor), let entry = dense.entries[tensor.tensor] else {
        throw ErrorReply(.mismatch, "dense tensor \(tensor.tensor) does not live on shard \(options.index)")
      }
      guard entry.values.count == tensor.values.count else {
        throw ErrorReply(
          .mismatch,
          "tensor '\(entry.options.tensor.name)' has \(entry.values.count) numbers, the push has "
            + "\(tensor.values.count) gradients")
      }
    }
  }

  private func scan(_ scan: ScanRequest, request: UInt64) throws -> Blob {
    let box = try box(Int(scan.table))
    let rows = box.slice(min(Int(scan.rows), 1 << 16))
    let epoch = isChanged ? openEpoch : openEpoch - 1
    return ScanReply.encoded(request: request, incarnation: incarnation, epoch: epoch) { writer in
      var cursor = TableCursor(rawValue: scan.cursor)
      let wrote = box.table.scan(cursor: &cursor, rows: rows, into: &writer)
      return (cursor.rawValue, !wrote)
    }
  }

  private func inspect(_ question: IDsRequest, request: UInt64) throws -> Blob {
    guard let index = tableIndex[question.table] else {
      throw ErrorReply(
        .mismatch, "no table '\(question.table)'; the tables are \(tables.map(\.shape.name).joined(separator: ", "))")
    }
    guard question.ids.count <= Self.inspectLimit else {
      throw ErrorReply(.mismatch, "\(question.ids.count) ids; ask for at most \(Self.inspectLimit) at a time")
    }
    let found = question.ids.map { id in
      guard let row = tables[index].table.inspect(id) else { return "{\"id\":\(id),\"found\":false}" }
      return Self.json(row)
    }
    return PlainMessage.text(.inspect, "[" + found.joined(separator: ",") + "]", request: request)
  }

  private static func json(_ row: RowInspection) -> String {
    func list(_ numbers: [Float]) -> String { "[" + numbers.map { "\($0)" }.joined(separator: ",") + "]" }
    func number(_ value: (some CustomStringConvertible)?) -> String { value.map { "\($0)" } ?? "null" }
    return "{\"id\":\(row.id),\"found\":true,\"weights\":\(list(row.weights)),\"state\":\(list(row.state)),"
      + "\"lastSeen\":\(number(row.lastSeen)),\"frequency\":\(number(row.frequency)),"
      + "\"waitingCount\":\(number(row.waitingCount))}"
  }

  private mutating func blocks(
    _ question: BlocksRequest, request: UInt64, peer: PeerID, now: Int64
  ) throws -> Blob? {
    // Nobody can have stored what is not durable here.
    release(upTo: min(question.persistedEpoch, durableEpoch))
    if question.afterEpoch < oldestRetained - 1 {
      throw ErrorReply(.gone, "blocks before epoch \(oldestRetained) are no longer kept; take a new base")
    }
    if let reply = blocksReply(question, request: request) { return reply }
    let deadline = now + Int64(min(question.waitMilliseconds, 60_000)) * 1_000_000
    if waitingReaders.count >= Self.readerLimit {
      waitingReaders[waitingReaders.count - Self.readerLimit].deadline = .min
    }
    waitingReaders.append(WaitingReader(peer: peer, request: request, question: question, deadline: deadline))
    return nil
  }

  /// The records a reader may have now; nil when there are none.
  func blocksReply(_ question: BlocksRequest, request: UInt64, evenIfEmpty: Bool = false) -> Blob? {
    var reply = BlocksReply(
      incarnation: incarnation, identityHigh: identity.high, identityLow: identity.low, durableEpoch: durableEpoch,
      records: [])
    var bytes = 0
    let limit = min(question.maximumBytes, Self.replyBytes)
    // What the asker has of a block is of the first one it lacks.
    var skip = Int(question.skipRecords)
    filling: for block in retained where block.epoch > question.afterEpoch && block.epoch <= durableEpoch {
      defer { skip = 0 }
      for (index, record) in block.records.enumerated().dropFirst(skip) {
        if bytes > 0, bytes + record.count > limit { break filling }
        bytes += record.count
        reply.records.append(BlockRecordEntry(epoch: block.epoch, index: UInt32(index), payload: ByteReader(record)))
      }
    }
    guard evenIfEmpty || !reply.records.isEmpty else { return nil }
    return reply.encoded(request: request)
  }
}
