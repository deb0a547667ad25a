// A model that learns nothing and adds up exactly: it shows whether each example reached each row once, on real
// machines with real faults. Under plain SGD with rate 1 its parameters are sums of small whole numbers, which float32
// holds exactly below 2^24.

public import Base

/// What an example adds to every row it names and to the tensor `counts`.
public enum CountingModelSums {
  /// The example's identity: a hash of its partition and of the position of its end.
  public static func identity(partition: Int, end: Position) -> UInt64 {
    Hashing.mix(end.low ^ Hashing.mix(end.high ^ Hashing.mix(UInt64(partition))))
  }

  /// What the example adds to a column: 1 to column 0, to others a whole number in -20...20 that depends on the example.
  ///
  /// So a lost example and a repeated one cannot cancel out.
  public static func addend(of identity: UInt64, column: Int) -> Int {
    column == 0 ? 1 : Int(Hashing.mix(identity &+ UInt64(column)) % 41) - 20
  }
}

/// logit[t] = 0, whatever comes in; the gradients are minus what the batch's examples add.
///
/// Row: `sums` [dimension], once per occurrence. Tensor: `counts` [dimension], once per example.
struct CountingModel: ConfiguredModel {
  static let kind = "counting"
  let options: ModelOptions
  let denseTensors: [DenseTensor]

  static func problems(in options: ModelOptions) -> [String] {
    options.features.filter { $0.combiner != .sum }.map {
      "model.features '\($0.name)' is combined by \($0.combiner.rawValue); a counting model adds up, use sum"
    }
  }

  init(_ options: ModelOptions) {
    self.options = options
    denseTensors = [DenseTensor(name: "counts", shape: [options.dimension], initial: .zeros)]
  }

  func rowSegments(table: Int) -> [RowSegment] {
    guard options.features.contains(where: { $0.table == table }) else { return [] }
    return [RowSegment(name: "sums", width: options.dimension, initialDeviation: 0)]
  }

  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], scratch: inout Scratch, logits: inout [Float]) {
    batch.requireShape(options, rows: rows, dense: dense, expecting: denseTensors)
    logits = [Float](repeating: 0, count: batch.exampleCount * options.tasks.count)
  }

  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], scratch: inout Scratch,
    rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) {
    precondition(
      batch.identities.count == batch.exampleCount,
      "\(batch.identities.count) identities for \(batch.exampleCount) examples")
    let width = options.dimension
    for (example, identity) in batch.identities.enumerated() {
      for column in 0..<width {
        let addend = Float(CountingModelSums.addend(of: identity, column: column))
        denseGradients[0][column] -= addend
        for feature in batch.features {
          for occurrence in Int(feature.offsets[example])..<Int(feature.offsets[example + 1]) {
            rowGradients[feature.table][Int(feature.rows[occurrence]) * width + column] -= addend
          }
        }
      }
    }
  }
}
