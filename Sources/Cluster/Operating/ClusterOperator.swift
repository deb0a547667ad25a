// What operators ask of a running cluster: checkpoints, one row, erasure. Each shard is asked where it serves.

internal import Base
internal import Foundation
public import Sharding
internal import Streams
internal import Wire

/// Speaks to the shards of a running cluster.
public final class ClusterOperator {
  let plan: ClusterPlan
  private let paths: StatePaths
  let endpoints: Endpoints
  let context: LinkContext

  /// Speaks to the cluster whose state is at `paths`.
  public init(_ configuration: ClusterConfiguration, paths: StatePaths) throws {
    plan = try ClusterPlan(configuration)
    self.paths = paths
    context = LinkContext(try ClusterKeys(configuration, paths).security(of: ClusterKeys.operatorName))
    endpoints = Endpoints(configuration, socketDirectory: paths.socketDirectory)
  }

  /// How many shards there are.
  public var shardCount: Int { plan.map.shardCount }

  /// What shard `index` is told.
  public func options(ofShard index: Int) -> ShardOptions { plan.shard(index) }

  /// The files of shard `index`.
  public func files(ofShard index: Int) -> ShardFiles {
    ShardFiles(directory: paths.directory(RoleInstance(.shard, index)))
  }

  /// Has shard `index` write a checkpoint, and waits until it is on disk.
  public func createCheckpoint(
    shard index: Int, name: String, compacts: Bool, timeout: Duration = .seconds(3600)
  ) throws -> ShardCheckpoint {
    var asker = try Asker(endpoint: endpoints.shard(index), context: context)
    _ = try asker.shardStatus()  // so that a shard that is not there is told in seconds
    var reader = try asker.ask(timeout: timeout) {
      CheckpointRequest(name: name, compacts: compacts).encoded(request: $0)
    }
    let json = try PlainMessage.text(decoding: &reader)
    guard let manifest = ShardCheckpoint(json: json) else { throw StateError("shard \(index) answered: \(json)") }
    return manifest
  }

  /// Whether trainers can go on from where a chain stands; else why not, and what to do.
  public func problem(withStreamOf chain: ShardCheckpoint.Chain, skipTo: SkipTo) -> String? {
    let stands = Position(high: chain.high, low: chain.low)
    let position = skipTo.position(partition: chain.partition) ?? stands
    guard position >= stands else {
      return
        "\(name(consumer: chain.consumer, partition: chain.partition)) stands at \(stands) in the checkpoint: going "
        + "back to \(position) would train on the examples between twice; skip to \(stands) or later"
    }
    guard let partition = Int(exactly: chain.partition), partition < partitionCount else { return nil }
    guard chain.stream == Hashing.xxh3(StreamLocation.Stream.examples.rawValue) else { return nil }
    do throws(StreamError) {
      let carrier = ClusterStreams(plan.configuration, root: paths.root)[.examples]
      guard try carrier.end(partition: partition) != nil else { return nil }
      var source = try carrier.source(partition: partition, consumer: ClusterKeys.operatorName, from: position)
      _ = try source?.next()
      return nil
    } catch {
      switch error {
      case .journal(.deleted(_, let first)): return gone(partition, position, "\(first)")
      case .gone(_, _, let first): return gone(partition, position, "\(first)")
      case .journal(.damaged):
        return "\(position) is not the end of an example of partition \(partition)"
      default: return "the examples of partition \(partition) cannot be read at \(position): \(error)"
      }
    }
  }

  private func gone(_ partition: Int, _ position: Position, _ first: String) -> String {
    "the examples of partition \(partition) after \(position) are no longer kept (joiner.keepExamples); go on with the "
      + "oldest that are there, with --skip-to \(partition):\(first)"
  }

  /// How many partitions of examples there are.
  public var partitionCount: Int { plan.configuration.streams.examples.partitions }

  /// Whether there is no such partition.
  public func isUnknown(partition: UInt64) -> Bool { partition >= UInt64(partitionCount) }

  // MARK: Ids

  /// The full name of a table: `model.table`, or `table` when one model alone has it.
  public func tableName(_ name: String) throws -> String {
    let names = plan.tables.map(\.name)
    if names.contains(name) { return name }
    let ending = names.filter { $0.hasSuffix(".\(name)") }
    if ending.count == 1 { return ending[0] }
    throw StateError(
      ending.isEmpty
        ? "there is no table '\(name)'; the tables are \(names.joined(separator: ", "))"
        : "'\(name)' is a table of several models; name one of \(ending.joined(separator: ", "))")
  }

  /// The id that a text stands for in a table: a number is itself, any other text is hashed as its feature's values are.
  public func id(_ text: String, table: String) throws -> UInt64 {
    if let number = UInt64(text) { return number }
    if let number = Int64(text) { return UInt64(bitPattern: number) }
    let own = String(table.drop { $0 != "." }.dropFirst())
    let features = plan.configuration.features.filter { $0.tableName == own }.map(\.name)
    guard features.count == 1 else {
      throw StateError(
        "table '\(table)' holds the values of \(features.joined(separator: ", ")): a text has a hash for each; give the id "
          + "as a number")
    }
    return Hashing.xxh3(text, seed: Hashing.xxh3(features[0]))
  }

  /// The shard that owns an id.
  public func shard(of id: UInt64) -> Int { plan.map.shard(of: id) }

  /// One row as its shard holds it, as JSON.
  public func inspect(table: String, id: UInt64) throws -> String {
    var asker = try Asker(endpoint: endpoints.shard(shard(of: id)), context: context)
    var reader = try asker.ask { IDsRequest(table: table, ids: [id]).encoded(.inspect, request: $0) }
    return try PlainMessage.text(decoding: &reader)
  }

  /// Erases ids from their shards; returns when that is durable, with how many rows or counts there were.
  public func forget(table: String, ids: [UInt64]) throws -> Int {
    var erased = 0
    for (shard, own) in Dictionary(grouping: Set(ids).sorted(), by: { self.shard(of: $0) }).sorted(by: {
      $0.key < $1.key
    }) {
      var asker = try Asker(endpoint: endpoints.shard(shard), context: context)
      var reader = try asker.ask(timeout: .seconds(30)) {
        IDsRequest(table: table, ids: own).encoded(.forget, request: $0)
      }
      let answer = Data(try PlainMessage.text(decoding: &reader).utf8)
      struct Answer: Decodable { var erased: Int }
      erased += try JSONDecoder().decode(Answer.self, from: answer).erased
    }
    try forgetEmbeddings(table: table, ids: ids)
    return erased
  }

  /// The consumer and partition a chain's hashes stand for.
  public func name(consumer: UInt64, partition: UInt64) -> String {
    let model = plan.models.first { Hashing.xxh3($0.settings.name) == consumer }?.settings.name
    return "\(model ?? String(consumer, radix: 16))/\(partition)"
  }
}
