// What `guira bench table` measures: look-up, insert and update against the physical limit of the machine's memory,
// bytes per id, the longest batch while growing, and what epochs cost. With a program of peers (Tests/Peers) the same
// work is done by other hash tables, in turns with ours, so that what else the machine does falls on all alike. Times
// are CPU times of one thread. The ids come from CKernels' id_streams.h, as those of the peers do.

internal import Base
internal import CKernels
internal import Embeddings

/// Measures a table on one thread.
public struct TableBenchmark {
  /// Ids in the table.
  public var ids = 10_000_000
  /// Weights per row, with AdaGrad state beside them.
  public var dimension = 32
  /// Ids per batch.
  public var batch = 4096
  /// Batches per repeat.
  public var batches = 500
  /// Repeats.
  public var repeats = 5
  /// How often the table is filled.
  public var fills = 1
  /// Changed rows in the epochs that are closed.
  public var changedRows = 100_000
  /// The seed of everything.
  public var seed: UInt64 = 1
  /// The program of peers, if there is one; it knows dimension 32 and batches of 4,096 only.
  public var peers: String?

  /// The hash tables the program of peers knows.
  static let peerNames = ["absl", "libcuckoo"]

  /// The settings of the published figures.
  public init() {}

  /// Runs everything; `progress` hears what is being done.
  /// - Throws: `BenchmarkError` when the peers do not answer.
  public func run(progress: (String) -> Void = { _ in }) throws -> [String: Measurement] {
    var results = TableResults()
    for name in peers == nil ? [nil] : Self.peerNames.map(Optional.some) {
      let beside = name.map { " beside \($0)" } ?? ""
      let peer = try name.map { try TablePeer(peers ?? "", $0, self) }
      var table = makeTable()
      var times: [[Int64]] = []
      for fill in 1...fills {
        progress("filling a table with \(ids) ids\(beside), \(fill) of \(fills)")
        if fill > 1 {
          table = makeTable()
          _ = try peer?.ask("clear", 0)
        }
        times.append(try self.fill(&table, peer, &results))
      }
      // Every fill does the same, so what a batch needs is in all of them, and what else the machine does is not.
      if fills > 2, let longest = Self.medians(times).max() {
        results.add("growth.longestBatchOfFillsMedianMilliseconds", Double(longest) / 1e6, "ms")
      }
      progress("looking up and updating\(beside), and the limit of the memory")
      try measure(&table, peer, &results)
      if name == nil || name == Self.peerNames.last {
        progress("closing epochs")
        closeEpochs(&table, &results)
      }
    }
    return results.measurements
  }

  /// A table of this benchmark's shape.
  func makeTable() -> Table {
    let optimizer = OptimizerOptions(rule: .adagrad(initialAccumulator: 0.1), learningRate: 0.05)
    let segment = Segment(name: "vector", width: dimension, initializer: .uniform(0.1), optimizer: optimizer)
    return Table(TableOptions(name: "bench", seed: seed, segments: [segment]))
  }

  // MARK: Growing

  /// Fills an empty table, and says how long each batch took, in nanoseconds.
  private func fill(_ table: inout Table, _ peer: TablePeer?, _ results: inout TableResults) throws -> [Int64] {
    let before = ProcessMemory.resident
    ProcessMemory.resetPeak()
    let gradients = [Float](repeating: 0.01, count: batch * dimension)
    var batchIDs = [UInt64](repeating: 0, count: batch)
    var (times, preparing) = ([Int64](), [Int64]())
    var user: Int64 = 0
    var theirs = (cpu: 0.0, user: 0.0)
    let windows = 16
    for window in 0..<windows {
      let range = ids * window / windows..<ids * (window + 1) / windows
      for start in stride(from: range.lowerBound, to: range.upperBound, by: batch) {
        let count = min(batch, range.upperBound - start)
        for place in 0..<count { batchIDs[place] = guira_stream_id(seed, UInt64(start + place)) }
        let (cpu, userBefore) = (Clocks.threadCPU(), ProcessMemory.userTime)
        table.push(
          ids: batchIDs.span.extracting(first: count), sightings: Span(),
          gradients: gradients.span.extracting(first: count * dimension), eventTime: 0)
        times.append(Clocks.threadCPU() - cpu)
        // As a shard does between requests; its time counts as inserting.
        let idle = Clocks.threadCPU()
        table.prepareGrowth()
        preparing.append(Clocks.threadCPU() - idle)
        user += ProcessMemory.userTime - userBefore
        if times.count % 32 == 0 { Self.discardCut(&table) }
      }
      if let answer = try peer?.ask("insert \(range.count)", 2) {
        theirs = (theirs.cpu + answer[0], theirs.user + answer[1])
      }
    }
    Self.discardCut(&table)
    let count = Double(ids)
    results.rate(
      "insert", count / Double(times.reduce(0, +) + preparing.reduce(0, +)) * 1e9, peer?.name, count / theirs.cpu)
    results.rate("insert.inUserSpace", count / Double(max(1, user)) * 1e9, peer?.name, count / theirs.user)
    results.add("growth.longestPreparationMilliseconds", Double(preparing.max() ?? 0) / 1e6, "ms")
    describe(table, times.sorted(), before: before, &results)
    guard let peer else { return times }
    let answer = try peer.ask("memory", 3)
    results.add("\(peer.name).memory.bytesPerIdBeyondRow", answer[0] - Double(table.floatCount * 4), "bytes")
    results.add("\(peer.name).growth.medianBatchMilliseconds", answer[1], "ms")
    results.add("\(peer.name).growth.longestBatchMilliseconds", answer[2], "ms")
    return times
  }

  /// For each batch the median over all fills.
  private static func medians(_ fills: [[Int64]]) -> [Int64] {
    fills[0].indices.map { batch in fills.map { $0[batch] }.sorted()[fills.count / 2] }
  }

  /// What a table takes once it is full, and what its batches took until then.
  private func describe(_ table: borrowing Table, _ times: [Int64], before: Int, _ results: inout TableResults) {
    let rowBytes = Double(table.floatCount * 4)
    let rows = Double(table.rowCount)
    let whole = Double(ProcessMemory.resident - before)
    let statistics = table.statistics
    results.add("growth.medianBatchMilliseconds", Double(times[times.count / 2]) / 1e6, "ms")
    results.add("growth.p99BatchMilliseconds", Double(times[times.count * 99 / 100]) / 1e6, "ms")
    results.add("growth.longestBatchMilliseconds", Double(times[times.count - 1]) / 1e6, "ms")
    results.add("loadFactor.beforeGrowth", statistics.lowestLoadAtGrowth, "ratio")
    results.add("loadFactor.now", statistics.load, "ratio")
    results.add("memory.bytesPerIdBeyondRow", whole / rows - rowBytes, "bytes")
    results.add("memory.tableBytesPerIdBeyondRow", Double(statistics.boundedBytes) / rows - rowBytes, "bytes")
    results.add("memory.growthPeakRatio", Double(ProcessMemory.peak - before) / whole, "ratio")
  }

  /// Takes what changed out and throws it away, as a shard's epochs would.
  static func discardCut(_ table: inout Table) {
    table.closeEpoch()
    var writer = ByteWriter()
    while table.copyCut(rows: 1024, into: &writer) { writer.clear() }
  }

  // MARK: Look-up and update

  private func measure(_ table: inout Table, _ peer: TablePeer?, _ results: inout TableResults) throws {
    let length = batch * batches
    // Each repeat has ids of its own, up to a number of them, so that none finds its rows in the cache.
    let streams = IDStreams(self, length: length * min(repeats, 16))
    let gradients = [Float](repeating: 0.01, count: batch * dimension)
    var out = [Float](repeating: 0, count: batch * dimension * 2)
    var weights = [Float](repeating: 0, count: batch * dimension)
    let limit = LimitRows(count: ids, width: dimension * 2)
    for number in 0..<repeats {
      let offset = number % 16 * length
      func rate(_ body: (Range<Int>) -> Void) -> Double {
        let start = Clocks.threadCPU()
        for at in stride(from: offset, to: offset + length, by: batch) { body(at..<at + batch) }
        return Double(length) / Double(Clocks.threadCPU() - start) * 1e9
      }
      func theirs(_ what: String) throws -> Double {
        try peer.map { Double(length) / (try $0.ask("\(what) \(number % 16)", 1)[0]) } ?? 0
      }
      let gathered = rate { limit.gather(streams.ranks.span.extracting($0), width: dimension, &out) }
      let uniform = rate { range in
        var span = weights.mutableSpan
        table.pull(ids: streams.uniform.span.extracting(range), sightings: Span(), eventTime: 0, into: &span)
      }
      results.rate("lookup.uniform", uniform, peer?.name, try theirs("uniform"))
      let zipf = rate { range in
        var span = weights.mutableSpan
        table.pull(ids: streams.zipf.span.extracting(range), sightings: Span(), eventTime: 0, into: &span)
      }
      results.rate("lookup.zipf", zipf, peer?.name, try theirs("zipf"))
      let gatheredWhole = rate { limit.gather(streams.ranks.span.extracting($0), width: dimension * 2, &out) }
      let stepped = rate { range in
        table.push(
          ids: streams.uniform.span.extracting(range), sightings: Span(), gradients: gradients.span, eventTime: 0)
      }
      results.rate("adagrad", stepped, peer?.name, try theirs("adagrad"))
      results.add("gatherLimit.rowsPerSecond", gathered, "rows/s")
      results.add("gatherLimit.wholeRowsPerSecond", gatheredWhole, "rows/s")
      results.add("lookup.uniform.shareOfLimit", uniform / gathered, "ratio")
      results.add("adagrad.shareOfLimit", stepped / gatheredWhole, "ratio")
      Self.discardCut(&table)
    }
  }
}
