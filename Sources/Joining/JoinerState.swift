// The core's state as bytes: what a checkpoint holds. Tasks are stored by name, inputs by stream and partition, so that
// tasks, windows and rates may change and partitions may be added between two runs.

public import Base
internal import Streams

extension JoinerCore {
  private static let format: UInt32 = 3

  /// Appends the whole state.
  ///
  /// Examples must have been taken first. `drain` is called now and then and may take what is written.
  public borrowing func encode<Failure: Error>(
    into writer: inout ByteWriter, drain: (inout ByteWriter) throws(Failure) -> Void
  ) throws(Failure) {
    precondition(isDrained, "examples that were not taken would be lost by a checkpoint")
    writer.append(Self.format)
    writer.append(UInt16(tasks.names.count))
    for (name, labels) in zip(tasks.names, counters.labels) {
      writer.append(string: name)
      writer.append(labels.emitted)
      writer.append(labels.positive)
      writer.append(labels.sampled)
    }
    for number in JoinCounters.numbers { writer.append(counters[keyPath: number]) }
    writer.append(UInt16(tasks.actionNames.count))
    for name in tasks.actionNames { writer.append(string: name) }
    for stream in JoinStream.allCases {
      let inputs = rules.inputs.filter { $0.stream == stream }
      writer.append(UInt32(inputs.count))
      for input in inputs {
        writer.append(positions[rules.index(of: input)])
        writer.append(watermarks[rules.index(of: input)])
      }
    }
    try table.encode(into: &writer, drain: drain)
    writer.append(UInt32(withheld.count))
    for (id, mask) in withheld {
      writer.append(id)
      writer.append(mask)
    }
    let length = writer.count
    writer.append(UInt64(0))
    features?.encode(into: &writer)
    writer.patch(UInt64(writer.count - length - 8), at: length)
    try drain(&writer)
  }

  /// Appends the whole state in one piece.
  public borrowing func encode(into writer: inout ByteWriter) {
    encode(into: &writer) { (_: inout ByteWriter) throws(Never) in }
  }

  /// A core that goes on where another was encoded.
  /// - Throws: `DecodeError` when the bytes are damaged, or know more partitions than the rules.
  public init(rules: JoinRules, decoding reader: inout ByteReader) throws(DecodeError) {
    self.init(rules: rules)
    let format = try reader.read(UInt32.self)
    guard (1...Self.format).contains(format) else {
      throw .invalid(field: "joiner state format", value: "\(format)", expected: "1 to \(Self.format)")
    }
    // Bit t of a stored mask is bit taskPlaces[t] of ours; a task that is gone has no place.
    var taskPlaces: [Int?] = []
    for _ in 0..<Int(try reader.read(UInt16.self)) {
      let name = try reader.string()
      let place = tasks.names.firstIndex(of: name)
      taskPlaces.append(place)
      var counts = LabelCounts(task: name)
      counts.emitted = try reader.read()
      counts.positive = try reader.read()
      counts.sampled = try reader.read()
      if let place { counters.labels[place] = counts }
    }
    guard taskPlaces.count <= EventSchema.taskLimit else {
      throw .overLimit(field: "tasks", value: UInt64(taskPlaces.count), limit: UInt64(EventSchema.taskLimit))
    }
    let numbers = format < 3 ? JoinCounters.numbers.prefix(JoinCounters.firstNumbers) : JoinCounters.numbers[...]
    for number in numbers { counters[keyPath: number] = try reader.read() }
    var actionNumbers: [UInt16?] = []
    for _ in 0..<Int(try reader.read(UInt16.self)) { actionNumbers.append(tasks.actionNumbers[try reader.string()]) }
    for stream in JoinStream.allCases {
      let known = stream == .impressions ? rules.impressionPartitions : rules.actionPartitions
      for partition in 0..<(try reader.count("\(stream.rawValue) partitions of a joiner state", limit: known)) {
        let index = rules.index(of: JoinInput(stream, partition))
        positions[index] = try reader.read()
        watermarks[index] = try reader.read()
      }
    }
    watermark = watermarks.min() ?? .min
    stored.names = (taskPlaces, actionNumbers)
    table = try PendingTable(decoding: &reader, taskPlaces: taskPlaces, actionNumbers: actionNumbers)
    for _ in 0..<(try reader.count("withheld labels", limit: .max)) {
      let id = try reader.read(ImpressionID.self)
      withheld[id] = try PendingTable.mask(try reader.read(), taskPlaces)
    }
    if format > 1 { try decodeFeatures(&reader) }
    rearm()
  }

  /// Reads the state of the stream features, or past it when there are none any more.
  private mutating func decodeFeatures(_ reader: inout ByteReader) throws(DecodeError) {
    let length = Int(clamping: try reader.read(UInt64.self))
    var state = try reader.sub(count: length)
    guard length > 0, let rules = rules.features else { return }
    features = try StreamFeatures(rules, decoding: &state)
    try state.expectEnd()
  }

  /// Makes the appointments anew from the slots; windows may have changed since.
  private mutating func rearm() {
    var scratch = LabelScratch(tasks: tasks.names.count)
    for slot in table.slots.indices {
      switch table.slots[slot].kind {
      case .free: continue
      case .orphans:
        let first = table.actions[Int(table.slots[slot].firstAction)]
        table.slots[slot].due = first.time.later(by: tasks.memory)
      case .pending:
        scratch.read(table, slot: slot, tasks: tasks)
        let dues = Bits(tasks.all & ~table.slots[slot].done).map { scratch.due[$0] }
        guard let earliest = dues.min() else {  // every task that was still open is gone
          table.freeSlot(slot, rememberUntil: table.slots[slot].time.later(by: tasks.memory))
          continue
        }
        table.slots[slot].due = moment(ofDue: earliest, slot)
      }
      timers.add(Timers.Entry(due: table.slots[slot].due, slot: UInt32(slot), serial: table.slots[slot].serial))
    }
  }
}

extension PendingTable {
  func encode<Failure: Error>(
    into writer: inout ByteWriter, drain: (inout ByteWriter) throws(Failure) -> Void
  ) throws(Failure) {
    let live = slots.indices.filter { slots[$0].kind != .free }
    writer.append(UInt32(live.count))
    for index in live {
      let slot = slots[index]
      writer.append(slot.kind.rawValue)
      writer.append(slot.id)
      writer.append(UInt32(actionCount(of: index)))
      var next = slot.firstAction
      while next >= 0 {
        let action = actions[Int(next)]
        writer.append(action.name)
        writer.append(action.time)
        writer.append(action.arrival)
        next = action.next
      }
      guard slot.kind == .pending else { continue }
      writer.append(slot.done)
      writer.append(slot.time)
      writer.append(slot.floor)
      writer.append(slot.ordinal)
      writer.append(UInt16(slot.predictions.count))
      writer.append(array: slot.predictions)
      writer.append(UInt32(slot.features.bytes.count))
      writer.append(bytes: slot.features.bytes)
      try drain(&writer)
    }
    writer.append(UInt32(rememberedMinutes.count))
    for minute in rememberedMinutes {
      let ids = remembered(inMinute: minute)
      writer.append(minute)
      writer.append(UInt32(ids.count))
      writer.append(array: ids)
      try drain(&writer)
    }
  }

  init(decoding reader: inout ByteReader, taskPlaces: [Int?], actionNumbers: [UInt16?]) throws(DecodeError) {
    for _ in 0..<(try reader.count("pending impressions", limit: .max)) {
      let rawKind = try reader.read(UInt8.self)
      guard let kind = Slot.Kind(rawValue: rawKind), kind != .free else {
        throw .invalid(field: "kind of a pending entry", value: "\(rawKind)", expected: "1 or 2")
      }
      let id = try reader.read(ImpressionID.self)
      try expectUnknown(id)
      let index = makeSlot(id, kind)
      for _ in 0..<(try reader.count("actions of an impression", limit: .max)) {
        let stored = Int(try reader.read(UInt16.self))
        let time = try reader.read(Milliseconds.self)
        let arrival = try reader.read(Milliseconds.self)
        guard stored < actionNumbers.count else {
          throw .overLimit(field: "action number", value: UInt64(stored), limit: UInt64(actionNumbers.count))
        }
        guard let name = actionNumbers[stored] else { continue }
        _ = addAction(SeenAction(time: time, arrival: arrival, next: -1, name: name), to: index)
      }
      guard kind == .pending else {
        if slots[index].firstAction < 0 { freeSlot(index, rememberUntil: nil) }
        continue
      }
      let done = try PendingTable.mask(try reader.read(), taskPlaces)
      let time = try reader.read(Milliseconds.self)
      let floor = try reader.read(Milliseconds.self)
      let ordinal = try reader.read(Position.self)
      var predictions: [Float] = []
      for _ in 0..<Int(try reader.read(UInt16.self)) { predictions.append(Float(bitPattern: try reader.read())) }
      let bytes = try reader.count("feature bytes", limit: EventSchema.featureBytesLimit)
      let impression = Impression(
        id: id, time: time, features: FeatureBlock(bytes: try reader.view(UInt8.self, count: bytes).array),
        predictions: predictions)
      fill(index, impression, ordinal: ordinal, floor: floor)
      slots[index].done = done
    }
    for _ in 0..<(try reader.count("minutes of remembered ids", limit: .max)) {
      let minute = try reader.read(Int64.self)
      for _ in 0..<(try reader.count("remembered ids", limit: .max)) {
        let id = try reader.read(ImpressionID.self)
        try expectUnknown(id)
        remember(id, inMinute: minute)
      }
    }
  }

  /// A stored task mask with its bits at today's places.
  static func mask(_ stored: UInt64, _ taskPlaces: [Int?]) throws(DecodeError) -> UInt64 {
    var mask: UInt64 = 0
    for task in Bits(stored) {
      guard task < taskPlaces.count else {
        throw .invalid(field: "task mask", value: "\(stored)", expected: "\(taskPlaces.count) bits")
      }
      if let place = taskPlaces[task] { mask |= 1 << UInt64(place) }
    }
    return mask
  }

  private func expectUnknown(_ id: ImpressionID) throws(DecodeError) {
    guard find(id) == nil else {
      throw .invalid(field: "impression id", value: "\(id)", expected: "every id once")
    }
  }
}
