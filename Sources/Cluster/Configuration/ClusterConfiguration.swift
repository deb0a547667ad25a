// Everything one cluster.yaml says. The types are plain values; `bind` names their keys for reading and writing.
// Every duration says which clock it means: *event time* is read from events, *running time* passes on this machine.

/// The configuration of one cluster.
public struct ClusterConfiguration: Sendable, Equatable, Settings {
  /// Name, seed, and how the roles reach each other.
  public var cluster = ClusterSettings()
  /// What impressions carry, in the order of the stored events.
  ///
  /// At least one, at most 1,024.
  public var features: [FeatureSettings] = []
  /// What is predicted, in the order of labels and predictions.
  ///
  /// At least one, at most 64.
  public var tasks: [TaskSettings] = []
  /// What is trained; each model has tables of its own.
  ///
  /// At least one, at most 16.
  public var models: [ModelSettings] = []
  /// Which ids get rows, how many, and for how long.
  public var tables = TablesSettings()
  /// The parameter servers.
  public var shards = ShardsSettings()
  /// The processes that train.
  public var trainers = TrainersSettings()
  /// The process that takes events over HTTP, when there is one.
  public var ingest = IngestSettings()
  /// The process that joins impressions and actions.
  public var joiner = JoinerSettings()
  /// The streams between the stages.
  public var streams = StreamsSettings()
  /// What is shipped to the replicas, and when.
  public var sync = SyncSettings()
  /// The processes that answer predictions.
  public var replicas = ReplicasSettings()
  /// The processes that keep user embeddings.
  public var soap = SoapSettings()
  /// Who may talk to the cluster.
  public var security = SecuritySettings()

  /// An empty configuration with every section at its defaults; features, tasks and models are to be added.
  public init() {}

  mutating func bind(_ section: Section) {
    section.section("cluster", &cluster)
    section.list("features", &features, atMost: 1024)
    section.list("tasks", &tasks, atMost: 64)
    section.list("models", &models, atMost: 16)
    section.section("tables", &tables)
    section.section("shards", &shards)
    section.section("trainers", &trainers)
    section.section("ingest", &ingest)
    section.section("joiner", &joiner)
    section.section("streams", &streams)
    section.section("sync", &sync)
    section.section("replicas", &replicas)
    section.section("soap", &soap)
    section.section("security", &security)
  }

  /// What `deploy/cluster.yaml` says: every key at its default, for the events of `guira events generate`.
  public static let sample: ClusterConfiguration = {
    var sample = ClusterConfiguration()
    sample.features = ["user_id", "item_id", "category", "hour"].map { FeatureSettings(name: $0) }
    sample.tasks = ["click", "like"].map { TaskSettings(name: $0) }
    sample.models = [ModelSettings(name: "main")]
    return sample
  }()
}

/// `cluster`: name, seed, and how the roles reach each other.
public struct ClusterSettings: Sendable, Equatable, Settings {
  /// What carries messages between roles.
  public enum Transport: String, Sendable, CaseIterable, Codable {
    /// Unix sockets; everything on one machine.
    case ipc
    /// TCP from `host` and `basePort` on.
    case tcp
    /// The shards and the trainer are threads of one process and pass messages without copying; sync and replicas reach
    /// it over Unix sockets.
    case inproc
  }

  /// What a shard waits for before it calls a change safe.
  public enum Durability: String, Sendable, CaseIterable, Codable {
    /// Each epoch's block is on disk (fsync) before it is acknowledged: a crash of the machine loses nothing.
    case epoch
    /// Blocks are written and not synced: a killed process loses nothing, a crash of the machine may. For experiments.
    case none
  }

  /// The cluster's name; a state directory belongs to one name.
  ///
  /// Default `guira`.
  public var name = "guira"
  /// Seed of everything random: new rows, admission, sampling.
  ///
  /// Default 1; the same seed and input give the same model.
  public var seed: UInt64 = 1
  /// What carries messages between roles.
  ///
  /// Default `ipc`: no ports to clash with, no strangers.
  public var transport = Transport.ipc
  /// The address roles listen on with `tcp`.
  ///
  /// Default 127.0.0.1; other than loopback needs keys.
  public var host = "127.0.0.1"
  /// Where others find a role with `tcp`, when roles have hosts of their own: a name in which `{role}` and `{index}`
  /// stand for the role's; nil for `host`.
  ///
  /// Default nil. Roles still listen on `host`, 0.0.0.0 say.
  public var peers: String?
  /// The first of the ports used with `tcp`, one for each role that listens.
  ///
  /// Default 8600.
  public var basePort = 8600
  /// What a shard waits for before it calls a change safe.
  ///
  /// Default `epoch`.
  public var durability = Durability.epoch

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("name", &name, .name)
    section.value("seed", &seed, .integer(0...UInt64(Int64.max)))
    section.value("transport", &transport, .word)
    section.value("host", &host, .host)
    section.value("peers", &peers, Scalar.hostPattern.orWord("none"))
    section.value("basePort", &basePort, .integer(1024...64_000))
    section.value("durability", &durability, .word)
  }
}

/// `security`: who may talk to the cluster.
public struct SecuritySettings: Sendable, Equatable, Settings {
  /// How peers prove who they are.
  public enum Mode: String, Sendable, CaseIterable, Codable {
    /// Not at all: allowed on loopback and ipc, where the operating system keeps strangers out.
    case none
    /// By keys that `guira keys create` makes: strangers are refused, roles may ask only what is theirs, and nothing can
    /// be read on the way. Large messages cost several times as much.
    case curve
  }

  /// How peers prove who they are.
  ///
  /// Default `none`, which is refused on addresses other than loopback.
  public var mode = Mode.none
  /// Where keys and the allow-list lie; a path that does not begin with "/" is below the state directory.
  ///
  /// Default `keys`.
  public var keys = "keys"

  /// The defaults.
  public init() {}

  mutating func bind(_ section: Section) {
    section.value("mode", &mode, .word)
    section.value("keys", &keys, .path)
  }
}
