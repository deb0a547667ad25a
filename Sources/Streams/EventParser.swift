// JSON Lines → events (docs/events.md). simdjson checks the text; this file checks it against the schema and builds the
// feature block. A line is taken whole or refused whole, with a typed reason. One parser per thread.

public import Base

/// Turns lines of JSON into events of one schema.
public struct EventParser: ~Copyable {
  /// Limits of what is believed.
  public struct Options: Equatable, Sendable {
    /// The most bytes a line may have.
    ///
    /// Default 1 MiB, the limit of a feature block.
    public var lineByteLimit = 1 << 20
    /// The event times that can be meant.
    ///
    /// Default 1990 to 2100, which refuses seconds and microseconds.
    public var times: ClosedRange<Milliseconds> = 631_152_000_000...4_102_444_800_000
    /// Features that lines may have though the schema has not: they are skipped.
    ///
    /// For datasets richer than the model.
    public var ignoredFeatures: Set<String> = []

    /// The defaults.
    public init() {}
  }

  /// The schema lines are read against.
  public let schema: EventSchema
  private(set) var options: Options
  /// The latest event time that is believed; `options.times` ends with it.
  public var latestTime: Milliseconds {
    get { options.times.upperBound }
    set { options.times = options.times.lowerBound...max(options.times.lowerBound, newValue) }
  }
  private let taskNames: NameTable
  private var features: FeatureParser
  private var actionNames: [UInt64: (name: String, bytes: [UInt8])] = [:]
  private var json: JSONText

  /// The most bytes an action's name may have.
  public static let actionNameLimit = 256

  /// A parser for a schema.
  public init(schema: EventSchema, options: Options = Options()) {
    self.schema = schema
    self.options = options
    taskNames = NameTable(schema.tasks.map(\.name))
    features = FeatureParser(schema: schema, ignored: options.ignoredFeatures)
    json = JSONText(limit: options.lineByteLimit)
  }

  /// The event that `line` holds.
  ///
  /// `number` is only for the error.
  public mutating func parse(_ line: RawSpan, line number: Int) throws(EventFault) -> Event {
    do throws(EventFault.Reason) {
      guard line.byteCount <= options.lineByteLimit else {
        throw .oversized(bytes: line.byteCount, limit: options.lineByteLimit)
      }
      do { try json.parse(line) } catch {
        switch error {
        case .notUTF8: throw .notUTF8
        case .malformed(let problem): throw .notJSON(problem)
        }
      }
      return try event()
    } catch {
      throw EventFault(line: number, reason: error)
    }
  }

  private enum Field: Int {
    case type, id, time, features, prediction, impression, action
  }

  /// The tokens of an event's fields; 0 where there is none.
  private struct Fields {
    private var tokens = SIMD8<Int>()

    subscript(field: Field) -> Int {
      get { tokens[field.rawValue] }
      set { tokens[field.rawValue] = newValue }
    }
  }

  private mutating func event() throws(EventFault.Reason) -> Event {
    let root = json[0]
    guard root.kind == .object else { throw .notJSON("the line is \(root.kind.words)") }
    var fields = Fields()
    var next = 1
    for _ in 0..<root.count {
      let key = json[next]
      guard let field = field(key) else {
        throw .unknownField(
          json.string(of: key), of: "an event",
          known: ["type", "id", "time", "features", "prediction", "impression", "action"])
      }
      guard fields[field] == 0 else { throw .repeated(field: json.string(of: key)) }
      fields[field] = next + 1
      next = json[next + 1].end
    }
    guard fields[.type] != 0 else { throw .missing(field: "type", of: "the event") }
    let type = json[fields[.type]]
    guard type.kind == .text else { throw .wrongType(field: "type", found: type.kind.words, expected: "a text") }
    if json.text(type, is: "impression") { return .impression(try impression(fields)) }
    if json.text(type, is: "action") { return .action(try action(fields)) }
    if json.text(type, is: "watermark") { return try watermark(fields) }
    throw .unknownType(json.string(of: type))
  }

  private func field(_ key: JSONToken) -> Field? {
    switch key.count {
    case 2: json.text(key, is: "id") ? .id : nil
    case 4: json.text(key, is: "type") ? .type : json.text(key, is: "time") ? .time : nil
    case 6: json.text(key, is: "action") ? .action : nil
    case 8: json.text(key, is: "features") ? .features : nil
    case 10: json.text(key, is: "impression") ? .impression : json.text(key, is: "prediction") ? .prediction : nil
    default: nil
    }
  }

  private mutating func impression(_ fields: Fields) throws(EventFault.Reason) -> Impression {
    let known = ["type", "id", "time", "features", "prediction"]
    guard fields[.impression] == 0 else { throw .unknownField("impression", of: "an impression", known: known) }
    guard fields[.action] == 0 else { throw .unknownField("action", of: "an impression", known: known) }
    return Impression(
      id: try identity(fields[.id], "id", of: "the impression"), time: try time(fields, of: "the impression"),
      features: try features.block(json, at: fields[.features]), predictions: try predictions(fields[.prediction]))
  }

  private mutating func action(_ fields: Fields) throws(EventFault.Reason) -> Action {
    let known = ["type", "impression", "action", "time"]
    guard fields[.id] == 0 else { throw .unknownField("id", of: "an action", known: known) }
    guard fields[.features] == 0 else { throw .unknownField("features", of: "an action", known: known) }
    guard fields[.prediction] == 0 else { throw .unknownField("prediction", of: "an action", known: known) }
    guard fields[.action] != 0 else { throw .missing(field: "action", of: "the action") }
    return Action(
      impression: try identity(fields[.impression], "impression", of: "the action"),
      name: try actionName(json[fields[.action]]), time: try time(fields, of: "the action"))
  }

  private func watermark(_ fields: Fields) throws(EventFault.Reason) -> Event {
    let known = ["type", "time"]
    for (field, name) in [
      (fields[.id], "id"), (fields[.features], "features"), (fields[.prediction], "prediction"),
      (fields[.impression], "impression"), (fields[.action], "action"),
    ] where field != 0 {
      throw .unknownField(name, of: "a watermark", known: known)
    }
    return .watermark(time: try time(fields, of: "the watermark"))
  }

  private func time(_ fields: Fields, of event: String) throws(EventFault.Reason) -> Milliseconds {
    guard fields[.time] != 0 else { throw .missing(field: "time", of: event) }
    let token = json[fields[.time]]
    guard let time = token.integer else {
      throw .wrongType(field: "time", found: token.kind.words, expected: "an integer, UTC milliseconds")
    }
    guard options.times.contains(time) else { throw .absurdTime(time, allowed: options.times) }
    return time
  }

  private func identity(_ at: Int, _ field: String, of event: String) throws(EventFault.Reason) -> ImpressionID {
    guard at != 0 else { throw .missing(field: field, of: event) }
    let token = json[at]
    switch token.kind {
    case .unsigned, .negative: return ImpressionID(token.bits)
    case .text: return ImpressionID(json.string(of: token))
    default: throw .wrongType(field: field, found: token.kind.words, expected: "an integer or a text")
    }
  }

  /// The few names that occur are kept, so that a known one costs no new string.
  private mutating func actionName(_ token: JSONToken) throws(EventFault.Reason) -> String {
    guard token.kind == .text else {
      throw .wrongType(field: "action", found: token.kind.words, expected: "a text")
    }
    guard (1...Self.actionNameLimit).contains(token.count) else {
      throw .badActionName(bytes: token.count, limit: Self.actionNameLimit)
    }
    let hash = json.hash(of: token)
    if let known = actionNames[hash], json.text(token, is: known.bytes) { return known.name }
    let name = json.string(of: token)
    if actionNames.count < 256 { actionNames[hash] = (name, Array(name.utf8)) }
    return name
  }

  private func predictions(_ at: Int) throws(EventFault.Reason) -> [Float] {
    guard at != 0 else { return [] }
    let object = json[at]
    if object.kind == .null { return [] }
    guard object.kind == .object else {
      throw .wrongType(field: "prediction", found: object.kind.words, expected: "an object of task and probability")
    }
    guard object.count > 0 else { return [] }
    var values = [Float](repeating: .nan, count: taskNames.names.count)
    var seen: UInt64 = 0  // at most 64 tasks
    var next = at + 1
    for expected in 0..<object.count {
      let key = json[next]
      guard let task = taskNames.index(of: key, in: json, expecting: expected) else {
        throw .unknownTask(json.string(of: key), known: taskNames.names)
      }
      guard seen & 1 << UInt64(task) == 0 else { throw .repeated(field: taskNames.names[task]) }
      seen |= 1 << UInt64(task)
      let value = json[next + 1]
      guard value.kind == .null || value.number != nil else {
        throw .wrongType(field: taskNames.names[task], found: value.kind.words, expected: "a probability")
      }
      if let number = value.number {
        guard (0...1).contains(number) else { throw .notAProbability(task: taskNames.names[task], value: number) }
        values[task] = Float(number)
      }
      next = value.end
    }
    return values
  }
}

extension EventFault.Reason: Error {}
