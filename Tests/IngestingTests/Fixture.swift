import Base
import Foundation
import Glibc
import Logging
import Streams

@testable import Ingesting

/// A scratch directory.
final class Scratch {
  let path = "/tmp/guira-ingest-\(getpid())-\(UInt32.random(in: 0 ... .max))"
  init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(atPath: path) }
}

let schema = EventSchema(
  features: [FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 2))],
  tasks: [TaskSpec(name: "click")])

/// An ingest into journals of a scratch directory.
func startIngest(
  _ scratch: Scratch, _ change: (inout IngestOptions) -> Void = { _ in }, rejectedByteLimit: Int = 4096,
  backlog: @escaping @Sendable () -> String? = { nil }
) throws -> IngestServer {
  var options = IngestOptions(schema: schema, port: 0)
  change(&options)
  let (root, partitions) = (scratch.path, options.partitions)
  return try IngestServer(options: options, logger: Logger(label: "test"), backlog: backlog) {
    () throws(StreamError) -> IngestSinks in
    var sinks: [JournalSink] = []
    for stream in [StreamLocation.Stream.impressions, .actions] {
      for partition in 0..<partitions {
        sinks.append(try JournalSink(StreamLocation(root: root, stream: stream, partition: partition)))
      }
    }
    return IngestSinks(
      impressions: Array(sinks.prefix(partitions)), actions: Array(sinks.suffix(partitions)),
      rejectedPath: root + "/rejected.jsonl", rejectedByteLimit: rejectedByteLimit)
  }
}

/// All durable events of a partition.
func events(_ scratch: Scratch, _ stream: StreamLocation.Stream, partition: Int = 0) throws -> [Event] {
  let source = try JournalSource(
    StreamLocation(root: scratch.path, stream: stream, partition: partition), consumer: "test")
  var events: [Event] = []
  while let record = try source.next() {
    var reader = record.reader
    events.append(try Event(decoding: &reader))
  }
  return events
}

func isWatermark(_ event: Event) -> Bool {
  if case .watermark = event { true } else { false }
}

/// An answer over HTTP.
struct Answer {
  var status = 0
  var head = ""
  var body = ""
}

/// Posts a body and waits for the answer, on a connection of its own.
func post(
  _ body: String, to port: Int, path: String = "/v1/events", method: String = "POST", headers: [String] = []
) throws -> Answer {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  defer { close(descriptor) }
  var time = timeval(tv_sec: 20, tv_usec: 0)
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = in_port_t(UInt16(port).bigEndian)
  address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  let connected = withUnsafePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
    }
  }
  guard connected == 0 else { throw FileError(errno, "connect to port \(port)") }
  let lines = [
    "\(method) \(path) HTTP/1.1", "Host: localhost", "Content-Length: \(body.utf8.count)", "Connection: close",
  ]
  var rest = Array(((lines + headers).joined(separator: "\r\n") + "\r\n\r\n" + body).utf8)[...]
  while !rest.isEmpty {
    let sent = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    guard sent > 0 else { break }
    rest = rest.dropFirst(sent)
  }
  var received: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65_536)
  while true {
    let count = recv(descriptor, &buffer, buffer.count, 0)
    guard count > 0 else { break }
    received += buffer[..<count]
  }
  let text = String(decoding: received, as: UTF8.self)
  guard let end = text.range(of: "\r\n\r\n") else { return Answer(body: text) }
  let head = String(text[..<end.lowerBound])
  return Answer(
    status: Int(head.split(separator: " ").dropFirst().first ?? "") ?? 0, head: head,
    body: String(text[end.upperBound...]))
}
