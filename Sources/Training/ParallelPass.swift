// Batches on several threads: each has a run of a batch's examples and gradients of its own, and the sums are taken in the
// order of the runs, so the same batch gives the same bits in every run with as many threads. Two batches may be under way:
// a thread that is done with its run of one goes on with the next, while the caller reads, groups, scores and pushes others.
// A run goes piece by piece through forward, loss and backward, so that what the layers hand to each other is still in the
// cache. Matrix products stay on the thread that asks for them.

internal import Base
internal import Layers

/// One batch's way through a model: what goes in, and what came out once `ParallelPass` has given it back.
///
/// unchecked because: nobody writes to it from `begin` to `finish`, but each thread to its own `PassRun`, of which `ended`
/// tells.
final class Pass: @unchecked Sendable {
  var batch = Batch(exampleCount: 0, features: [])
  /// Weights of the batch's rows by table.
  var rows: [[Float]]
  /// All dense tensors.
  var dense: [[Float]]
  /// What is added to the logits before the loss is taken, `[examples × tasks]`, or empty.
  var shifts: [Float] = []
  /// What dropout draws from, another one for every batch.
  var seed: UInt64 = 0
  /// What the teacher of a user model makes of the batch, which is in the gradients only; nil for none.
  var lesson: Lesson?

  /// Shape `[examples × tasks]`.
  var logits: [Float] { runs[0].logits }
  /// Of `rows`.
  var rowGradients: [[Float]] { runs[0].rowGradients }
  /// Of `dense`.
  var denseGradients: [[Float]] { runs[0].denseGradients }
  /// Per task.
  var losses: [Double] { runs[0].losses }
  /// The mean square of the embeddings' distance to the teacher's, summed over examples.
  var distance: Double { runs[0].distance }

  fileprivate var runs: [PassRun] = []
  fileprivate var runCount = 0
  fileprivate var runsUnderWay = 0
  fileprivate let ended = Mailbox<PassRun>(bound: .max)

  init(rows: [[Float]], dense: [[Float]]) {
    self.rows = rows
    self.dense = dense
  }

  /// Lets go of a batch that has ended; the memory that is its own stays.
  func forget() {
    batch = Batch(exampleCount: 0, features: [])
    (shifts, lesson) = ([], nil)
  }

  /// Adds to the first run what the others found, in their order.
  fileprivate func sumUp() {
    let sum = runs[0]
    for run in runs[1..<runCount] {
      sum.distance += run.distance
      sum.logits += run.logits
      for task in run.losses.indices { sum.losses[task] += run.losses[task] }
      for table in rows.indices { add(run.rowGradients[table], to: &sum.rowGradients[table]) }
      for tensor in dense.indices { add(run.denseGradients[tensor], to: &sum.denseGradients[tensor]) }
    }
  }
}

/// What one thread made of its run of the examples.
///
/// unchecked because: it belongs to that thread until it is in the pass's mailbox.
private final class PassRun: @unchecked Sendable {
  var logits: [Float] = []
  var rowGradients: [[Float]] = []
  var denseGradients: [[Float]] = []
  var losses: [Double] = []
  var distance = 0.0
}

/// Forward, loss and backward of a model on a fixed number of threads.
final class ParallelPass {
  private let model: any Model
  /// Computes on the caller's thread when there are no others.
  private var own: RunComputation
  private let workers: [Worker]
  private var underWay: [Pass] = []
  /// The worker that takes the next batch's first run: one that has few runs is not always the same one's.
  private var nextWorker = 0

  /// - Parameters:
  ///   - threads: how many compute; 1 is the caller's own, which `begin` keeps until the batch has ended.
  ///   - stabilization: how strongly lessons pull.
  init(_ model: any Model, threads: Int, stabilization: Stabilization = Stabilization()) {
    self.model = model
    own = RunComputation(stabilization)
    workers = threads < 2 ? [] : (1...threads).map { Worker(model, number: $0, stabilization) }
  }

  deinit {
    for worker in workers { worker.stop() }
    for worker in workers { worker.join() }
  }

  /// Whether another batch may begin.
  var hasRoom: Bool { underWay.count < (workers.isEmpty ? 1 : Self.limit) }

  /// Begins with a batch; requires `hasRoom`.
  func begin(_ pass: Pass) {
    precondition(hasRoom, "\(underWay.count) batches are under way")
    underWay.append(pass)
    let cuts = cuts(pass.batch.exampleCount)
    pass.runCount = cuts.count - 1
    while pass.runs.count < pass.runCount { pass.runs.append(PassRun()) }
    guard !workers.isEmpty else { return own.train(model, pass, cuts[0]..<cuts[1], into: pass.runs[0]) }
    pass.runsUnderWay = pass.runCount
    for index in 0..<pass.runCount {
      let worker = workers[(nextWorker + index) % workers.count]
      worker.begin(pass, pass.runs[index], cuts[index]..<cuts[index + 1])
    }
    nextWorker = (nextWorker + pass.runCount) % workers.count
  }

  /// Gives the oldest batch back when it has ended; waits for up to `patience`, or until one more thread is done with it.
  func finish(patience: Duration) -> Pass? {
    guard let pass = underWay.first else { return nil }
    if pass.runsUnderWay > 0 { pass.runsUnderWay -= pass.ended.waitAll(timeout: patience).count }
    guard pass.runsUnderWay == 0 else { return nil }
    pass.sumUp()
    return underWay.removeFirst()
  }

  /// Where the runs of the examples begin and end; few examples are not worth a thread.
  private func cuts(_ examples: Int) -> [Int] {
    let runs = max(1, min(workers.count, examples / Self.leastRun))
    return (0...runs).map { $0 * examples / runs }
  }

  private static let leastRun = 64
  /// One that is computed and one that waits for whichever thread is done first.
  private static let limit = 2
}

/// What one thread keeps from piece to piece.
private struct RunComputation {
  private let stabilization: Stabilization
  private var scratch = Scratch()
  private var logits: [Float] = []
  private var logitGradients: [Float] = []
  private var embeddings: [Float] = []
  private var embeddingGradients: [Float] = []

  init(_ stabilization: Stabilization) { self.stabilization = stabilization }

  /// Fills `result`, whatever it held, with what comes of some of the examples.
  mutating func train(_ model: any Model, _ pass: Pass, _ range: Range<Int>, into result: PassRun) {
    let tasks = model.options.tasks.count
    result.losses = [Double](repeating: 0, count: tasks)
    result.distance = 0
    result.logits.removeAll(keepingCapacity: true)
    clear(&result.rowGradients, as: pass.rows)
    clear(&result.denseGradients, as: pass.dense)
    for start in stride(from: range.lowerBound, to: range.upperBound, by: Self.piece) {
      let piece = start..<min(start + Self.piece, range.upperBound)
      let batch = pass.batch.slice(piece)
      scratch.dropoutSeed = Hashing.mix(pass.seed &+ UInt64(start))
      model.forward(batch, rows: pass.rows, dense: pass.dense, scratch: &scratch, logits: &logits)
      result.logits += logits[..<(piece.count * tasks)]
      if !pass.shifts.isEmpty {
        for index in 0..<piece.count * tasks { logits[index] += pass.shifts[start * tasks + index] }
      }
      let losses = Losses.weightedLogLoss(logits: logits, batch: batch, gradients: &logitGradients)
      for task in losses.indices { result.losses[task] += losses[task] }
      if let userModel = model as? any UserModel, let lesson = pass.lesson {
        result.distance += follow(
          lesson.slice(piece, of: pass.batch.exampleCount), userModel, batch, shifts: pass.shifts, from: start)
        userModel.backward(
          batch, rows: pass.rows, dense: pass.dense, logitGradients: logitGradients,
          embeddingGradients: embeddingGradients, scratch: &scratch, rowGradients: &result.rowGradients,
          denseGradients: &result.denseGradients)
      } else {
        model.backward(
          batch, rows: pass.rows, dense: pass.dense, logitGradients: logitGradients, scratch: &scratch,
          rowGradients: &result.rowGradients, denseGradients: &result.denseGradients)
      }
    }
  }

  /// Lets a piece's gradients lean towards what the teacher makes of it; gives the distance between the two.
  private mutating func follow(
    _ piece: Lesson, _ model: any UserModel, _ batch: Batch, shifts: [Float], from start: Int
  ) -> Double {
    var lesson = piece
    model.embeddings(batch.exampleCount, scratch: &scratch, into: &embeddings)
    let distance = Losses.pull(
      embeddings, towards: lesson.embeddings, width: model.options.userModel.width,
      weight: stabilization.regularization, gradients: &embeddingGradients)
    guard stabilization.distillation > 0 else { return distance }
    if !shifts.isEmpty {
      let tasks = model.options.tasks.count
      for index in lesson.logits.indices { lesson.logits[index] += shifts[start * tasks + index] }
    }
    Losses.distill(
      teacher: lesson.logits, share: stabilization.distillation, batch: batch, gradients: &logitGradients)
    return distance
  }

  private func clear(_ gradients: inout [[Float]], as values: [[Float]]) {
    if gradients.count != values.count { gradients = values }
    for index in values.indices { zero(&gradients[index], as: values[index]) }
  }

  /// Examples of a piece: few enough for the cache, many enough for the matrix product.
  private static let piece = 256
}

/// A thread that computes its run of each batch.
///
/// unchecked because: `computation` belongs to the thread, `thread` to whoever made it, and the rest is constant.
private final class Worker: @unchecked Sendable {
  private struct Order {
    var pass: Pass
    var run: PassRun
    var range: Range<Int>
  }

  private let model: any Model
  private var computation: RunComputation
  private let orders = Mailbox<Order>(bound: .max)
  private var thread: OwnedThread?

  init(_ model: any Model, number: Int, _ stabilization: Stabilization) {
    self.model = model
    computation = RunComputation(stabilization)
    thread = OwnedThread(named: "train-\(number)") { [self] in run() }
  }

  func begin(_ pass: Pass, _ run: PassRun, _ range: Range<Int>) {
    _ = orders.offer(Order(pass: pass, run: run, range: range))
  }

  /// Asks the thread to end after what it computes.
  func stop() { orders.close() }

  func join() {
    thread?.join()
    thread = nil
  }

  private func run() {
    while !orders.isClosed {
      for order in orders.waitAll(timeout: .seconds(1)) where !orders.isClosed {
        computation.train(model, order.pass, order.range, into: order.run)
        _ = order.pass.ended.offer(order.run)
      }
    }
  }
}
