import Cluster
import Embeddings
import Layers
import Testing

@Suite("What the parts are told") struct ConversionTests {
  private func read(_ text: String) throws -> ClusterConfiguration {
    try ClusterConfiguration(text: text, file: "cluster.yaml")
  }

  @Test func `features that share a table share its number, and dense ones have none`() throws {
    let configuration = try read(
      """
      features:
        - {name: item}
        - {name: history, kind: ids, limit: 20, combiner: mean, table: item}
        - {name: age, kind: dense, width: 3}
        - {name: user}
      tasks: [{name: click}, {name: like, weight: 2}]
      models: [{name: m, kind: deepfm, dimension: 4}]
      """)
    let options = configuration.modelOptions(of: configuration.models[0])
    #expect(
      options.features == [
        ModelFeature(name: "item", table: 0), ModelFeature(name: "history", table: 0, combiner: .mean),
        ModelFeature(name: "user", table: 1),
      ])
    #expect(options.denseWidth == 3)
    #expect(options.tasks == [ModelTask(name: "click"), ModelTask(name: "like", weight: 2)])
    let tables = try configuration.tableOptions(of: configuration.models[0])
    #expect(tables.map(\.name) == ["m.item", "m.user"])
  }

  @Test func `a table gets the model's segments and the policy of its name`() throws {
    let configuration = try read(
      """
      cluster: {seed: 9}
      features: [{name: user}, {name: item}]
      tasks: [{name: click}, {name: like}]
      models:
        - name: m
          dimension: 4
          initialDeviation: 0.5
          optimizer: {rule: ftrl, learningRate: 0.1, l1: 0.2, l2: 0.3, clipNorm: 4}
      tables:
        defaults: {timeToLive: 7d, rowLimit: 11, eviction: lfu}
        overrides: {item: {admission: {sketch: 3}, sketchIds: 1000, sketchAgeing: never, rowLimit: none}}
      shards: {count: 2}
      """)
    let tables = try configuration.tableOptions(of: configuration.models[0])
    let optimizer = OptimizerOptions(
      rule: .ftrl(alpha: 0.1, beta: 1, l1: 0.2, l2: 0.3), learningRate: 0.1, clipNorm: 4)
    #expect(tables[0].seed == 9)
    #expect(tables[0].segments.map(\.width) == [2, 8])
    #expect(tables[0].segments.map(\.initializer) == [.zeros, .normal(0.5)])
    #expect(tables[0].segments.allSatisfy { $0.optimizer == optimizer })
    #expect(tables[0].timeToLive == .seconds(7 * 86_400) && tables[0].admission == .always)
    #expect(tables[0].rowLimit == 6 && tables[0].eviction == .lfu)
    #expect(tables[1].admission == .sketch(3, ids: 1000, ageing: nil))
    #expect(tables[1].rowLimit == nil && tables[1].timeToLive == .seconds(7 * 86_400))
  }

  @Test func `a model may read some features and predict some tasks`() throws {
    let configuration = try read(
      """
      features: [{name: user}, {name: item}, {name: hour}]
      tasks: [{name: click}, {name: like}]
      models: [{name: a, features: [hour, user], tasks: [like]}, {name: b, kind: logistic}]
      """)
    let narrow = configuration.modelOptions(of: configuration.models[0])
    #expect(narrow.features.map(\.name) == ["user", "hour"] && narrow.tasks.map(\.name) == ["like"])
    #expect(configuration.modelOptions(of: configuration.models[1]).features.count == 3)
  }

  @Test func `a counting model takes plain steps of one, and says so when told otherwise`() throws {
    let file = """
      features: [{name: user}]
      tasks: [{name: click}]
      models: [{name: main, kind: counting, dimension: 4
      """
    let configuration = try read("\(file)}]")
    let table = try configuration.tableOptions(of: configuration.models[0])[0]
    #expect(table.segments.count == 1 && table.segments[0].width == 4 && table.segments[0].initializer == .zeros)
    #expect(table.segments[0].optimizer == OptimizerOptions(rule: .sgd, learningRate: 1, l2: 0))
    #expect(configuration.models[0].denseOptimizer.options.rule == .sgd)
    #expect(configuration.models[0].denseOptimizer.options.learningRate == 1)
    #expect(try read(configuration.text) == configuration)
    #expect {
      try read("\(file), optimizer: {learningRate: 0.5}}]")
    } throws: { error in
      "\(error)".contains(
        "models.main.optimizer.learningRate would make the sums of a counting model inexact; use 1, or leave it out")
    }
  }

  @Test func `what a model finds wrong has the file's key and line`() {
    #expect {
      try read(
        """
        features: [{name: user}]
        tasks: [{name: click}]
        models:
          - name: m
            kind: dlrm
            features: [user]
          - name: wide
            kind: fm
            dimension: 4096
        tasks2: []
        """)
    } throws: { error in
      "\(error)" == """
        cluster.yaml:6: models.m.features 'dlrm' multiplies pairs; name two features, or one and model.denseWidth
        cluster.yaml:10: tasks2 is not a known key; did you mean 'tasks'?
        2 problems; nothing was started
        """
    }
  }

  @Test(arguments: ModelSettings.Kind.allCases) func `every kind the file may name can be made`(
    kind: ModelSettings.Kind
  )
    throws
  {
    var configuration = ClusterConfiguration.sample
    configuration.models[0].kind = kind
    configuration.models[0].users.features = ["user_id"]
    #expect(try configuration.tableOptions(of: configuration.models[0]).count == 4)
    #expect(ModelOptions.kinds.contains(kind.rawValue))
    #expect(ModelOptions.kinds.count == ModelSettings.Kind.allCases.count)
  }

  @Test(arguments: OptimizerSettings.Rule.allCases) func `every optimizer is one that tables take`(
    rule: OptimizerSettings.Rule
  ) throws {
    var configuration = ClusterConfiguration.sample
    configuration.models[0].optimizer.rule = rule
    for table in try configuration.tableOptions(of: configuration.models[0]) { #expect(table.problems() == []) }
  }
}
