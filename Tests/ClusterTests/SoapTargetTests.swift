import Base
import Serving
import Streams
import Synchronization
import Syncing
import Testing

@testable import Cluster
@testable import UserModeling

@Suite("Versions in the user-modelling platform") struct SoapTargetTests {
  private static let text = """
    features: [{name: user_id}, {name: item_id}]
    tasks: [{name: click}]
    models:
      - name: users
        kind: sum
        users: {features: [user_id], embeddings: 2, embeddingDimension: 8}
    soap: {model: users}

    """

  /// A platform with an entry of each of six users, who all have rows in the base.
  private struct Platform {
    let plan: ClusterPlan
    let store = MemoryStore()
    let soap: Soap
    let target: SoapTarget
    private let width: Int

    init() throws {
      plan = try ClusterPlan(ClusterConfiguration(text: SoapTargetTests.text, file: "cluster.yaml"))
      let upstream = try #require(plan.upstream)
      let replica = try ReplicaStore(tables: upstream.tables, models: [upstream.model])
      let predictor = try Predictor(store: replica, schema: plan.configuration.eventSchema)
      var options = SoapOptions(model: "users", userFeature: "user_id")
      options.downstream = ["feed"]
      options.seen = SeenOptions(
        models: [DownstreamModel(name: "feed", windowMilliseconds: 0)], examples: 2, share: 1)
      soap = try Soap(options, store: store, predictor: predictor)
      target = SoapTarget(
        ReplicaTarget(plan, store: replica, tables: upstream.tables.map(\.name)), soap: soap, userTable: plan.userTable)
      width = upstream.tables[0].defaultRow.count
      let shape = soap.shape
      store.write(
        (1...6).map {
          EmbeddingWrite(
            user: $0,
            entry: EmbeddingEntry(
              version: 1, eventTime: 1, madeAt: Clocks.wall(), shape: shape,
              values: [Float](repeating: 1, count: shape.width), hadRow: true))
        })
      try base(1, users: Array(1...6))
    }

    /// Whether the compute centre is to look for users without a row.
    var looksForUsers: Bool { soap.isBaseNew.load(ordering: .relaxed) }

    var users: [UInt64] {
      (1...6).filter { !store.entries(of: [$0], asOf: nil)[0].isEmpty }
    }

    func content(_ number: UInt64, ids: [UInt64] = [], gone: [UInt64] = [], table: String = "users.user_id")
      -> VersionContent
    {
      var version = VersionContent(
        number: number, basePart: nil, created: 1, newestEventTime: 1, exampleCount: 1, epochs: [], identities: [],
        arrivals: [],
        tables: [
          TableChange(
            table: table, weightCount: width, tombstones: gone, ids: ids,
            weights: View(copying: [Float](repeating: 0.5, count: ids.count * width)))
        ], tensors: [])
      version.store = 77
      return version
    }

    func base(_ number: UInt64, users: [UInt64], pinned: UInt64 = 0) throws {
      var version = content(number, ids: users)
      version.pinned = pinned
      target.beginBase()
      try target.apply(version.tables[0], of: version)
      try target.setDense(
        plan.tensors.map {
          TensorChange(name: $0.tensor.name, values: [Float](repeating: 0.1, count: $0.tensor.count))
        })
      try target.commitBase(version)
    }

    func take(_ version: VersionContent) throws {
      try target.apply(version.tables[0], of: version)
      try target.publish(version)
    }
  }

  @Test func `users whose row is gone leave when the version is served, and nobody else`() throws {
    let platform = try Platform()
    let version = platform.content(2, gone: [2, 99])
    try platform.target.apply(version.tables[0], of: version)
    #expect(platform.users == [1, 2, 3, 4, 5, 6])
    try platform.target.publish(version)
    #expect(platform.users == [1, 3, 4, 5, 6])
    // An item of the same number is another thing, and so is the way back to an earlier version.
    try platform.take(platform.content(3, gone: [3], table: "users.item_id"))
    var back = platform.content(4, gone: [4])
    back.isReturn = true
    try platform.take(back)
    #expect(platform.users == [1, 3, 4, 5, 6])
    try platform.take(platform.content(5, gone: [4]))
    #expect(platform.users == [1, 3, 5, 6])
  }

  @Test func `a version says what a downstream model has seen, and of which store it is`() throws {
    let platform = try Platform()
    _ = try platform.soap.vectors(of: [1, 2, 3], for: platform.soap.audience(["feed"]))
    #expect(platform.soap.status.seen.map(\.waiting) == [3])
    var version = platform.content(2)
    version.progress = [
      ConsumerProgress(consumer: Hashing.xxh3("users"), exampleCount: 9, watermark: .max),
      ConsumerProgress(consumer: Hashing.xxh3("feed"), exampleCount: 7, watermark: .max),
    ]
    try platform.take(version)
    #expect(platform.soap.status.seen.map(\.served) == [0])
    version.number = 3
    version.progress[1].exampleCount = 9
    try platform.take(version)
    #expect(platform.soap.status.seen.map(\.served) == [1])
    version.number = 4
    version.store = 78
    try platform.take(version)
    #expect(platform.soap.status.seen.map(\.served) == [0])
  }

  @Test func `a base has the compute centre look for users without a row, but not while replicas are pinned`() throws {
    let platform = try Platform()
    #expect(platform.looksForUsers)
    try platform.base(7, users: [1, 2, 3], pinned: 3)
    #expect(!platform.looksForUsers)
    try platform.take(platform.content(8))
    #expect(platform.looksForUsers)
    let soap = platform.soap
    let compute = OwnedThread(named: "compute") { soap.run() }
    let deadline = Clocks.monotonic() + 20_000_000_000
    while platform.users != [1, 2, 3], Clocks.monotonic() < deadline {}
    soap.stop()
    compute.join()
    #expect(platform.users == [1, 2, 3])
  }
}
