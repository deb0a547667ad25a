// The epochs of `guira bench table`: what closing one costs in a full table and in a small one, in turns, and what a
// cut under way adds to the batches of the next epoch. Times are CPU times of one thread.

internal import Base
internal import CKernels
internal import Embeddings

extension TableBenchmark {
  /// Rows of the small table that the full one is compared with.
  private static let fewRows = 1_000_000
  private static let slice = 1024

  func closeEpochs(_ table: inout Table, _ results: inout TableResults) {
    var small = makeTable()
    let fewer = min(ids, Self.fewRows)
    let gradients = [Float](repeating: 0.01, count: batch * dimension)
    push(0..<fewer, to: &small, gradients) { guira_stream_id(seed, UInt64($0)) }
    Self.discardCut(&small)
    for number in 0..<max(repeats, 5) {
      let changed = Self.drawn(seed &+ 7 &+ UInt64(number), changedRows, of: ids)
      let full = epoch(&table, changed, gradients)
      let few = epoch(&small, Self.drawn(seed &+ 7 &+ UInt64(number), changedRows, of: fewer), gradients)
      results.add("epoch.freezeMilliseconds", full.freeze, "ms")
      results.add("epoch.closeMilliseconds", full.close, "ms")
      results.add("epoch.closeMillisecondsOfOneMillionRows", few.close, "ms")
      results.add("epoch.closeRatioToOneMillionRows", full.close / few.close, "ratio")
      results.add("epoch.longestSliceMilliseconds", full.slice, "ms")
      results.add("epoch.addedToBatchMilliseconds", full.added, "ms")
    }
  }

  /// One epoch: its changes, the close, and the copying out.
  ///
  /// Before that, an epoch in which a cut under way meets a batch that changes nothing but frozen rows: the worst case.
  private func epoch(
    _ table: inout Table, _ ranks: [UInt32], _ gradients: [Float]
  ) -> (freeze: Double, close: Double, slice: Double, added: Double) {
    let id = { (place: Int) in guira_stream_id(seed, UInt64(ranks[place])) }
    push(0..<ranks.count, to: &table, gradients, id: id)
    table.closeEpoch()
    let first = 0..<min(batch, ranks.count)
    // The same rows twice: only the first time are they saved.
    let saving = push(first, to: &table, gradients, id: id)
    let plain = push(first, to: &table, gradients, id: id)
    var writer = ByteWriter(capacity: Self.slice * (table.floatCount * 4 + 64))
    while table.copyCut(rows: Self.slice, into: &writer) { writer.clear() }
    push(0..<ranks.count, to: &table, gradients, id: id)
    let start = Clocks.threadCPU()
    table.closeEpoch()
    let closed = Clocks.threadCPU()
    var (before, longest) = (closed, Int64(0))
    while table.copyCut(rows: Self.slice, into: &writer) {
      writer.clear()
      let now = Clocks.threadCPU()
      longest = max(longest, now - before)
      before = now
    }
    return (
      Double(closed - start) / 1e6, Double(before - start) / 1e6, Double(longest) / 1e6, Double(saving - plain) / 1e6
    )
  }

  /// Pushes the ids of a range in batches, and says how long that took.
  @discardableResult private func push(
    _ places: Range<Int>, to table: inout Table, _ gradients: [Float], id: (Int) -> UInt64
  ) -> Int64 {
    var spent: Int64 = 0
    for start in stride(from: places.lowerBound, to: places.upperBound, by: batch) {
      let ids = (start..<min(start + batch, places.upperBound)).map(id)
      let before = Clocks.threadCPU()
      table.push(
        ids: ids.span, sightings: Span(), gradients: gradients.span.extracting(first: ids.count * dimension),
        eventTime: 0)
      spent += Clocks.threadCPU() - before
    }
    return spent
  }

  private static func drawn(_ seed: UInt64, _ count: Int, of ids: Int) -> [UInt32] {
    var ranks = [UInt32](repeating: 0, count: count)
    unsafe guira_stream_ranks_uniform(seed, UInt64(ids), &ranks, count)
    return ranks
  }
}
