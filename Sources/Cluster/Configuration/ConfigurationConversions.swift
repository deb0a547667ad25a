// From what the file says to what the parts want to know.

internal import Base
public import Embeddings
internal import Joining
public import Layers
public import Streams

extension ClusterConfiguration {
  /// The features and tasks of the events, in the order of the file.
  public var eventSchema: EventSchema {
    EventSchema(
      features: features.map {
        var spec = FeatureSpec(name: $0.name, kind: $0.kind, stream: $0.stream?.spec)
        spec.isServed = soap.model != nil && $0.name == soap.feature
        return spec
      },
      tasks: tasks.map { task in
        TaskSpec(
          name: task.name, positiveActions: task.positive, closingActions: task.closing,
          windowMilliseconds: task.window.milliseconds, delivery: task.delivery, negativeRate: task.negativeRate)
      })
  }

  /// How features are computed from the stream; nil when none are.
  public var streamFeatureRules: StreamFeatureRules? {
    let schema = eventSchema
    guard schema.hasStreamFeatures else { return nil }
    let window = schema.tasks.map(\.windowMilliseconds).max() ?? 0
    return StreamFeatureRules(
      schema: schema, delayMilliseconds: joiner.featureDelay.milliseconds,
      memoryMilliseconds: window + JoinerSettings.graceMilliseconds, byteLimit: joiner.featureMemory)
  }

  /// How impressions and actions are joined.
  var joinRules: JoinRules {
    JoinRules(
      tasks: eventSchema.tasks, impressionPartitions: streams.impressions.partitions,
      actionPartitions: streams.actions.partitions, outputPartitions: streams.examples.partitions,
      allowedLatenessMilliseconds: joiner.allowedLateness.milliseconds,
      graceMilliseconds: JoinerSettings.graceMilliseconds, features: streamFeatureRules)
  }

  /// The features a model reads, in the order of the file.
  public func features(of model: ModelSettings) -> [FeatureSettings] {
    model.features.isEmpty ? features : features.filter { model.features.contains($0.name) }
  }

  /// The tasks a model predicts, in the order of the file.
  public func tasks(of model: ModelSettings) -> [TaskSettings] {
    model.tasks.isEmpty ? tasks : tasks.filter { model.tasks.contains($0.name) }
  }

  /// The names of a model's tables as features call them, in the order of their numbers in `ModelFeature.table`.
  public func tableNames(of model: ModelSettings) -> [String] {
    var names: [String] = []
    for name in features(of: model).compactMap(\.tableName) where !names.contains(name) { names.append(name) }
    return names
  }

  /// The shape of a model.
  ///
  /// Features with ids are its features; dense ones add to its dense width, in order.
  public func modelOptions(of model: ModelSettings) -> ModelOptions {
    let tables = tableNames(of: model)
    var denseWidth = 0
    var denseFeatures: [String] = []
    var users = model.users.options
    var read: [ModelFeature] = []
    for feature in features(of: model) {
      if case .dense(let width) = feature.kind {
        if users.features.contains(feature.name) { users.dense.append(denseWidth..<denseWidth + width) }
        users.features.removeAll { $0 == feature.name }
        denseWidth += width
        denseFeatures.append(feature.name)
      }
      guard let table = feature.tableName.flatMap({ tables.firstIndex(of: $0) }) else { continue }
      read.append(
        ModelFeature(name: feature.name, table: table, combiner: Combiner(rawValue: feature.combiner.rawValue) ?? .sum))
    }
    var options = ModelOptions(
      kind: model.kind.rawValue, features: read,
      tasks: tasks(of: model).map { ModelTask(name: $0.name, weight: Float($0.weight)) })
    options.dimension = model.dimension
    options.denseWidth = denseWidth
    options.denseFeatures = denseFeatures
    options.userModel = users
    options.hidden = model.hidden
    options.bottom = model.bottom
    options.crossLayers = model.crossLayers
    options.layerNorm = model.layerNorm
    options.dropout = Float(model.dropout)
    options.initialDeviation = Float(model.initialDeviation)
    return options
  }

  /// The tables of a model on one shard, named `<model>.<table>`, in the order of `tableNames(of:)`.
  /// - Throws: what the model finds wrong with its options.
  public func tableOptions(of model: ModelSettings) throws(ModelError) -> [TableOptions] {
    let shape = try makeModel(modelOptions(of: model))
    return tableNames(of: model).enumerated().map { number, table in
      let policy = tables.policy(of: table)
      return TableOptions(
        name: "\(model.name).\(table)", seed: cluster.seed,
        segments: shape.rowSegments(table: number).map { segment in
          Segment(
            name: segment.name, width: segment.width,
            initializer: segment.initialDeviation > 0 ? .normal(segment.initialDeviation) : .zeros,
            optimizer: model.optimizer.options)
        },
        admission: policy.embeddingsAdmission, defaultWeight: Float(policy.defaultWeight),
        timeToLive: policy.timeToLive,
        // The limit holds for all shards together; hashing spreads ids evenly.
        rowLimit: policy.rowLimit.map { ($0 + shards.count - 1) / shards.count },
        eviction: policy.eviction == .lru ? .lru : .lfu, memoryLimitBytes: policy.memoryLimit,
        allowedSkew: policy.allowedSkew)
    }
  }
}

extension TableSettings {
  var embeddingsAdmission: Admission {
    switch admission {
    case .always: .always
    case .count(let n): .count(n)
    case .sketch(let n): .sketch(n, ids: sketchIds, ageing: sketchAgeing)
    case .probability(let p): .probability(p)
    }
  }
}

extension OptimizerSettings {
  /// The same, as tables know it.
  public var options: OptimizerOptions {
    let accumulator = Float(initialAccumulator)
    let chosen: OptimizerOptions.Rule =
      switch rule {
      case .sgd: .sgd
      case .momentum: .momentum(beta: Float(momentum))
      case .adagrad: .adagrad(initialAccumulator: accumulator)
      case .rowWiseAdagrad: .rowWiseAdagrad(initialAccumulator: accumulator)
      case .adam: .adam(beta1: Float(beta1), beta2: Float(beta2), epsilon: Float(epsilon))
      case .ftrl: .ftrl(alpha: Float(learningRate), beta: Float(ftrlBeta), l1: Float(l1), l2: Float(l2))
      }
    // FTRL has its own l2; the one beside it would count twice.
    return OptimizerOptions(
      rule: chosen, learningRate: Float(learningRate), l2: rule == .ftrl ? 0 : Float(l2),
      weightDecay: Float(weightDecay), clipValue: clipValue.map { Float($0) }, clipNorm: clipNorm.map { Float($0) })
  }
}

extension DenseOptimizerSettings {
  /// The same, as dense tensors know it.
  public var options: DenseOptimizerOptions {
    var options = DenseOptimizerOptions()
    switch rule {
    case .sgd: options.rule = .sgd
    case .adagrad: options.rule = .adagrad
    case .adam: options.rule = .adam
    }
    options.learningRate = Float(learningRate)
    options.initialAccumulator = Float(initialAccumulator)
    options.firstDecay = Float(beta1)
    options.secondDecay = Float(beta2)
    options.epsilon = Float(epsilon)
    options.weightDecay = Float(weightDecay)
    return options
  }
}

extension ClusterConfiguration {
  /// What models and tables find wrong, in the file's words.
  func checkShapes(_ binding: Binding) {
    for model in models where !model.name.isEmpty {
      let path = "models.\(model.name)"
      // What is wrong in the parts was told already, and would be told again as a wrong whole.
      guard !binding.hasProblem(under: ["features", "tasks", "tables", path]) else { continue }
      let options = modelOptions(of: model)
      let problems = options.problems()
      for problem in problems { report(problem, prefix: "model.", path, binding) }
      if !problems.isEmpty { continue }
      do throws(ModelError) {
        for table in try tableOptions(of: model) {
          for problem in table.problems() { report(problem, prefix: "table '\(table.name)': ", path, binding) }
        }
      } catch { for problem in error.problems { report(problem, prefix: "model.", path, binding) } }
    }
  }

  /// Reports "model.key is wrong; do this" as a problem of the key.
  private func report(_ problem: String, prefix: String, _ path: String, _ binding: Binding) {
    let text = problem.hasPrefix(prefix) ? problem.dropFirst(prefix.count) : problem[...]
    let sentence = text.split(separator: " ", maxSplits: 1)
    let parts = (sentence.count == 2 ? sentence[1] : text).split(separator: "; ", maxSplits: 1)
    let key = sentence.first.map(String.init)?.trimmingSuffix(":") ?? ""
    binding.report(
      sentence.count == 2 && prefix == "model." ? "\(path).\(key)" : path,
      prefix == "model." ? String(parts.first ?? "") : "has a \(problem.split(separator: "; ", maxSplits: 1)[0])",
      parts.count == 2 ? String(parts[1]) : "")
  }
}
