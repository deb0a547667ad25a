// `guira explain row` and `guira forget`: one id, looked at and erased.

import ArgumentParser
import Base
import Cluster
import Foundation
import Sharding
import Wire

struct Explain: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Looks inside: why something is as it is.", subcommands: [ExplainRow.self, ExplainPrediction.self])
}

struct ExplainRow: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "row", abstract: "Shows a row, its metadata and its history.",
    discussion: """
      The row comes from the running shard; the history from the blocks and the newest checkpoint on this machine's disk:
      a shard keeps those since its oldest checkpoint.

      Examples:
        guira explain row user_id 4711
        guira explain row main.category "sports" --json
      """)

  @Argument(help: "The table, or model.table.") var table: String
  @Argument(help: "The id: a number, or the text it is the hash of.") var id: String
  @OptionGroup var state: StateOption
  @Flag(help: "Print JSON.") var json = false

  func run() throws {
    try reporting {
      let cluster = try ShardsOption.cluster(state)
      let table = try cluster.tableName(table)
      let id = try cluster.id(self.id, table: table)
      let shard = cluster.shard(of: id)
      let files = cluster.files(ofShard: shard)
      let history = Files.exists(files.journal) ? try RowHistory.read(id: id, table: table, in: files) : []
      let row: Row
      do { row = try Row(json: cluster.inspect(table: table, id: id)) } catch let silence as AskError {
        // Its files say what was kept, whether it runs or not.
        row = Row(id: id, problem: "shard \(shard) does not answer (\(silence)); what it holds now is not known")
      }
      write(json ? try Self.json(row, history, shard, cluster) : Self.page(row, history, table, shard, cluster))
    }
  }

  /// What a shard says of an id.
  struct Row: Codable {
    var id: UInt64
    var found: Bool?
    /// Why nothing else is known.
    var problem: String?
    var weights: [Float]?
    var state: [Float]?
    var lastSeen: Milliseconds?
    var frequency: Int?
    var waitingCount: Int?

    init(id: UInt64, problem: String) { (self.id, self.problem) = (id, problem) }

    init(json: String) throws {
      guard let row = try JSONDecoder().decode([Row].self, from: Data(json.utf8)).first else {
        throw Failure("the shard answered: \(json)")
      }
      self = row
    }
  }

  private static func page(
    _ row: Row, _ history: [RowChange], _ table: String, _ shard: Int, _ cluster: ClusterOperator
  ) -> String {
    var lines = ["\(table) id \(row.id), on shard \(shard)"]
    if let problem = row.problem {
      lines.append(problem)
    } else if let waiting = row.waitingCount {
      lines.append("no row yet: seen \(waiting) times, waits to be admitted")
    } else if row.found != true {
      lines.append("no row: never admitted, expired, evicted or forgotten")
    } else {
      lines.append("weights    \(numbers(row.weights ?? []))")
      if let state = row.state, !state.isEmpty { lines.append("optimizer  \(numbers(state))") }
      if let seen = row.lastSeen { lines.append("last seen  \(time(seen)) (event time)") }
      if let frequency = row.frequency { lines.append("frequency  \(frequency)") }
    }
    lines.append(history.isEmpty ? "history    nothing kept" : "history    epoch, what, length of the weights, pushes")
    var before: Float?
    for change in history {
      var line = "  \(change.epoch)  \(change.kind.rawValue)"
      if change.kind != .removed {
        line += "  |w| \(change.norm)"
        if let before { line += change.norm < before ? " (\(change.norm - before))" : " (+\(change.norm - before))" }
      }
      before = change.kind == .removed ? nil : change.norm
      for chain in change.chains {
        line +=
          "  \(cluster.name(consumer: chain.chain.consumer, partition: chain.chain.partition)) to \(chain.applied)"
      }
      lines.append(line)
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func numbers(_ values: [Float]) -> String { values.map { "\($0)" }.joined(separator: " ") }

  private static func time(_ time: Milliseconds) -> String {
    Date(timeIntervalSince1970: Double(time) / 1000).ISO8601Format()
  }

  private static func json(
    _ row: Row, _ history: [RowChange], _ shard: Int, _ cluster: ClusterOperator
  ) throws -> String {
    struct Change: Encodable {
      var epoch: UInt64
      var kind: String
      var norm: Float
      var weights: [Float]
      var lastSeen: Milliseconds?
      var pushes: [String: String]
    }
    struct Page: Encodable {
      var shard: Int
      var row: Row
      var history: [Change]
    }
    let changes = history.map { change in
      let pushes = change.chains.map {
        (cluster.name(consumer: $0.chain.consumer, partition: $0.chain.partition), "\($0.applied)")
      }
      return Change(
        epoch: change.epoch, kind: change.kind.rawValue, norm: change.norm, weights: change.weights,
        lastSeen: change.lastSeen, pushes: Dictionary(pushes) { first, _ in first })
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    return String(decoding: try encoder.encode(Page(shard: shard, row: row, history: changes)), as: UTF8.self) + "\n"
  }
}

struct Forget: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Erases ids from a table of the running shards, for good.",
    discussion: """
      Returns when the erasure is on disk. Replicas drop the rows with the next version. Ids of the users of `guira soap` leave
      its store too. Older blocks and checkpoints lose
      them when they are deleted in their time; --compact has every shard write a new checkpoint and delete all older
      ones and all older blocks at once. A restore never brings a forgotten id back; a new action of the user makes a new row.

      Examples:
        guira forget user_id 4711
        guira forget main.user_id 4711 4712 --compact
      """)

  @Argument(help: "The table, or model.table.") var table: String
  @Argument(help: "The ids: numbers, or the texts they are the hashes of.") var ids: [String]
  @OptionGroup var state: StateOption
  @Flag(help: "Leave nothing of their rows in the shards' blocks and checkpoints.") var compact = false

  func run() throws {
    try reporting {
      let cluster = try ShardsOption.cluster(state)
      let table = try cluster.tableName(table)
      let numbers = try ids.map { try cluster.id($0, table: table) }
      let erased = try cluster.forget(table: table, ids: numbers)
      write("\(erased) of \(Set(numbers).count) ids were there and are erased from \(table)\n")
      guard compact else { return }
      for shard in 0..<cluster.shardCount {
        let manifest = try cluster.createCheckpoint(shard: shard, name: "", compacts: true)
        write("shard \(shard): nothing before epoch \(manifest.beginEpoch) is left on the disk\n")
      }
    }
  }
}
