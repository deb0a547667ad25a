// One batch on several threads: each has a run of the examples and gradients of its own, and the sums are taken in the
// order of the runs, so the same batch gives the same bits in every run with as many threads. The calling thread does the
// first run itself. A run goes piece by piece through forward, loss and backward, so that what the layers hand to each
// other is still in the cache. Matrix products stay on the thread that asks for them.

internal import Base
internal import Layers

/// Forward, loss and backward of a model on a fixed number of threads.
final class ParallelPass {
  private let model: any Model
  private var run: Run
  private let workers: [Worker]
  /// Of the last batch: the mean square of the embeddings' distance to the teacher's, summed over examples.
  private(set) var distance = 0.0

  /// - Parameters:
  ///   - threads: how many in all, the caller's included; 1 starts none.
  ///   - stabilization: how strongly lessons pull.
  init(_ model: any Model, threads: Int, stabilization: Stabilization = Stabilization()) {
    self.model = model
    run = Run(stabilization)
    workers = (1..<max(1, threads)).map { Worker(model, number: $0, stabilization) }
  }

  deinit { for worker in workers { worker.stop() } }

  /// Fills `logits` (`[examples × tasks]`) and both gradients, whatever they held, and gives the loss of each task.
  ///
  /// - Parameters:
  ///   - shifts: what is added to the logits before the loss is taken, `[examples × tasks]`, or empty.
  ///   - seed: what dropout draws from, another one for every batch.
  ///   - lesson: what the teacher of a user model makes of the batch; nil for none. It is in the gradients only.
  func train(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], shifts: [Float] = [], seed: UInt64 = 0, lesson: Lesson? = nil,
    logits: inout [Float], rowGradients: inout [[Float]], denseGradients: inout [[Float]]
  ) -> [Double] {
    let cuts = cuts(batch.exampleCount)
    let order = Order(batch: batch, rows: rows, dense: dense, shifts: shifts, seed: seed, lesson: lesson)
    let helpers = workers.prefix(cuts.count - 2)
    for (index, worker) in helpers.enumerated() { worker.begin(order, cuts[index + 1]..<cuts[index + 2]) }
    run.train(
      model, order, 0..<cuts[1], logits: &logits, rowGradients: &rowGradients, denseGradients: &denseGradients)
    var losses = run.losses
    distance = run.distance
    for worker in helpers {
      worker.finish()
      distance += worker.distance
      logits += worker.logits
      for task in losses.indices { losses[task] += worker.losses[task] }
      for table in rowGradients.indices { add(worker.rowGradients[table], to: &rowGradients[table]) }
      for tensor in denseGradients.indices { add(worker.denseGradients[tensor], to: &denseGradients[tensor]) }
    }
    return losses
  }

  /// Where the runs of the examples begin and end; few examples are not worth a hand-over.
  private func cuts(_ examples: Int) -> [Int] {
    let runs = max(1, min(workers.count + 1, examples / Self.leastRun))
    return (0...runs).map { $0 * examples / runs }
  }

  private static let leastRun = 64
}

/// What all threads read of one batch.
private struct Order: Sendable {
  let batch: Batch
  let rows: [[Float]]
  let dense: [[Float]]
  let shifts: [Float]
  let seed: UInt64
  let lesson: Lesson?
}

/// What one thread keeps from piece to piece.
private struct Run {
  /// Per task, of the examples `train` was given last.
  private(set) var losses: [Double] = []
  private(set) var distance = 0.0
  private let stabilization: Stabilization
  private var scratch = Scratch()
  private var logits: [Float] = []
  private var logitGradients: [Float] = []
  private var embeddings: [Float] = []
  private var embeddingGradients: [Float] = []

  init(_ stabilization: Stabilization) { self.stabilization = stabilization }

  /// Fills logits and gradients of some of the examples.
  mutating func train(
    _ model: any Model, _ order: Order, _ range: Range<Int>, logits: inout [Float], rowGradients: inout [[Float]],
    denseGradients: inout [[Float]]
  ) {
    let tasks = model.options.tasks.count
    losses = [Double](repeating: 0, count: tasks)
    distance = 0
    logits.removeAll(keepingCapacity: true)
    clear(&rowGradients, as: order.rows)
    clear(&denseGradients, as: order.dense)
    for start in stride(from: range.lowerBound, to: range.upperBound, by: Self.piece) {
      let piece = start..<min(start + Self.piece, range.upperBound)
      let batch = order.batch.slice(piece)
      scratch.dropoutSeed = Hashing.mix(order.seed &+ UInt64(start))
      model.forward(batch, rows: order.rows, dense: order.dense, scratch: &scratch, logits: &self.logits)
      logits += self.logits[..<(piece.count * tasks)]
      if !order.shifts.isEmpty {
        for index in 0..<piece.count * tasks { self.logits[index] += order.shifts[start * tasks + index] }
      }
      let losses = Losses.weightedLogLoss(logits: self.logits, batch: batch, gradients: &logitGradients)
      for task in losses.indices { self.losses[task] += losses[task] }
      if let userModel = model as? any UserModel, let lesson = order.lesson {
        follow(lesson.slice(piece, of: order.batch.exampleCount), userModel, batch, shifts: order.shifts, from: start)
        userModel.backward(
          batch, rows: order.rows, dense: order.dense, logitGradients: logitGradients,
          embeddingGradients: embeddingGradients, scratch: &scratch, rowGradients: &rowGradients,
          denseGradients: &denseGradients)
      } else {
        model.backward(
          batch, rows: order.rows, dense: order.dense, logitGradients: logitGradients, scratch: &scratch,
          rowGradients: &rowGradients, denseGradients: &denseGradients)
      }
    }
  }

  /// Lets a piece's gradients lean towards what the teacher makes of it.
  private mutating func follow(
    _ piece: Lesson, _ model: any UserModel, _ batch: Batch, shifts: [Float], from start: Int
  ) {
    var lesson = piece
    model.embeddings(batch.exampleCount, scratch: &scratch, into: &embeddings)
    distance += Losses.pull(
      embeddings, towards: lesson.embeddings, width: model.options.userModel.width,
      weight: stabilization.regularization, gradients: &embeddingGradients)
    guard stabilization.distillation > 0 else { return }
    if !shifts.isEmpty {
      let tasks = model.options.tasks.count
      for index in lesson.logits.indices { lesson.logits[index] += shifts[start * tasks + index] }
    }
    Losses.distill(
      teacher: lesson.logits, share: stabilization.distillation, batch: batch, gradients: &logitGradients)
  }

  private func clear(_ gradients: inout [[Float]], as values: [[Float]]) {
    if gradients.count != values.count { gradients = values }
    for index in values.indices { zero(&gradients[index], as: values[index]) }
  }

  /// Examples of a piece: few enough for the cache, many enough for the matrix product.
  private static let piece = 256
}

/// A thread that works on its run of each batch.
///
/// unchecked because: its fields belong to the worker's thread between `begin` and the end of `finish`, and to the caller's
/// otherwise; the mailboxes order the two.
private final class Worker: @unchecked Sendable {
  private(set) var logits: [Float] = []
  private(set) var rowGradients: [[Float]] = []
  private(set) var denseGradients: [[Float]] = []
  var losses: [Double] { state.losses }
  var distance: Double { state.distance }
  private let model: any Model
  private var state: Run
  private let orders = Mailbox<(Order, Range<Int>)>(bound: 1)
  private let done = Mailbox<Bool>(bound: 1)
  private var thread: OwnedThread?

  init(_ model: any Model, number: Int, _ stabilization: Stabilization) {
    self.model = model
    state = Run(stabilization)
    thread = OwnedThread(named: "train-\(number)") { [self] in run() }
  }

  func begin(_ order: Order, _ range: Range<Int>) { _ = orders.offer((order, range)) }

  func finish() {
    while done.waitAll(timeout: .seconds(1)).isEmpty {}
  }

  func stop() {
    orders.close()
    thread?.join()
    thread = nil
  }

  private func run() {
    while !orders.isClosed {
      if perform() { _ = done.offer(true) }
    }
  }

  /// A function of its own, so that the order's arrays are let go of before anybody hears that it is done.
  private func perform() -> Bool {
    let received = orders.waitAll(timeout: .seconds(1))
    for (order, range) in received {
      state.train(
        model, order, range, logits: &logits, rowGradients: &rowGradients, denseGradients: &denseGradients)
    }
    return !received.isEmpty
  }
}
