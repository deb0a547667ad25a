// What the joiner gives the trainer: one impression's features with the labels that are due at one moment.

public import Base

/// A task's label inside an example.
public enum Label: UInt8, Sendable, BitwiseCopyable {
  /// The action did not happen in time.
  case negative = 0
  /// The action happened.
  case positive = 1
  /// Not due in this example (or a negative that sampling dropped): carries no loss.
  case masked = 255
}

/// One training example.
public struct Example: Equatable, Sendable {
  /// The impression it was made from.
  public var impression: ImpressionID
  /// When the impression was shown, event time.
  public var time: Milliseconds
  /// The impression's place among all impressions: its position in its stream's partition.
  ///
  /// With `time` it gives the impression order that `last20` is defined on.
  public var ordinal: Position
  /// The event time at which these labels became due.
  public var due: Milliseconds
  /// When the newest action among its labels and its closing arrived; 0 when none did (the window closed it).
  public var arrival: Milliseconds
  /// One per task of the schema.
  public var labels: [Label]
  /// The sampling rate r of each task's negatives, one per task.
  public var rates: [Float]
  /// The probabilities the impression was served with, one per task, or empty.
  public var predictions: [Float]
  /// The impression's features.
  public var features: FeatureBlock

  /// An example from its parts.
  public init(
    impression: ImpressionID, time: Milliseconds, ordinal: Position, due: Milliseconds, arrival: Milliseconds,
    labels: [Label], rates: [Float], predictions: [Float], features: FeatureBlock
  ) {
    self.impression = impression
    self.time = time
    self.ordinal = ordinal
    self.due = due
    self.arrival = arrival
    self.labels = labels
    self.rates = rates
    self.predictions = predictions
    self.features = features
  }

  /// Appends the example's bytes.
  public func encode(into writer: inout ByteWriter) {
    writer.append(UInt8(1))
    writer.append(impression)
    writer.append(time)
    writer.append(ordinal)
    writer.append(due)
    writer.append(arrival)
    writer.append(UInt16(labels.count))
    for label in labels { writer.append(label.rawValue) }
    writer.append(array: rates)
    writer.append(UInt16(predictions.count))
    writer.append(array: predictions)
    writer.append(UInt32(features.bytes.count))
    writer.append(bytes: features.bytes)
  }

  /// Reads what `encode` wrote.
  public init(decoding reader: inout ByteReader) throws(DecodeError) {
    let format = try reader.read(UInt8.self)
    guard format == 1 else { throw .invalid(field: "example format", value: "\(format)", expected: "1") }
    impression = try reader.read()
    time = try reader.read()
    ordinal = try reader.read()
    due = try reader.read()
    arrival = try reader.read()
    let tasks = Int(try reader.read(UInt16.self))
    guard tasks <= EventSchema.taskLimit else {
      throw .overLimit(field: "labels", value: UInt64(tasks), limit: UInt64(EventSchema.taskLimit))
    }
    var labels: [Label] = []
    labels.reserveCapacity(tasks)
    for _ in 0..<tasks {
      let raw = try reader.read(UInt8.self)
      guard let label = Label(rawValue: raw) else {
        throw .invalid(field: "label", value: "\(raw)", expected: "0, 1 or 255")
      }
      labels.append(label)
    }
    self.labels = labels
    rates = try reader.floats(count: tasks, limit: EventSchema.taskLimit)
    predictions = try reader.floats(count: Int(reader.read(UInt16.self)), limit: EventSchema.taskLimit)
    let count = try reader.count("feature bytes", limit: EventSchema.featureBytesLimit)
    features = FeatureBlock(bytes: try reader.view(UInt8.self, count: count).array)
  }
}
