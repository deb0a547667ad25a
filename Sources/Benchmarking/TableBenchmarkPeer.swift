// What `guira bench table` stands on: the results by metric, the program of peers it talks to in lines of text, the
// streams of ids, and the memory on which the physical limit is measured.

internal import CKernels
internal import Foundation
internal import Glibc

/// Measured values by metric.
struct TableResults {
  private var values: [String: [Double]] = [:]
  private var units: [String: String] = [:]

  mutating func add(_ name: String, _ value: Double, _ unit: String) {
    values[name, default: []].append(value)
    units[name] = unit
  }

  /// Our rate and, when there is a peer, its rate at the same work and how many times as fast we were.
  mutating func rate(_ what: String, _ ours: Double, _ peer: String?, _ theirs: Double) {
    add("\(what).rowsPerSecond", ours, "rows/s")
    guard let peer else { return }
    add("\(peer).\(what).rowsPerSecond", theirs, "rows/s")
    add("\(what).timesAsFastAs.\(peer)", ours / theirs, "ratio")
  }

  var measurements: [String: Measurement] {
    Dictionary(uniqueKeysWithValues: values.map { ($0.key, Measurement($0.value, units[$0.key] ?? "")) })
  }
}

/// One hash table in the program of peers: a line asks for a piece of work, a line of numbers answers.
final class TablePeer {
  let name: String
  private let process = Process()
  private let commands = Pipe()
  private let answers = Pipe()

  init(_ program: String, _ name: String, _ benchmark: TableBenchmark) throws {
    self.name = name
    guard benchmark.dimension == 32, benchmark.batch == 4096 else {
      throw BenchmarkError(description: "the peers know only 32 weights per row and batches of 4096 ids")
    }
    process.executableURL = URL(filePath: program)
    process.arguments = [
      name, "\(benchmark.ids)", "\(benchmark.batches)", "\(min(benchmark.repeats, 16))", "\(benchmark.seed)",
    ]
    process.standardInput = commands
    process.standardOutput = answers
    do { try process.run() } catch { throw BenchmarkError(description: "cannot start \(program): \(error)") }
  }

  deinit {
    // At the end of its input the program ends.
    try? commands.fileHandleForWriting.close()
    process.waitUntilExit()
  }

  /// Has a piece of work done, and reads `count` numbers.
  func ask(_ command: String, _ count: Int) throws -> [Double] {
    guard process.isRunning else { throw BenchmarkError(description: "the peer \(name) has ended") }
    try commands.fileHandleForWriting.write(contentsOf: Data("\(command)\n".utf8))
    var line: [UInt8] = []
    while line.last != UInt8(ascii: "\n") {
      guard let byte = try answers.fileHandleForReading.read(upToCount: 1)?.first else {
        throw BenchmarkError(description: "the peer \(name) has ended at '\(command)'")
      }
      line.append(byte)
    }
    let text = String(decoding: line.dropLast(), as: UTF8.self)
    let numbers = text.split(separator: " ").compactMap { Double($0) }
    guard numbers.count == count else {
      throw BenchmarkError(description: "the peer \(name) answered '\(text)' to '\(command)', not \(count) numbers")
    }
    return numbers
  }
}

/// The ids that look-ups and updates go through.
struct IDStreams {
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

/// Rows without a table, on huge pages: the memory that the limit is measured on.
@safe struct LimitRows: ~Copyable {
  private static let hugePage = 2 << 20
  private let base: UnsafeMutablePointer<Float>

  init(count: Int, width: Int) {
    let bytes = (count * width * 4 + Self.hugePage - 1) / Self.hugePage * Self.hugePage
    let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: Self.hugePage)
    unsafe madvise(memory, bytes, MADV_HUGEPAGE)
    unsafe memset(memory, 1, bytes)
    unsafe base = memory.bindMemory(to: Float.self, capacity: bytes / 4)
  }

  deinit { unsafe base.deallocate() }

  func gather(_ rows: Span<UInt32>, width: Int, _ out: inout [Float]) {
    unsafe rows.withUnsafeBufferPointer { rows in
      unsafe guira_gather_limit(base, width, rows.baseAddress, rows.count, &out)
    }
  }
}

/// The memory of this process, and the time its calling thread spent outside the kernel.
enum ProcessMemory {
  static var resident: Int { status("VmRSS:") }
  static var peak: Int { status("VmHWM:") }

  /// Nanoseconds, as exact as the kernel keeps it.
  static var userTime: Int64 {
    var usage = rusage()
    unsafe getrusage(1, &usage)  // RUSAGE_THREAD
    return Int64(usage.ru_utime.tv_sec) * 1_000_000_000 + Int64(usage.ru_utime.tv_usec) * 1000
  }

  /// Makes the peak start again from what is resident now.
  static func resetPeak() {
    guard let file = unsafe fopen("/proc/self/clear_refs", "w") else { return }
    unsafe fputs("5", file)
    unsafe fclose(file)
  }

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
