// A batch of which nothing was pushed, because a number in it was not finite: what was found where, and the examples, so
// that it can be looked at and fed again. The trainer's shell writes it down.

public import Base
internal import Foundation
internal import Layers
public import Streams

/// A batch that reached no table.
public struct RejectedBatch: Sendable {
  /// The model.
  public var model: String
  /// The partition of the stream of examples.
  public var partition: Int
  /// Where the batch begins and ends in it.
  public var positions: (previousEnd: Position, end: Position)
  /// What was found, with table and id, tensor or feature.
  public var cause: String
  /// The examples as they were read.
  public var examples: [Example]

  /// The batch as one JSON object; numbers that are not finite are texts.
  func json(schema: EventSchema) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = .convertToString(
      positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    let batch = Written(
      model: model, partition: partition, previousEnd: "\(positions.previousEnd)", end: "\(positions.end)",
      cause: cause, examples: try examples.map { try Written.Line($0, schema) })
    return Array(try encoder.encode(batch)) + [0x0A]
  }

  private struct Written: Encodable {
    struct Line: Encodable {
      var impression: String
      var time: Milliseconds
      var labels: [String: Int]
      var ids: [String: [UInt64]] = [:]
      var numbers: [String: [Float]] = [:]

      init(_ example: Example, _ schema: EventSchema) throws {
        impression = "\(example.impression)"
        time = example.time
        labels = Dictionary(
          uniqueKeysWithValues: zip(schema.tasks, example.labels).filter { $1 != .masked }.map {
            ($0.name, $1 == .positive ? 1 : 0)
          })
        for (feature, value) in zip(schema.features, try example.features.values(of: schema)) {
          switch value {
          case .ids(let values): ids[feature.name] = values
          case .numbers(let values): numbers[feature.name] = values
          }
        }
      }
    }

    var model: String
    var partition: Int
    var previousEnd: String
    var end: String
    var cause: String
    var examples: [Line]
  }

  /// The most files kept of one model; later ones are only counted.
  static let fileLimit = 100

  /// Writes the batch into a directory, and gives the path; nil when enough are there.
  public func write(into directory: String, schema: EventSchema) throws -> String? {
    try Files.makeDirectory(directory)
    guard try Files.names(in: directory).count < Self.fileLimit else { return nil }
    let path = "\(directory)/\(model)-\(partition)-\(positions.end).json"
    try Files.replace(path, with: try json(schema: schema))
    return path
  }
}

extension RejectedBatch {
  /// Writes the batch down and says so; that it could not be written is said too, and training goes on.
  ///
  /// - Parameter directory: where to; nil for nowhere.
  func keep(in directory: String?, schema: EventSchema) -> String {
    let words = "a batch of partition \(partition) up to \(positions.end) is left out: \(cause)"
    guard let directory else { return words }
    do {
      return words + (try write(into: directory, schema: schema).map { "; it is in \($0)" } ?? "")
    } catch {
      return words + "; it could not be kept: \(error)"
    }
  }
}

/// Where in a batch's numbers one is not finite.
struct NonFinite {
  let options: TrainerOptions
  let batch: TrainingBatch

  /// In the input, the parameters or the logits of the forward pass; nil when all are finite.
  func inForward(_ input: Batch, rows: [[Float]], dense: [[Float]], logits: [Float]) -> String? {
    if let place = input.dense.firstIndex(where: { !$0.isFinite }) {
      let example = batch.examples[place / max(1, options.model.denseWidth)]
      return "the dense numbers of impression \(example.impression) hold \(input.dense[place])"
    }
    guard let logit = logits.firstIndex(where: { !$0.isFinite }) else { return nil }
    if let row = inRows(rows) { return "the row of \(row)" }
    for (tensor, values) in dense.enumerated() {
      guard let place = values.firstIndex(where: { !$0.isFinite }) else { continue }
      return "tensor '\(options.tensors[options.tensorIndex[tensor]].name)' holds \(values[place])"
    }
    let tasks = options.model.tasks
    let example = batch.examples[logit / tasks.count]
    return "the logit of task '\(tasks[logit % tasks.count].name)' for impression \(example.impression) is "
      + "\(logits[logit]), from finite parameters"
  }

  /// In the gradients; nil when all are finite.
  func inBackward(rows: [[Float]], dense: [[Float]]) -> String? {
    if rows.allSatisfy({ areFinite($0) }), dense.allSatisfy({ areFinite($0) }) { return nil }
    if let row = inRows(rows) { return "the gradient of \(row)" }
    let tensor = dense.firstIndex { !areFinite($0) } ?? 0
    return "the gradient of tensor '\(options.tensors[options.tensorIndex[tensor]].name)' is not finite"
  }

  private func inRows(_ rows: [[Float]]) -> String? {
    for (table, values) in rows.enumerated() where !areFinite(values) {
      guard let place = values.firstIndex(where: { !$0.isFinite }) else { continue }
      let shape = options.tables[options.tableIndex[table]]
      let id = batch.assembler.uniqueIds[table][place / shape.weightCount]
      return "id \(id) in table '\(shape.name)' holds \(values[place])"
    }
    return nil
  }
}
