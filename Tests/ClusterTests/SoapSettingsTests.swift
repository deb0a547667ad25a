import Streams
import Testing
import UserModeling

@testable import Cluster

@Suite("Soap settings") struct SoapSettingsTests {
  private let text = """
    features: [{name: user_id}, {name: item_id}, {name: vector, kind: dense, width: 16}]
    tasks: [{name: click}]
    models:
      - name: users
        kind: sum
        features: [user_id, item_id]
        users: {features: [user_id], embeddings: 2, embeddingDimension: 8}
      - {name: feed, kind: dlrm, features: [item_id, vector]}
    soap: {model: users, feature: vector, count: 2}

    """

  private func problems(_ overrides: [String]) -> [String] {
    do throws(ConfigurationError) {
      _ = try ClusterConfiguration(text: text, file: "cluster.yaml", overrides: overrides)
      return []
    } catch {
      return error.problems.map { "\($0.path) \($0.fault)" }
    }
  }

  @Test func `a cluster with user modelling has its processes, and models read what is theirs`() throws {
    let configuration = try ClusterConfiguration(text: text, file: "cluster.yaml")
    #expect(configuration.instances.filter { $0.role == .soap }.count == 2)
    let plan = try ClusterPlan(configuration)
    let upstream = try #require(plan.upstream)
    #expect(upstream.tables.map(\.name) == ["users.user_id", "users.item_id"])
    #expect(plan.models[0].options.userModel.features == ["user_id"])
    #expect(plan.models[0].options.denseWidth == 0 && plan.models[0].options.denseFeatures == [])
    #expect(plan.models[1].options.denseWidth == 16 && plan.models[1].options.denseFeatures == ["vector"])
    #expect(configuration.eventSchema.features.map(\.isServed) == [false, false, true])
    #expect(try ClusterConfiguration(text: configuration.text, file: "again") == configuration)
    let without = try ClusterConfiguration(text: text, file: "", overrides: ["soap={model: none}"])
    #expect(!without.instances.contains { $0.role == .soap })
  }

  @Test func `training may be held near the newest version, of models with user embeddings alone`() throws {
    let configuration = try ClusterConfiguration(
      text: text, file: "cluster.yaml",
      overrides: ["models.users.users.regularization=2.5", "models.users.users.distillation=0.25"])
    let plan = try ClusterPlan(configuration)
    let stabilization = plan.trainer(0, of: plan.models[0]).stabilization
    #expect(stabilization.regularization == 2.5 && stabilization.distillation == 0.25)
    #expect(!plan.trainer(0, of: plan.models[1]).stabilization.isOn)
    // Behind the replicas and the two processes of the platform.
    let others = configuration.replicas.count + 2
    #expect(plan.teacher(0, of: 0) == others && plan.teacher(1, of: 1) == others + 3)
    #expect(try ClusterConfiguration(text: configuration.text, file: "again") == configuration)
    #expect(
      problems([
        "models.users.users.regularization=-1", "models.users.users.distillation=1.5",
        "models.feed.users.distillation=0.5",
      ]).map { $0.prefix { $0 != " " } } == [
        "models.users.users.regularization", "models.users.users.distillation", "models.feed.users.distillation",
      ])
  }

  @Test func `the users' side may read features from the stream, and says which actions count`() throws {
    let clicked =
      "{name: clicked, kind: ids, limit: 5, table: item_id, combiner: mean, stream: {last: click, of: item_id, by: [user_id]}}"
    let shown = "{name: shown, kind: dense, width: 1, stream: {share: like, over: open, by: [user_id]}}"
    let configuration = try ClusterConfiguration(
      text: text, file: "cluster.yaml",
      overrides: [
        "features=[{name: user_id}, {name: item_id}, {name: vector, kind: dense, width: 16}, \(clicked), \(shown)]",
        "models.users.features=[user_id, item_id, clicked, shown]", "soap.recompute=[onAction]",
        "models.users.users.features=[user_id, clicked, shown]",
      ])
    #expect(configuration.userActions == ["click", "like", "open"])
    #expect(try ClusterPlan(configuration).userTable == "users.user_id")
  }

  @Test func `versions wait for the models that read the embeddings, or for those that are named`() throws {
    func options(_ overrides: [String]) throws -> SoapOptions {
      try ClusterConfiguration(text: text, file: "cluster.yaml", overrides: overrides)
        .soapOptions(model: "users", index: 1)
    }
    let off = try options([])
    #expect(off.seen == nil && off.downstream == ["feed"] && off.part == (1, 2))
    let window = "tasks=[{name: click, window: 5s}, {name: like, window: 2m}]"
    let all = try options(["soap.seen={examples: 100}", window])
    #expect(
      all.seen == SeenOptions(models: [DownstreamModel(name: "feed", windowMilliseconds: 120_000)], examples: 100))
    let named = try options([
      "soap.seen={examples: 7, share: 0.5, models: [feed]}", "soap.feature=none", window, "models.feed.tasks=[click]",
    ])
    #expect(
      named.seen
        == SeenOptions(models: [DownstreamModel(name: "feed", windowMilliseconds: 5_000)], examples: 7, share: 0.5))
    #expect(
      problems(["soap.seen={examples: 7, models: [feed, users]}"]) == [
        "soap.seen.models.1 is 'users', which is not a downstream model"
      ])
    #expect(
      problems(["soap.seen.examples=7", "soap.feature=none"]) == [
        "soap.seen.models is all, and no model reads soap.feature"
      ])
  }

  @Test func `what does not fit together is told`() {
    #expect(
      problems(["soap.model=feed"]) == ["soap.model is 'feed', which is not a model of kind sum"])
    #expect(problems(["soap.user=vector"]) == ["soap.user is 'vector', which is not a feature of kind id"])
    #expect(
      problems(["models.users.users.embeddings=3"]) == [
        "soap.feature is 'vector', which is not a dense feature of width 24"
      ])
    #expect(
      problems(["models.users.features=all"]) == ["soap.feature is 'vector', which the upstream model reads itself"])
    #expect(
      problems(["models.users.users.embeddings=64", "models.users.users.embeddingDimension=2048", "soap.feature=none"])
        == [
          "models.users.users.embeddingDimension is 2048, 131072 numbers per user with 64 embeddings"
        ])
    #expect(
      problems(["soap.recompute=[onAction]"]) == [
        "soap.recompute has onAction, and no feature of the user counts or lists actions: none would change anything"
      ])
    #expect(problems(["soap.port=8501"]) == ["soap.port is one of the replicas' ports"])
    #expect(problems(["soap.model=none"]) == ["soap.feature is given without soap.model"])
  }
}
