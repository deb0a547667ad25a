// The other clients of `guira bench serve`: Redis with MGET of the same values, and bodies of predictions.

internal import Base
internal import CKernels
internal import Foundation
internal import Glibc

/// A Redis server of our own with the same rows.
final class RedisServer {
  private let process = Process()
  private let client: StreamClient
  private let settings: ServeBenchmarkSettings
  private var random: SeededRandom

  /// Starts and fills it; nil, loudly, when there is none.
  init?(_ settings: ServeBenchmarkSettings, _ progress: (String) -> Void) throws {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    let paths: [String] = folders.map { "\($0)/redis-server" }
    guard let path = paths.first(where: { FileManager.default.isExecutableFile(atPath: $0) }) else {
      progress("*** SKIPPED: redis-server is not installed; nothing is compared with it ***")
      return nil
    }
    progress("redis-server with the same rows")
    self.settings = settings
    random = SeededRandom(seed: settings.seed)
    let port = Int(try BenchProcess.freePort())
    process.executableURL = URL(filePath: path)
    process.arguments = [
      "--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no",
    ]
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    // Every key is there and every value as long, so every answer of MGET is.
    let bytes = settings.dimension * 4
    let whole = "*\(settings.batch)\r\n".utf8.count + settings.batch * ("$\(bytes)\r\n".utf8.count + bytes + 2)
    var connected: StreamClient?
    for _ in 0..<200 where connected == nil {
      connected = try? StreamClient(port: port, connections: 1, depth: settings.inFlight) { bytes, answer in
        guard let first = answer.first.map({ bytes[$0] }) else { return nil }
        if first == UInt8(ascii: "+") { return answer.count >= 5 ? 5 : nil }  // of MSET: +OK
        guard first == UInt8(ascii: "*") else { throw BenchmarkError(description: "Redis refused a request") }
        return answer.count >= whole ? whole : nil
      }
      if connected == nil { usleep(20_000) }
    }
    guard let connected else { throw BenchmarkError(description: "redis-server does not listen") }
    client = connected
    try fill()
  }

  deinit {
    if process.isRunning {
      kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
    }
  }

  private func fill() throws {
    var begin = 0
    let value = (0..<settings.dimension).map { Float($0) }
    var requests: [[UInt8]] = []
    while begin < settings.rows {
      let count = min(1000, settings.rows - begin)
      var bytes = Array("*\(1 + 2 * count)\r\n$4\r\nMSET\r\n".utf8)
      for place in begin..<begin + count {
        Self.append(guira_stream_id(settings.seed, UInt64(place)), to: &bytes)
        bytes += Array("$\(settings.dimension * 4)\r\n".utf8)
        unsafe value.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
        bytes += [13, 10]
      }
      requests.append(bytes)
      begin += count
    }
    try client.send(requests)
  }

  private static func append(_ id: UInt64, to bytes: inout [UInt8]) {
    bytes += [36, 56, 13, 10]  // $8
    unsafe withUnsafeBytes(of: id) { unsafe bytes.append(contentsOf: $0) }
    bytes += [13, 10]
  }

  func run(seconds: Double) throws -> AnsweredRun {
    let head = Array("*\(settings.batch + 1)\r\n$4\r\nMGET\r\n".utf8)
    return try client.run(seconds: seconds) { output in
      output += head
      for _ in 0..<settings.batch {
        Self.append(
          guira_stream_id(settings.seed, UInt64.random(in: 0..<UInt64(settings.rows), using: &random)), to: &output)
      }
    }
  }
}

extension StreamClient {
  /// Connections to a server of ours that speaks HTTP, one request under way on each; waits until it listens.
  static func http(to process: BenchProcess, connections: Int = 8) throws -> StreamClient {
    let deadline = Clocks.monotonic() + 60_000_000_000
    let port = process.endpoint.split(separator: ":").last.flatMap { Int($0) } ?? 0
    while true {
      if let client = try? StreamClient(
        port: port, connections: connections, depth: 1, answerLength: HTTPAnswer.length)
      {
        return client
      }
      guard process.isRunning, Clocks.monotonic() < deadline else {
        throw BenchmarkError(description: "the server '\(process.service)' does not listen")
      }
      usleep(50_000)
    }
  }
}

/// Where an HTTP/1.1 answer ends.
enum HTTPAnswer {
  static func length(_ answer: [UInt8], _ range: Range<Int>) throws -> Int? {
    guard range.count > 16 else { return nil }
    guard answer[range.lowerBound + 9] == UInt8(ascii: "2") else {
      throw BenchmarkError(description: "a prediction was refused")
    }
    let name = Array("content-length: ".utf8)
    var length = 0
    var at = range.lowerBound
    while at + 4 <= range.upperBound {
      if answer[at] == 13, answer[at + 1] == 10, answer[at + 2] == 13, answer[at + 3] == 10 {
        return at + 4 + length <= range.upperBound ? at + 4 + length - range.lowerBound : nil
      }
      if answer[at] == 10, at + 1 + name.count < range.upperBound,
        name.indices.allSatisfy({ answer[at + 1 + $0] | 0x20 == name[$0] | 0x20 })
      {
        length = 0
        var digit = at + 1 + name.count
        while digit < range.upperBound, (48...57).contains(answer[digit]) {
          length = length * 10 + Int(answer[digit] - 48)
          digit += 1
        }
      }
      at += 1
    }
    return nil
  }
}

/// Prediction requests: one user, many candidates, binary tensors both ways.
struct PredictionBodies {
  private let candidates: Int
  private var random: SeededRandom
  private let head: [UInt8]

  init(_ settings: ServeBenchmarkSettings) {
    candidates = settings.candidates
    random = SeededRandom(seed: settings.seed)
    let count = candidates
    let inputs = BenchModel.features.map { name in
      "{\"name\":\"\(name)\",\"shape\":[\(count),1],\"datatype\":\"UINT64\","
        + "\"parameters\":{\"binary_data_size\":\(count * 8)}}"
    }
    let json =
      "{\"inputs\":[\(inputs.joined(separator: ","))],\"parameters\":{\"binary_data_output\":true}}"
    let bytes = json.utf8.count + BenchModel.features.count * count * 8
    head = Array(
      ("POST /v2/models/deepfm/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
        + "Inference-Header-Content-Length: \(json.utf8.count)\r\nContent-Length: \(bytes)\r\n\r\n\(json)").utf8)
  }

  mutating func next(_ output: inout [UInt8]) {
    output += head
    for feature in BenchModel.features.indices {
      let limit = BenchModel.values[feature]
      // Features of the user are the same for all candidates.
      let shared = UInt64.random(in: 0..<limit, using: &random)
      for _ in 0..<candidates {
        let id = BenchModel.isUsers[feature] ? shared : UInt64.random(in: 0..<limit, using: &random)
        unsafe withUnsafeBytes(of: id) { unsafe output.append(contentsOf: $0) }
      }
    }
  }
}
