// What `guira bench pull` and `push` run with. The server's process is told the same by its arguments.

internal import Embeddings
internal import Sharding
public import Wire

/// How ids are drawn.
public enum IDDistribution: Sendable, Equatable, CustomStringConvertible {
  /// All alike.
  case uniform
  /// The id of rank r with weight r^-exponent.
  case zipf(Double)

  /// "uniform" or "zipf 1.05".
  public var description: String {
    switch self {
    case .uniform: "uniform"
    case .zipf(let exponent): "zipf \(exponent)"
    }
  }

  /// Reads "uniform", "zipf" (1.05) or "zipf:EXPONENT".
  public init?(_ text: String) {
    if text == "uniform" {
      self = .uniform
    } else if text == "zipf" {
      self = .zipf(1.05)
    } else if text.hasPrefix("zipf"), let exponent = Double(text.dropFirst(5)), exponent > 0, exponent != 1 {
      self = .zipf(exponent)
    } else {
      return nil
    }
  }
}

/// What stands behind the socket of a benchmark's server.
public enum BenchService: String, Sendable, CaseIterable {
  /// No table: frames of the same size.
  case echo
  /// A shard that writes no journal and closes no epoch.
  case table
  /// A shard whose blocks are written and not synced.
  case none
  /// A shard that syncs a block each epoch.
  case epoch
  /// A replica that answers rows by id.
  case rows
  /// A replica that answers predictions.
  case predict
  /// A user-modelling platform over ZeroMQ.
  case users
  /// The same with a compute centre that takes half a second more for every batch.
  case slowUsers
  /// The same over HTTP.
  case usersHTTP
}

/// The settings of `guira bench pull` and `guira bench push`.
public struct PullPushSettings: Sendable, Equatable {
  /// Ids in the table.
  ///
  /// Default 10 million.
  public var ids = 10_000_000
  /// Weights per row, with AdaGrad state beside them.
  ///
  /// Default 32.
  public var dimension = 32
  /// Rows per request.
  ///
  /// Default 4,096.
  public var batch = 4096
  /// Requests under way at a time.
  ///
  /// Default 4.
  public var inFlight = 4
  /// Length of one run.
  ///
  /// Default 2 s.
  public var seconds = 2.0
  /// Runs of each kind, taken in turns.
  ///
  /// Default 5.
  public var runs = 5
  /// How ids are drawn.
  ///
  /// Default zipf 1.05.
  public var distribution = IDDistribution.zipf(1.05)
  /// Whether the ids of a request are distinct, as those of a trainer's batch are.
  ///
  /// Default false: as drawn.
  public var isDistinct = false
  /// How rows and gradients travel.
  ///
  /// Default float32.
  public var numbers = NumberType.float32
  /// What the shard does with its blocks while pushes are measured: `epoch` or `none`.
  public var durability = BenchService.epoch
  /// Where the shard's journal is made, and removed again; the disk's own speed is measured there.
  public var journalDirectory = "/tmp"
  /// The seed of everything.
  public var seed: UInt64 = 1

  /// The settings of the published figures.
  public init() {}

  /// What cannot be run, in words; empty when all can.
  public var problems: [String] {
    var problems: [String] = []
    func check(_ holds: Bool, _ text: String) { if !holds { problems.append(text) } }
    check((1...200_000_000).contains(ids), "--ids is \(ids); expected 1 to 200,000,000")
    check((1...1024).contains(dimension), "--dimension is \(dimension); expected 1 to 1,024")
    check((1...1_000_000).contains(batch), "--batch is \(batch); expected 1 to 1,000,000")
    check(!isDistinct || batch <= ids / 4, "--distinct needs --ids of at least four times --batch")
    check((1...1000).contains(inFlight), "--in-flight is \(inFlight); expected 1 to 1,000")
    check(seconds > 0 && seconds <= 3600, "--seconds is \(seconds); expected up to 3,600")
    check((1...1000).contains(runs), "--runs is \(runs); expected 1 to 1,000")
    check(durability == .epoch || durability == .none, "--durability is \(durability); expected epoch or none")
    return problems
  }

  /// The settings as the report names them.
  var described: [String: Setting] {
    [
      "ids": .number(ids), "dimension": .number(dimension), "batch": .number(batch), "inFlight": .number(inFlight),
      "seconds": .decimal(seconds), "runs": .number(runs), "distribution": .text(distribution.description),
      "wire": .text("\(numbers)"), "idsOfABatch": .text(isDistinct ? "distinct" : "as drawn"),
      "seed": .number(Int(clamping: seed)),
    ]
  }

  /// The table that is measured.
  var table: TableOptions {
    let optimizer = OptimizerOptions(rule: .adagrad(initialAccumulator: 0.1), learningRate: 0.05)
    let segment = Segment(name: "vector", width: dimension, initializer: .uniform(0.1), optimizer: optimizer)
    return TableOptions(name: "bench", seed: seed, segments: [segment])
  }

  var shard: ShardOptions {
    ShardOptions(index: 0, map: ClusterMap(shardCount: 1), seed: seed, tables: [table], tensors: [])
  }
}
