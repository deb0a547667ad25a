// The state of stream features as bytes, part of the joiner's checkpoint; docs/formats.md has the layout. Events and
// features are stored by name, so features may come and go between two runs: a new one begins with what comes then.

public import Base

extension StreamFeatures {
  private static let format: UInt32 = 1

  /// Appends the whole state.
  public func encode(into writer: inout ByteWriter) {
    writer.append(Self.format)
    writer.append(frontier)
    for number in [seen.impressions, seen.actions, seen.repeated, seen.unmatched] { writer.append(number) }
    writer.append(UInt16(plan.kinds.count))
    for name in plan.kinds { writer.append(string: name) }
    writer.append(UInt16(plan.fieldNames.count))
    for name in plan.fieldNames { writer.append(string: name) }
    writer.append(UInt16(groups.count))
    for (group, state) in zip(plan.groups, groups) {
      writer.append(UInt16(group.fields.count))
      for field in group.fields { writer.append(UInt16(field)) }
      writer.append(UInt16(group.numbers.count))
      for number in group.numbers {
        writer.append(UInt16(number.kind))
        writer.append(number.halfLifeMilliseconds)
      }
      writer.append(UInt16(group.lists.count))
      for list in group.lists {
        writer.append(UInt16(list.kind))
        writer.append(UInt16(list.field))
      }
      state.encode(into: &writer)
    }
    recent.encode(into: &writer)
    encodeMoments(into: &writer)
  }

  /// Impressions that wait, numbered as they are written, and the moments that name those numbers.
  private func encodeMoments(into writer: inout ByteWriter) {
    var ordered: [Moment] = []
    var rest = moments
    while let moment = rest.popFirst() { ordered.append(moment) }
    var numbers: [Int32: UInt32] = [:]
    let places = ordered.filter { $0.step == .impression }.map(\.place)
    writer.append(UInt32(places.count))
    for place in places {
      numbers[place] = UInt32(numbers.count)
      writer.append(waiting[Int(place)].present)
      writer.append(array: waiting[Int(place)].ids)
    }
    writer.append(UInt32(ordered.count))
    for moment in ordered {
      writer.append(moment.time)
      writer.append(moment.step.rawValue)
      writer.append(moment.kind)
      writer.append(moment.id)
      writer.append(numbers[moment.place] ?? 0)
    }
  }

  /// Features that go on where others were encoded.
  /// - Throws: `DecodeError` when the bytes are damaged.
  public init(_ rules: StreamFeatureRules, decoding reader: inout ByteReader) throws(DecodeError) {
    self.init(rules)
    let format = try reader.read(UInt32.self)
    guard format == Self.format else {
      throw .invalid(field: "format of stream features", value: "\(format)", expected: "\(Self.format)")
    }
    frontier = try reader.read()
    seen.impressions = try reader.read()
    seen.actions = try reader.read()
    seen.repeated = try reader.read()
    seen.unmatched = try reader.read()
    // A stored number stands for the place beside it today; what is gone has none.
    var kindPlaces: [Int?] = []
    for _ in 0..<(try Self.count(&reader, "events", limit: EventSchema.streamEventLimit)) {
      kindPlaces.append(plan.kindNumbers[try reader.string()])
    }
    var fieldPlaces: [Int?] = []
    for _ in 0..<(try Self.count(&reader, "features", limit: 64)) {
      fieldPlaces.append(plan.fieldNames.firstIndex(of: try reader.string()))
    }
    for _ in 0..<(try Self.count(&reader, "groups", limit: EventSchema.featureLimit + 1)) {
      try decodeGroup(&reader, kindPlaces, fieldPlaces)
    }
    try recent.decode(&reader, fieldPlaces: fieldPlaces, kindPlaces: kindPlaces)
    try decodeMoments(&reader, kindPlaces, fieldPlaces)
  }

  private static func count(_ reader: inout ByteReader, _ what: String, limit: Int) throws(DecodeError) -> Int {
    let count = Int(try reader.read(UInt16.self))
    guard count <= limit else {
      throw .overLimit(field: "\(what) of stream features", value: UInt64(count), limit: UInt64(limit))
    }
    return count
  }

  private static func place(_ reader: inout ByteReader, _ what: String, in places: [Int?]) throws(DecodeError) -> Int? {
    let stored = Int(try reader.read(UInt16.self))
    guard stored < places.count else {
      throw .overLimit(field: "\(what) of a stream feature", value: UInt64(stored), limit: UInt64(places.count))
    }
    return places[stored]
  }

  private mutating func decodeGroup(
    _ reader: inout ByteReader, _ kindPlaces: [Int?], _ fieldPlaces: [Int?]
  ) throws(DecodeError) {
    var fields: [Int?] = []
    for _ in 0..<(try Self.count(&reader, "keys", limit: EventSchema.streamKeyLimit)) {
      fields.append(try Self.place(&reader, "feature", in: fieldPlaces))
    }
    let group = plan.groups.firstIndex { $0.fields.map(Optional.some) == fields }
    var numbers: [Int?] = []
    for _ in 0..<(try Self.count(&reader, "numbers", limit: 2 * EventSchema.featureLimit)) {
      let kind = try Self.place(&reader, "event", in: kindPlaces)
      let halfLife = try reader.read(Int64.self)
      let number = kind.map { StreamFeaturePlan.Number(kind: $0, halfLifeMilliseconds: halfLife) }
      numbers.append(number.flatMap { number in group.flatMap { plan.groups[$0].numbers.firstIndex(of: number) } })
    }
    var lists: [Int?] = []
    for _ in 0..<(try Self.count(&reader, "lists", limit: EventSchema.featureLimit)) {
      let kind = try Self.place(&reader, "event", in: kindPlaces)
      let field = try Self.place(&reader, "feature", in: fieldPlaces)
      guard let kind, let field, let group else {
        lists.append(nil)
        continue
      }
      lists.append(plan.groups[group].lists.firstIndex(of: StreamFeaturePlan.List(kind: kind, field: field)))
    }
    guard let group, groups[group].count == 0 else {
      // Nobody counts by these features any more: read past it.
      var gone = FeatureGroup(halfLives: [], listLimits: [], limit: .max)
      return try gone.decode(
        &reader, numberPlaces: numbers.map { _ in nil }, listPlaces: lists.map { _ in nil })
    }
    try groups[group].decode(&reader, numberPlaces: numbers, listPlaces: lists)
  }

  private mutating func decodeMoments(
    _ reader: inout ByteReader, _ kindPlaces: [Int?], _ fieldPlaces: [Int?]
  ) throws(DecodeError) {
    for _ in 0..<(try reader.count("waiting impressions", limit: .max)) {
      let present = try reader.read(UInt64.self)
      var impression = Waiting(ids: Array(repeating: 0, count: plan.fields.count))
      for (stored, place) in fieldPlaces.enumerated() {
        let id = try reader.read(UInt64.self)
        guard let place, present >> UInt64(stored) & 1 == 1 else { continue }
        impression.present |= 1 << UInt64(place)
        impression.ids[place] = id
      }
      waiting.append(impression)
    }
    var isNamed = Array(repeating: false, count: waiting.count)
    for _ in 0..<(try reader.count("waiting events", limit: .max)) {
      let time = try reader.read(Milliseconds.self)
      let rawStep = try reader.read(UInt8.self)
      guard let step = Moment.Step(rawValue: rawStep) else {
        throw .invalid(field: "kind of a waiting event", value: "\(rawStep)", expected: "0, 1 or 2")
      }
      let stored = Int(try reader.read(UInt8.self))
      let id = try reader.read(ImpressionID.self)
      let place = Int(try reader.read(UInt32.self))
      guard stored < kindPlaces.count else {
        throw .overLimit(field: "event of a stream feature", value: UInt64(stored), limit: UInt64(kindPlaces.count))
      }
      if step == .action {
        guard let kind = kindPlaces[stored] else { continue }
        moments.insert(Moment(time: time, step: step, kind: UInt8(kind), place: -1, id: id))
        continue
      }
      guard place < waiting.count, step == .valuation || !isNamed[place] else {
        throw .invalid(field: "waiting impression", value: "\(place)", expected: "each of \(waiting.count) once")
      }
      if step == .impression { isNamed[place] = true }
      moments.insert(Moment(time: time, step: step, kind: 0, place: Int32(place), id: id))
    }
    guard isNamed.allSatisfy({ $0 }) else {
      throw .invalid(field: "waiting impressions", value: "\(waiting.count)", expected: "an event for each")
    }
  }
}
