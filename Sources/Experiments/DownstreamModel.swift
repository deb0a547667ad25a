// The downstream side of the users experiment: logistic regressions that read the context of an impression and, perhaps, the
// user's vector as it was served. They are trained to convergence on one part and judged frozen on another.

internal import Base
internal import Layers
internal import Streams

/// Impressions as a downstream model reads them.
struct DownstreamData {
  /// By feature the number of each impression's id among the feature's ids.
  var columns: [[Int32]]
  /// How many ids each feature has.
  var idCounts: [Int]
  /// `[impressions × tasks]`: 0, 1, or NaN without a label.
  var labels: [Float]
  /// The tasks.
  var tasks: [String]
  /// The features' names.
  var names: [String] = []

  /// How many impressions there are.
  var count: Int { columns.first?.count ?? 0 }
}

/// How a downstream model is trained; chosen on the training part alone.
struct DownstreamSettings: Equatable {
  /// Step size of AdaGrad.
  var rate: Float
  /// Pull towards zero.
  var l2: Float
}

/// Logistic regression over ids and a vector, one for each task, trained side by side.
struct DownstreamModel {
  private let model: any Model
  private let batchSize = 256
  private let settings: DownstreamSettings
  private var rows: [[Float]]
  private var dense: [[Float]]
  private var rowSquares: [[Float]]
  private var denseSquares: [[Float]]
  private var scratch = Scratch()
  private let width: Int

  /// A model that has learnt nothing.
  /// - Parameter width: numbers of the vector; 0 for none.
  init(_ data: DownstreamData, width: Int, _ settings: DownstreamSettings) throws {
    self.settings = settings
    self.width = width
    var options = ModelOptions(
      kind: "logistic", features: data.columns.indices.map { ModelFeature(name: "f\($0)", table: $0) },
      tasks: data.tasks.map { ModelTask(name: $0) })
    options.denseWidth = width
    let model = try makeModel(options)
    self.model = model
    rows = data.idCounts.enumerated().map { [Float](repeating: 0, count: $1 * model.rowWidth(table: $0)) }
    dense = model.initialDense(seed: 1).map { $0.map { _ in 0 } }
    rowSquares = rows.map { $0.map { _ in 0.1 } }
    denseSquares = dense.map { $0.map { _ in 0.1 } }
  }

  /// One pass over some impressions, in an order drawn from the seed.
  /// - Parameter vectors: `[impressions × width]`, standardised.
  mutating func train(_ data: DownstreamData, vectors: [Float], over part: Range<Int>, seed: UInt64) {
    var random = SeededRandom(seed: seed)
    let order = part.shuffled(using: &random)
    var (logits, gradients): ([Float], [Float]) = ([], [])
    for start in stride(from: 0, to: order.count, by: batchSize) {
      let batch = batch(data, vectors, Array(order[start..<min(start + batchSize, order.count)]))
      model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
      _ = Losses.weightedLogLoss(logits: logits, batch: batch, gradients: &gradients)
      step(batch, gradients)
    }
  }

  private mutating func step(_ batch: Batch, _ logitGradients: [Float]) {
    var rowGradients = rows.map { [Float](repeating: 0, count: $0.count) }
    var denseGradients = dense.map { [Float](repeating: 0, count: $0.count) }
    model.backward(
      batch, rows: rows, dense: dense, logitGradients: logitGradients, scratch: &scratch, rowGradients: &rowGradients,
      denseGradients: &denseGradients)
    let tasks = model.options.tasks.count
    for (table, column) in batch.features.enumerated() {
      for row in Set(column.rows) {
        adapt(&rows[table], &rowSquares[table], rowGradients[table], Int(row) * tasks..<(Int(row) + 1) * tasks)
      }
    }
    for tensor in dense.indices {
      adapt(&dense[tensor], &denseSquares[tensor], denseGradients[tensor], dense[tensor].indices)
    }
  }

  /// AdaGrad on some numbers.
  private func adapt(_ values: inout [Float], _ squares: inout [Float], _ gradients: [Float], _ places: Range<Int>) {
    for place in places {
      let gradient = gradients[place] + settings.l2 * values[place]
      squares[place] += gradient * gradient
      values[place] -= settings.rate * gradient / squares[place].squareRoot()
    }
  }

  /// Probabilities `[part × tasks]`.
  mutating func predict(_ data: DownstreamData, vectors: [Float], over part: [Int]) -> [Float] {
    var probabilities: [Float] = []
    var (logits, some): ([Float], [Float]) = ([], [])
    for start in stride(from: 0, to: part.count, by: 4096) {
      let batch = batch(data, vectors, Array(part[start..<min(start + 4096, part.count)]))
      model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
      Losses.probabilities(logits: logits, into: &some)
      probabilities += some
    }
    return probabilities
  }

  private func batch(_ data: DownstreamData, _ vectors: [Float], _ impressions: [Int]) -> Batch {
    let tasks = data.tasks.count
    var (numbers, labels, weights): ([Float], [Float], [Float]) = ([], [], [])
    numbers.reserveCapacity(impressions.count * width)
    for impression in impressions {
      if width > 0 { numbers += vectors[impression * width..<(impression + 1) * width] }
      for task in 0..<tasks {
        let label = data.labels[impression * tasks + task]
        labels.append(label.isNaN ? 0 : label)
        weights.append(label.isNaN ? 0 : 1)
      }
    }
    return Batch(
      exampleCount: impressions.count,
      features: data.columns.enumerated().map { table, column in
        FeatureColumn(table: table, rows: impressions.map { column[$0] })
      }, dense: numbers, labels: labels, weights: weights)
  }
}

/// What a downstream model reaches.
struct DownstreamResult {
  /// `[judged impressions × tasks]`.
  var predictions: [Float]
  /// By task the settings and the number of passes that were chosen.
  var chosen: [(settings: DownstreamSettings, passes: Int)]
  /// By task and feature, the vector last: how much AUC is lost when its values are exchanged between impressions.
  var importance: [[Double]]
}

/// Trains, chooses and judges.
struct DownstreamTrial {
  let data: DownstreamData
  /// Where models are trained, and where they are judged.
  let training: Range<Int>
  let judged: Range<Int>
  let seed: UInt64
  static let candidates = [
    DownstreamSettings(rate: 0.02, l2: 1e-3), DownstreamSettings(rate: 0.05, l2: 1e-3),
    DownstreamSettings(rate: 0.05, l2: 1e-2), DownstreamSettings(rate: 0.02, l2: 1e-2),
  ]
  static let passes = 8

  /// Vectors with mean 0 and deviation 1 in the training part.
  private func standardised(_ vectors: [Float], width: Int) -> [Float] {
    guard width > 0 else { return [] }
    var result = vectors
    for column in 0..<width {
      var (sum, squares) = (0.0, 0.0)
      for row in training {
        let value = Double(vectors[row * width + column])
        sum += value
        squares += value * value
      }
      let mean = sum / Double(training.count)
      let deviation = max(1e-6, (squares / Double(training.count) - mean * mean).squareRoot())
      for row in 0..<data.count {
        result[row * width + column] = Float((Double(vectors[row * width + column]) - mean) / deviation)
      }
    }
    return result
  }

  /// Settings and passes are those that are best on the last quarter of the training part, for each task.
  func run(vectors: [Float], width: Int) throws -> DownstreamResult {
    let vectors = standardised(vectors, width: width)
    let tasks = data.tasks.count
    let cut = training.lowerBound + training.count * 3 / 4
    var best = [(loss: Double, settings: DownstreamSettings, passes: Int)](
      repeating: (.infinity, Self.candidates[0], 1), count: tasks)
    for settings in Self.candidates {
      var model = try DownstreamModel(data, width: width, settings)
      for pass in 1...Self.passes {
        model.train(data, vectors: vectors, over: training.lowerBound..<cut, seed: seed &+ UInt64(pass))
        let scores = model.predict(data, vectors: vectors, over: Array(cut..<training.upperBound))
        for task in 0..<tasks {
          let loss = metrics(scores, task, cut..<training.upperBound).logLoss ?? .infinity
          if loss < best[task].loss { best[task] = (loss, settings, pass) }
        }
      }
    }
    var result = DownstreamResult(
      predictions: [Float](repeating: 0, count: judged.count * tasks), chosen: best.map { ($0.settings, $0.passes) },
      importance: Array(repeating: [], count: tasks))
    for settings in Self.candidates where best.contains(where: { $0.settings == settings }) {
      var model = try DownstreamModel(data, width: width, settings)
      for pass in 1...Self.passes {
        model.train(data, vectors: vectors, over: training, seed: seed &+ UInt64(pass))
        let due = (0..<tasks).filter { best[$0].settings == settings && best[$0].passes == pass }
        guard !due.isEmpty else { continue }
        let scores = model.predict(data, vectors: vectors, over: Array(judged))
        for task in due {
          for row in 0..<judged.count { result.predictions[row * tasks + task] = scores[row * tasks + task] }
          result.importance[task] = importance(&model, vectors, width: width, scores, task)
        }
      }
    }
    return result
  }

  private func importance(
    _ model: inout DownstreamModel, _ vectors: [Float], width: Int, _ scores: [Float], _ task: Int
  ) -> [Double] {
    let whole = metrics(scores, task, judged).auc ?? 0.5
    var random = SeededRandom(seed: seed)
    let order = judged.shuffled(using: &random)
    var losses: [Double] = []
    for feature in data.columns.indices {
      var changed = data
      for (row, other) in zip(judged, order) { changed.columns[feature][row] = data.columns[feature][other] }
      let scores = model.predict(changed, vectors: vectors, over: Array(judged))
      losses.append(whole - (metrics(scores, task, judged).auc ?? 0.5))
    }
    if width > 0 {
      var changed = vectors
      for (row, other) in zip(judged, order) {
        changed.replaceSubrange(row * width..<(row + 1) * width, with: vectors[other * width..<(other + 1) * width])
      }
      let scores = model.predict(data, vectors: changed, over: Array(judged))
      losses.append(whole - (metrics(scores, task, judged).auc ?? 0.5))
    }
    return losses
  }

  /// The quality of some scores `[part × tasks]`.
  func metrics(_ scores: [Float], _ task: Int, _ part: Range<Int>) -> ScoreMetrics {
    let tasks = data.tasks.count
    return Metrics.scores(
      (0..<part.count).map { scores[$0 * tasks + task] },
      labels: part.map { data.labels[$0 * tasks + task] })
  }
}
