import Cluster
import Streams
import Testing

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
    #expect(problems(["soap.port=8501"]) == ["soap.port is one of the replicas' ports"])
    #expect(problems(["soap.model=none"]) == ["soap.feature is given without soap.model"])
  }
}
