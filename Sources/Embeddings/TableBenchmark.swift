// What `guira bench table` measures: look-up, insert and update against the physical limit of the machine's memory,
// bytes per id, and the longest batch while growing. Repeats are interleaved, so that what else the machine does
// falls on all alike. The ids come from CKernels' id_streams.h, as those of the C++ peers do.

internal import Base
internal import CKernels
internal import Glibc

/// Measures a table on one thread.
public struct TableBenchmark {
  /// One measured number over all repeats.
  public struct Metric: Sendable, Equatable {
    /// Its name, as `guira bench --json` prints it.
    public var name: String
    /// The middle of all repeats.
    public var median: Double
    /// The smallest.
    public var min: Double
    /// The largest.
    public var max: Double
    /// The unit.
    public var unit: String

    init(_ name: String, _ values: [Double], _ unit: String) {
      let sorted = values.sorted()
      self.name = name
      median = sorted.isEmpty ? 0 : sorted[sorted.count / 2]
      min = sorted.first ?? 0
      max = sorted.last ?? 0
      self.unit = unit
    }
  }

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
  /// Changed rows in the epochs that are closed.
  public var changedRows = 100_000
  /// The seed of everything.
  public var seed: UInt64 = 1

  /// The settings of the published figures.
  public init() {}

  /// Runs everything; `progress` hears what is being done.
  public func run(progress: (String) -> Void = { _ in }) -> [Metric] {
    let optimizer = OptimizerOptions(rule: .adagrad(initialAccumulator: 0.1), learningRate: 0.05)
    let segment = Segment(name: "vector", width: dimension, initializer: .uniform(0.1), optimizer: optimizer)
    let options = TableOptions(name: "bench", seed: seed, segments: [segment])
    progress("filling a table with \(ids) ids")
    let residentBefore = Self.residentBytes()
    var table = Table(options)
    var metrics = fill(&table, rowBytes: options.floatCount * 4, residentBefore: residentBefore)
    progress("looking up, updating, and the limit of the memory")
    metrics += measure(&table)
    progress("closing epochs")
    metrics += closeEpochs(&table)
    return metrics
  }

  // MARK: Growing

  private func fill(_ table: inout Table, rowBytes: Int, residentBefore: Int) -> [Metric] {
    let gradients = [Float](repeating: 0.01, count: batch * dimension)
    var batchIDs = [UInt64](repeating: 0, count: batch)
    var times: [Double] = []
    var peakBeyond = 0.0
    var rate: [Double] = []
    var (elapsed, inserted) = (Int64(0), 0)
    let window = max(1, ids / batch / 8)
    for start in stride(from: 0, to: ids, by: batch) {
      let count = min(batch, ids - start)
      for place in 0..<count { batchIDs[place] = guira_stream_id(seed, UInt64(start + place)) }
      let cpu = Clocks.threadCPU()
      table.push(
        ids: batchIDs.span.extracting(first: count), sightings: Span(),
        gradients: gradients.span.extracting(first: count * dimension), eventTime: 0)
      let spent = Clocks.threadCPU() - cpu
      times.append(Double(spent) / 1e6)
      elapsed += spent
      inserted += count
      if times.count % window == 0 {
        rate.append(Double(inserted) / Double(elapsed) * 1e9)
        (elapsed, inserted) = (0, 0)
        let steady = Double(table.rowCount * rowBytes)
        peakBeyond = max(peakBeyond, Double(Self.peakBytes() - residentBefore) / steady)
      }
      if start / batch % 32 == 31 { Self.discardCut(&table) }
    }
    Self.discardCut(&table)
    let beyond = Double(Self.residentBytes() - residentBefore) - Double(table.rowCount * rowBytes)
    let whole = Double(Self.residentBytes() - residentBefore)
    times.sort()
    return [
      Metric("insert.rowsPerSecond", rate, "rows/s"),
      Metric("growth.medianBatchMilliseconds", [times[times.count / 2]], "ms"),
      Metric("growth.longestBatchMilliseconds", [times[times.count - 1]], "ms"),
      Metric("loadFactor.beforeGrowth", [table.index.lowestLoadAtGrowth], "ratio"),
      Metric("loadFactor.now", [table.index.load], "ratio"),
      Metric("memory.bytesPerIdBeyondRow", [beyond / Double(table.rowCount)], "bytes"),
      Metric(
        "memory.tableBytesPerIdBeyondRow",
        [Double(table.boundedBytes) / Double(table.rowCount) - Double(rowBytes)], "bytes"),
      Metric("memory.growthPeakRatio", [Double(Self.peakBytes() - residentBefore) / whole], "ratio"),
    ]
  }

  /// Takes what changed out and throws it away, as a shard's epochs would.
  private static func discardCut(_ table: inout Table) {
    table.closeEpoch()
    var writer = ByteWriter()
    while table.copyCut(rows: 1024, into: &writer) { writer.clear() }
  }

  // MARK: Look-up and update

  private func measure(_ table: inout Table) -> [Metric] {
    let length = batch * batches
    // Each repeat has ids of its own, up to a number of them, so that none finds its rows in the cache.
    let streams = Streams(self, length: length * min(repeats, 16))
    var offset = 0
    let gradients = [Float](repeating: 0.01, count: batch * dimension)
    var out = [Float](repeating: 0, count: batch * dimension * 2)
    var weights = [Float](repeating: 0, count: batch * dimension)
    let store = LimitRows(count: ids, width: dimension * 2)
    var results: [String: [Double]] = [:]
    func time(_ name: String, _ body: (Range<Int>) -> Void) {
      let start = Clocks.threadCPU()
      for batchStart in stride(from: offset, to: offset + length, by: batch) { body(batchStart..<batchStart + batch) }
      results[name, default: []].append(Double(length) / Double(Clocks.threadCPU() - start) * 1e9)
    }
    for repeatNumber in 0..<repeats {
      offset = repeatNumber % 16 * length
      time("gatherLimit.rowsPerSecond") { store.gather(streams.ranks.span.extracting($0), width: dimension, &out) }
      time("lookup.uniform.rowsPerSecond") { range in
        var span = weights.mutableSpan
        table.pull(ids: streams.uniform.span.extracting(range), sightings: Span(), eventTime: 0, into: &span)
      }
      time("lookup.zipf.rowsPerSecond") { range in
        var span = weights.mutableSpan
        table.pull(ids: streams.zipf.span.extracting(range), sightings: Span(), eventTime: 0, into: &span)
      }
      time("gatherLimit.wholeRowsPerSecond") {
        store.gather(streams.ranks.span.extracting($0), width: dimension * 2, &out)
      }
      time("adagrad.rowsPerSecond") { range in
        table.push(
          ids: streams.uniform.span.extracting(range), sightings: Span(), gradients: gradients.span, eventTime: 0)
      }
      Self.discardCut(&table)
    }
    return results.sorted { $0.key < $1.key }.map { Metric($0.key, $0.value, "rows/s") }
  }

  private struct Streams {
    var ranks: [UInt32]
    var uniform: [UInt64]
    var zipf: [UInt64]

    init(_ settings: TableBenchmark, length: Int) {
      var drawn = [UInt32](repeating: 0, count: length)
      unsafe guira_stream_ranks_uniform(settings.seed, UInt64(settings.ids), &drawn, length)
      ranks = drawn
      uniform = drawn.map { guira_stream_id(settings.seed, UInt64($0)) }
      unsafe guira_stream_ranks_zipf(settings.seed, UInt64(settings.ids), 1.05, &drawn, length)
      zipf = drawn.map { guira_stream_id(settings.seed, UInt64($0)) }
    }
  }

  /// Rows without a table: the memory that the limit is measured on.
  @safe private struct LimitRows: ~Copyable {
    private var store: PageStore

    init(count: Int, width: Int) {
      store = PageStore(pieceBytes: count * width * 4)
      store.append()
      let base = unsafe store.pieces[0]!
      unsafe madvise(base, store.pieceBytes, MADV_HUGEPAGE)
      unsafe memset(base, 1, store.pieceBytes)
    }

    func gather(_ rows: Span<UInt32>, width: Int, _ out: inout [Float]) {
      unsafe rows.withUnsafeBufferPointer { rows in
        unsafe guira_gather_limit(
          store.pieces[0]!.assumingMemoryBound(to: Float.self), width, rows.baseAddress, rows.count, &out)
      }
    }
  }

  // MARK: Epochs

  private func closeEpochs(_ table: inout Table) -> [Metric] {
    var ranks = [UInt32](repeating: 0, count: changedRows)
    unsafe guira_stream_ranks_uniform(seed &+ 7, UInt64(ids), &ranks, changedRows)
    let changed = ranks.map { guira_stream_id(seed, UInt64($0)) }
    let gradients = [Float](repeating: 0.01, count: batch * dimension)
    var (close, copy, slowest) = ([Double](), [Double](), [Double]())
    for _ in 0..<repeats {
      for start in stride(from: 0, to: changed.count - batch, by: batch) {
        table.push(
          ids: changed.span.extracting(start..<start + batch), sightings: Span(), gradients: gradients.span,
          eventTime: 0)
      }
      let start = Clocks.threadCPU()
      table.closeEpoch()
      let closed = Clocks.threadCPU()
      var writer = ByteWriter(capacity: 1024 * (dimension * 8 + 64))
      var longest: Int64 = 0
      var before = Clocks.threadCPU()
      while table.copyCut(rows: 1024, into: &writer) {
        writer.clear()
        let now = Clocks.threadCPU()
        longest = max(longest, now - before)
        before = now
      }
      close.append(Double(closed - start) / 1e6)
      copy.append(Double(Clocks.threadCPU() - start) / 1e6)
      slowest.append(Double(longest) / 1e6)
    }
    return [
      Metric("epoch.closeMilliseconds", copy, "ms"),
      Metric("epoch.freezeMilliseconds", close, "ms"),
      Metric("epoch.longestSliceMilliseconds", slowest, "ms"),
    ]
  }

  // MARK: Memory of this process

  private static func residentBytes() -> Int { status("VmRSS:") }
  private static func peakBytes() -> Int { status("VmHWM:") }

  private static func status(_ key: String) -> Int {
    guard let file = unsafe fopen("/proc/self/status", "r") else { return 0 }
    defer { unsafe fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while unsafe fgets(&line, 256, file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      if text.hasPrefix(key) { return (Int(text.dropFirst(key.count).filter(\.isNumber)) ?? 0) * 1024 }
    }
    return 0
  }
}
