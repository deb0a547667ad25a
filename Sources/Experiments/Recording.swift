// The events of a dataset in memory, so that several runs read them once. Immutable; any thread may read it.

public import Base
internal import Joining
public import Streams

/// All events of a dataset, in the order they lie there.
public struct Recording: Sendable {
  /// What the events look like.
  public let schema: EventSchema
  /// Impressions and actions.
  public let events: [Event]
  /// The features of every impression, in impression order.
  public let features: [FeatureBlock]
  /// When each impression was shown.
  public let times: [Milliseconds]
  /// How far a record may lie behind a later one.
  public let latenessMilliseconds: Int64
  /// Lines that could not be read.
  public let faults: Int

  /// How many impressions there are.
  public var impressions: Int { features.count }

  /// A recording of events.
  public init(events: [Event], schema: EventSchema, latenessMilliseconds: Int64 = 0, faults: Int = 0) {
    self.schema = schema
    self.events = events
    self.latenessMilliseconds = latenessMilliseconds
    self.faults = faults
    var features: [FeatureBlock] = []
    var times: [Milliseconds] = []
    for case .impression(let impression) in events {
      features.append(impression.features)
      times.append(impression.time)
    }
    self.features = features
    self.times = times
  }

  /// Reads all events.
  /// - Throws: `StreamError` for a file that cannot be read, `ExperimentError` for one without impressions.
  public init(
    reading input: inout EventInput, schema: EventSchema, progress: (Double) -> Void = { _ in }
  ) throws {
    var events: [Event] = []
    while let event = try input.next() {
      if case .watermark = event { continue }
      events.append(event)
      if events.count % 10_000 == 0 { progress(input.fraction) }
    }
    progress(1)
    self.init(
      events: events, schema: schema, latenessMilliseconds: input.latenessMilliseconds, faults: input.faultCount)
    guard impressions > 0 else {
      throw ExperimentError("there are no impressions in the events (\(faults) lines could not be read)")
    }
  }

  /// The same without the impressions after the first `share` of them, and without what came after those.
  ///
  /// Settings are chosen on such a part, so that nothing is known of the rest.
  public func first(_ share: Double) -> Recording {
    let wanted = max(1, Int(Double(impressions) * min(1, share)))
    guard wanted < impressions else { return self }
    var kept: [Event] = []
    var seen = 0
    for event in events {
      if case .impression = event {
        if seen == wanted { break }
        seen += 1
      }
      kept.append(event)
    }
    return Recording(events: kept, schema: schema, latenessMilliseconds: latenessMilliseconds, faults: faults)
  }

  /// The same with every id hashed into one of `slots` of its table, as tables of a fixed size would see it.
  ///
  /// - Parameter tables: by feature the table it reads; features that share one share its slots, nil has none.
  /// - Returns: the recording, and the share of each table's ids that do not have their slot for themselves.
  public func hashed(
    into slots: Int, tables: [String?]
  ) throws -> (recording: Recording, colliding: [String: Double]) {
    precondition(tables.count == schema.features.count, "\(tables.count) tables of \(schema.features.count) features")
    var owners: [String: [UInt64: Set<UInt64>]] = [:]
    let seeds = tables.map { $0.map { Hashing.xxh3($0) } }
    var hashed: [Event] = []
    hashed.reserveCapacity(events.count)
    for event in events {
      guard case .impression(var impression) = event else {
        hashed.append(event)
        continue
      }
      var values = try impression.features.values(of: schema)
      for feature in values.indices {
        guard case .ids(let ids) = values[feature], let table = tables[feature], let seed = seeds[feature] else {
          continue
        }
        values[feature] = .ids(
          ids.map { id in
            let slot = Hashing.mix(id ^ seed) % UInt64(slots)
            owners[table, default: [:]][slot, default: []].insert(id)
            return slot
          })
      }
      impression.features = FeatureBlock(schema: schema, values: values)
      hashed.append(.impression(impression))
    }
    var colliding: [String: Double] = [:]
    for (table, slots) in owners {
      let ids = slots.values.reduce(0) { $0 + $1.count }
      let shared = slots.values.reduce(0) { $0 + ($1.count > 1 ? $1.count : 0) }
      colliding[table] = Double(shared) / Double(max(1, ids))
    }
    let recording = Recording(
      events: hashed, schema: schema, latenessMilliseconds: latenessMilliseconds, faults: faults)
    return (recording, colliding)
  }

  /// Where the last fifth of the impressions begins.
  public var startOfLastFifth: Int { impressions * 4 / 5 }
}

/// Why an experiment cannot be made.
public struct ExperimentError: Error, Sendable, CustomStringConvertible {
  /// What is wrong, and what to do.
  public let description: String

  /// An error in words.
  public init(_ description: String) { self.description = description }
}
