// One batch on several threads: each has a run of the examples, a scratch and gradients of its own, and the sums are taken
// in the order of the runs, so the same batch gives the same bits in every run with as many threads. The calling thread
// does the first run itself. Matrix products stay on the thread that asks for them.

internal import Base
internal import Layers

/// Forward and backward of a model on a fixed number of threads.
final class ParallelPass {
  private let model: any Model
  private var scratch = Scratch()
  private var slice: Batch?
  private var logits: [Float] = []
  private let workers: [Worker]

  /// - Parameter threads: how many in all, the caller's included; 1 starts none.
  init(_ model: any Model, threads: Int) {
    self.model = model
    workers = (1..<max(1, threads)).map { Worker(model, number: $0) }
  }

  deinit { for worker in workers { worker.stop() } }

  /// Fills `logits` (`[examples × tasks]`).
  func forward(_ batch: Batch, rows: [[Float]], dense: [[Float]], logits: inout [Float]) {
    let cuts = cuts(batch.exampleCount)
    guard cuts.count > 2 else {
      slice = nil
      return model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
    }
    for (index, worker) in workers.enumerated() where index + 2 < cuts.count {
      worker.begin(.forward(batch.slice(cuts[index + 1]..<cuts[index + 2]), rows: rows, dense: dense))
    }
    let first = batch.slice(0..<cuts[1])
    slice = first
    model.forward(first, rows: rows, dense: dense, scratch: &scratch, logits: &self.logits)
    let tasks = model.options.tasks.count
    logits = Array(self.logits[..<(first.exampleCount * tasks)])
    for (index, worker) in workers.enumerated() where index + 2 < cuts.count {
      worker.finish()
      logits += worker.logits[..<((cuts[index + 2] - cuts[index + 1]) * tasks)]
    }
  }

  /// Adds the gradients of the batch that `forward` was given last.
  func backward(
    _ batch: Batch, rows: [[Float]], dense: [[Float]], logitGradients: [Float], rowGradients: inout [[Float]],
    denseGradients: inout [[Float]]
  ) {
    guard let first = slice else {
      return model.backward(
        batch, rows: rows, dense: dense, logitGradients: logitGradients, scratch: &scratch,
        rowGradients: &rowGradients, denseGradients: &denseGradients)
    }
    let (cuts, tasks) = (cuts(batch.exampleCount), model.options.tasks.count)
    for (index, worker) in workers.enumerated() where index + 2 < cuts.count {
      let part = Array(logitGradients[cuts[index + 1] * tasks..<cuts[index + 2] * tasks])
      worker.begin(.backward(part, rows: rows, dense: dense))
    }
    model.backward(
      first, rows: rows, dense: dense, logitGradients: Array(logitGradients[..<(cuts[1] * tasks)]), scratch: &scratch,
      rowGradients: &rowGradients, denseGradients: &denseGradients)
    for (index, worker) in workers.enumerated() where index + 2 < cuts.count {
      worker.finish()
      for table in rowGradients.indices { add(worker.rowGradients[table], to: &rowGradients[table]) }
      for tensor in denseGradients.indices { add(worker.denseGradients[tensor], to: &denseGradients[tensor]) }
    }
  }

  /// Where the runs of the examples begin and end; few examples are not worth a hand-over.
  private func cuts(_ examples: Int) -> [Int] {
    let runs = max(1, min(workers.count + 1, examples / Self.leastRun))
    return (0...runs).map { $0 * examples / runs }
  }

  private static let leastRun = 64
}

/// A thread that works on its run of each batch.
///
/// unchecked because: its fields belong to the worker's thread between `begin` and the end of `finish`, and to the caller's
/// otherwise; the mailboxes order the two.
private final class Worker: @unchecked Sendable {
  enum Order: Sendable {
    case forward(Batch, rows: [[Float]], dense: [[Float]])
    case backward([Float], rows: [[Float]], dense: [[Float]])
  }

  private(set) var logits: [Float] = []
  private(set) var rowGradients: [[Float]] = []
  private(set) var denseGradients: [[Float]] = []
  private let model: any Model
  private var scratch = Scratch()
  private var batch = Batch(exampleCount: 0, features: [])
  private let orders = Mailbox<Order>(bound: 1)
  private let done = Mailbox<Bool>(bound: 1)
  private var thread: OwnedThread?

  init(_ model: any Model, number: Int) {
    self.model = model
    thread = OwnedThread(named: "train-\(number)") { [self] in run() }
  }

  func begin(_ order: Order) { _ = orders.offer(order) }

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
      for order in orders.waitAll(timeout: .seconds(1)) {
        perform(order)
        _ = done.offer(true)
      }
    }
  }

  private func perform(_ order: Order) {
    switch order {
    case .forward(let batch, let rows, let dense):
      self.batch = batch
      model.forward(batch, rows: rows, dense: dense, scratch: &scratch, logits: &logits)
    case .backward(let logitGradients, let rows, let dense):
      if rowGradients.count != rows.count { rowGradients = rows }
      if denseGradients.count != dense.count { denseGradients = dense }
      for table in rows.indices { zero(&rowGradients[table], as: rows[table]) }
      for tensor in dense.indices { zero(&denseGradients[tensor], as: dense[tensor]) }
      model.backward(
        batch, rows: rows, dense: dense, logitGradients: logitGradients, scratch: &scratch,
        rowGradients: &rowGradients, denseGradients: &denseGradients)
    }
  }
}
