// A real shard server in a scratch directory, on a Unix socket, with the files a process would have.

import Base
import Foundation
import Glibc
import Synchronization
import Testing
import Wire

@testable import Sharding

/// A shard server that can be stopped, damaged and started again.
final class ServerFixture {
  let directory = "/tmp/guira-shard-\(getpid())-\(UInt32.random(in: 0 ... .max))"
  private let context = LinkContext()
  private var server: ShardServer?
  private var thread: OwnedThread?
  private var position: UInt64 = 0
  private var starts = 0
  /// The names of the shard's own checkpoints, where a test notes them.
  var first = ""
  var second = ""

  init() throws { try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true) }

  deinit {
    server?.stop()
    thread?.join()
    try? FileManager.default.removeItem(atPath: directory)
  }

  /// Two checkpoints with pushes before, between and behind them.
  static func trained() throws -> ServerFixture {
    let server = try ServerFixture()
    try server.start()
    _ = try server.claim()
    try server.push([1, 2, 3])
    server.first = try server.checkpoint("").name
    try server.push([3, 4])
    server.second = try server.checkpoint("").name
    try server.push([4, 5])
    return server
  }

  var files: ShardFiles { ShardFiles(directory: "\(directory)/state") }
  var options: ShardOptions { ShardFixture.options() }
  private var endpoint: String { "ipc://\(directory)/socket-\(starts)" }

  /// Starts the server; throws what it refuses to start with.
  @discardableResult func start(acceptLoss: Bool = false) throws -> RecoverySummary {
    starts += 1
    var options = ShardServerOptions(shard: options, endpoint: endpoint, directory: files.directory)
    options.shard.epoch = .milliseconds(10)
    options.acceptLoss = acceptLoss
    let server = ShardServer(options)
    let news = Mailbox<Result<RecoverySummary, any Error>>(bound: 4)
    thread = OwnedThread(named: "server") {
      do { try server.run(onReady: { _ = news.offer(.success($0)) }) } catch { _ = news.offer(.failure(error)) }
    }
    self.server = server
    let first = try #require(news.waitAll(timeout: .seconds(120)).first)
    do { return try first.get() } catch {
      thread?.join()
      (thread, self.server) = (nil, nil)
      throw error
    }
  }

  func stop() {
    server?.stop()
    thread?.join()
    (thread, server) = (nil, nil)
  }

  /// Asks the server and gives the body of its answer.
  func ask(_ message: (UInt64) -> Blob) throws -> ByteReader {
    var asker = try Asker(endpoint: endpoint, context: context)
    return try asker.ask(timeout: .seconds(20), message)
  }

  func claim(_ generation: UInt64 = 1) throws -> ChainState {
    let ownership = Ownership(generation: generation, owner: ShardFixture.owner.owner)
    var reader = try ask { Claim(chain: ShardFixture.chain, ownership: ownership).encoded(request: $0) }
    let state = try ChainReply(decoding: &reader).state
    position = state.applied.low
    return state
  }

  /// Pushes gradients of some ids and makes them durable.
  func push(_ ids: [UInt64], gradient: Float = 1, generation: UInt64 = 1) throws {
    var shape = ShardFixture.PushShape(from: position, to: position + 10, ids: ids, gradient: gradient)
    shape.ownership = Ownership(generation: generation, owner: ShardFixture.owner.owner)
    position += 10
    _ = try ask { PushRequest.renumbered(ShardFixture.push(shape), request: $0) }
    // A claim of the same owner is answered when all before it is durable.
    let ownership = shape.ownership
    _ = try ask { Claim(chain: ShardFixture.chain, ownership: ownership).encoded(request: $0) }
  }

  func checkpoint(_ name: String, compacts: Bool = false) throws -> ShardCheckpoint {
    var reader = try ask { CheckpointRequest(name: name, compacts: compacts).encoded(request: $0) }
    return try #require(ShardCheckpoint(json: try PlainMessage.text(decoding: &reader)))
  }

  func forget(_ ids: [UInt64]) throws {
    _ = try ask { IDsRequest(table: "user", ids: ids).encoded(.forget, request: $0) }
  }

  func digest() throws -> DigestReply {
    var asker = try Asker(endpoint: endpoint, context: context)
    return try asker.digest(halfPrecision: false)
  }

  /// The row of an id as the server tells it.
  func inspect(_ id: UInt64) throws -> String {
    var reader = try ask { IDsRequest(table: "user", ids: [id]).encoded(.inspect, request: $0) }
    return try PlainMessage.text(decoding: &reader)
  }

  /// The files below a folder of the shard, in order.
  func paths(_ folder: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted().map { "\(folder)/\($0)" }
  }

  /// Flips one bit of a file.
  func flip(_ path: String, at offset: Int) throws {
    var bytes = try Data(contentsOf: URL(filePath: path))
    bytes[offset] ^= 0x10
    try bytes.write(to: URL(filePath: path))
  }
}
