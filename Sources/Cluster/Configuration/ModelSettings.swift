// What is trained: kind, shape, optimizers and batches of a model.

public import Training

/// One entry of `models`.
public struct ModelSettings: Sendable, Equatable, Settings {
  /// The kinds of models.
  public enum Kind: String, Sendable, CaseIterable, Codable {
    /// One bias per id and task: logistic regression.
    case logistic
    /// Factorization machine: each task has its own bias and vector segment in every row.
    case fm
    /// The tasks share vectors: first-order term, pairwise term and hidden layers added up.
    case deepfm
    /// Cross layers beside hidden layers (DCN v2).
    case dcn
    /// Dot products of all vectors, then hidden layers; dense numbers have layers of their own.
    case dlrm
    /// The user model: a user tower that ends in a few embeddings, and a mix tower that reads them and all that is not the
    /// user's (docs/user-modelling.md).
    case sum
    /// Learns nothing and adds up exactly: shows that no update is lost or applied twice (docs/chaos.md).
    case counting
  }

  /// The model's name; its tables are called `<model>.<table>`.
  ///
  /// The first model answers requests that name none.
  public var name = ""
  /// The kind.
  ///
  /// Default `fm`: the best of the kinds that need no dense layers.
  public var kind = Kind.fm
  /// Numbers in an embedding vector, per task in `fm`.
  ///
  /// Default 8.
  public var dimension = 8
  /// Widths of the hidden layers of kinds that have them, first to last.
  ///
  /// Default [64, 32].
  public var hidden = [64, 32]
  /// Widths of the hidden layers over the dense numbers in `dlrm`; an output of `dimension` is added.
  ///
  /// Default [64].
  public var bottom = [64]
  /// Cross layers in `dcn`.
  ///
  /// Default 3.
  public var crossLayers = 3
  /// Whether hidden layers normalise before their activation.
  ///
  /// Default false.
  public var layerNorm = false
  /// The share of hidden activations that training drops.
  ///
  /// Default 0: online training sees each example once and hardly overfits.
  public var dropout = 0.0
  /// Standard deviation of new embedding vectors.
  ///
  /// Default 0.01: small beside learned values, yet not all equal.
  public var initialDeviation = 0.01
  /// The two towers of `sum`.
  public var users = UserModelSettings()
  /// How rows learn.
  public var optimizer = OptimizerSettings()
  /// How dense tensors (biases, layers) learn.
  public var denseOptimizer = DenseOptimizerSettings()
  /// How step sizes change while the model learns.
  public var schedule = ScheduleSettings()
  /// Where predictions are corrected for sampled negatives: `serving` adds ln r, `loss` lets the model learn without it.
  ///
  /// Default `serving`: what is learnt does not depend on the rates.
  public var correction = SamplingCorrection.serving
  /// Most examples in a batch.
  ///
  /// Default 256; gradients are summed over it.
  public var batchSize = 256
  /// How long a batch waits for more examples, running time.
  ///
  /// Default 50ms: what it may add to freshness.
  public var flushAfter: Duration = .milliseconds(50)
  /// The features it reads, by name.
  ///
  /// Default empty, written `all`.
  public var features: [String] = []
  /// The tasks it predicts, by name.
  ///
  /// Default empty, written `all`.
  public var tasks: [String] = []

  /// Without a name yet.
  public init() {}

  /// A model with everything at its default.
  public init(name: String) { self.name = name }

  mutating func bind(_ section: Section) {
    section.value("name", &name, .name)
    section.value("kind", &kind, .word)
    if kind == .counting, !section.binding.isWriting { (optimizer, denseOptimizer) = (.exact, .exact) }
    section.value("dimension", &dimension, .integer(1...4096))
    section.values("hidden", &hidden, .integer(1...65_536), atMost: 16)
    section.values("bottom", &bottom, .integer(1...65_536), atMost: 16)
    section.value("crossLayers", &crossLayers, .integer(1...64))
    section.value("layerNorm", &layerNorm, .flag)
    section.value("dropout", &dropout, .number(0...0.99))
    section.value("initialDeviation", &initialDeviation, .number(0...10))
    section.section("users", &users)
    section.section("optimizer", &optimizer)
    section.section("denseOptimizer", &denseOptimizer)
    section.section("schedule", &schedule)
    section.value("correction", &correction, .word)
    section.value("batchSize", &batchSize, .integer(1...65_536))
    section.value("flushAfter", &flushAfter, .duration(.zero ... .seconds(3600)))
    section.values("features", &features, .name, atMost: 1024, all: "all")
    section.values("tasks", &tasks, .name, atMost: 64, all: "all")
    if !section.binding.isWriting, name.isEmpty, !section.isGiven("name") {
      section.report("name", "is missing", "name the model")
    }
    if optimizer.rule == .ftrl, !schedule.options.isConstant, !section.binding.isWriting {
      section.report("schedule", "is given beside ftrl, which has step sizes of its own", "leave it out")
    }
    if kind == .counting { checkExactness(section) }
    guard kind != .sum, !section.binding.isWriting else { return }
    for (key, value) in [("regularization", users.regularization), ("distillation", users.distillation)] where value > 0
    {
      section.report(
        "users.\(key)", "is \(value) for kind \(kind.rawValue), which has no user embeddings to keep steady",
        "leave it out, or use kind sum")
    }
  }

  /// Sums stay exact only under plain steps of 1.
  private func checkExactness(_ section: Section) {
    func require(_ isExact: Bool, _ key: String, _ use: String) {
      if isExact { return }
      section.report(key, "would make the sums of a counting model inexact", "use \(use), or leave it out")
    }
    require(optimizer.rule == .sgd, "optimizer.rule", "sgd")
    require(optimizer.learningRate == 1, "optimizer.learningRate", "1")
    require(optimizer.l2 == 0, "optimizer.l2", "0")
    require(optimizer.weightDecay == 0, "optimizer.weightDecay", "0")
    require(optimizer.clipValue == nil, "optimizer.clipValue", "none")
    require(optimizer.clipNorm == nil, "optimizer.clipNorm", "none")
    require(denseOptimizer.rule == .sgd, "denseOptimizer.rule", "sgd")
    require(denseOptimizer.learningRate == 1, "denseOptimizer.learningRate", "1")
    require(denseOptimizer.weightDecay == 0, "denseOptimizer.weightDecay", "0")
    require(schedule.options.isConstant, "schedule", "warmUp 0 and decay none")
  }
}

/// `models.….optimizer`: how embedding rows learn.
public struct OptimizerSettings: Sendable, Equatable, Settings {
  /// The update rules.
  public enum Rule: String, Sendable, CaseIterable, Codable {
    /// Plain gradient steps.
    case sgd
    /// Gradient steps with a running direction.
    case momentum
    /// Steps shrink with each number's own squared gradients.
    case adagrad
    /// AdaGrad with one sum per row segment: less memory.
    case rowWiseAdagrad
    /// Running mean and variance of gradients.
    case adam
    /// FTRL-proximal: with `l1`, weights that do not pay become exactly zero.
    case ftrl
  }

  /// The rule.
  ///
  /// Default `adagrad`: rare ids keep large steps while frequent ones settle.
  public var rule = Rule.adagrad
  /// Step size, unitless.
  ///
  /// Default 0.05.
  public var learningRate = 0.05
  /// What AdaGrad's sums of squares begin with.
  ///
  /// Default 0.1, so that the first steps stay small.
  public var initialAccumulator = 0.1
  /// Pull towards zero, added to the gradient as l2 × weight.
  ///
  /// Default 1e-4.
  public var l2 = 1e-4
  /// FTRL's threshold below which a weight is zero.
  ///
  /// Default 0.
  public var l1 = 0.0
  /// How much of the last direction `momentum` keeps.
  ///
  /// Default 0.9.
  public var momentum = 0.9
  /// Adam's decay of the mean gradient.
  ///
  /// Default 0.9.
  public var beta1 = 0.9
  /// Adam's decay of the mean squared gradient.
  ///
  /// Default 0.999.
  public var beta2 = 0.999
  /// Adam's addend below the fraction, against division by zero.
  ///
  /// Default 1e-8.
  public var epsilon = 1e-8
  /// FTRL's addend to the root of its sums.
  ///
  /// Default 1.
  public var ftrlBeta = 1.0
  /// Share of each weight taken away per unit of learning rate and update.
  ///
  /// Default 0.
  public var weightDecay = 0.0
  /// The largest number in a gradient; larger ones are cut.
  ///
  /// Default `none`.
  public var clipValue: Double?
  /// The largest length of one row's gradient; longer ones are shortened.
  ///
  /// Default `none`.
  public var clipNorm: Double?

  /// The defaults.
  public init() {}

  /// Plain steps of 1, with nothing that draws weights anywhere: what a counting model has.
  static var exact: Self {
    var settings = Self()
    (settings.rule, settings.learningRate, settings.l2) = (.sgd, 1, 0)
    return settings
  }

  mutating func bind(_ section: Section) {
    section.value("rule", &rule, .word)
    section.value("learningRate", &learningRate, .positive(upTo: 100))
    section.value("initialAccumulator", &initialAccumulator, .number(0...1e6))
    section.value("l2", &l2, .number(0...1000))
    section.value("l1", &l1, .number(0...1000))
    section.value("momentum", &momentum, .number(0...1))
    section.value("beta1", &beta1, .number(0...1))
    section.value("beta2", &beta2, .number(0...1))
    section.value("epsilon", &epsilon, .positive(upTo: 1))
    section.value("ftrlBeta", &ftrlBeta, .number(0...1000))
    section.value("weightDecay", &weightDecay, .number(0...1000))
    section.value("clipValue", &clipValue, Scalar.positive(upTo: 1e9).orWord("none"))
    section.value("clipNorm", &clipNorm, Scalar.positive(upTo: 1e9).orWord("none"))
  }
}

/// `models.….denseOptimizer`: how dense tensors learn.
public struct DenseOptimizerSettings: Sendable, Equatable, Settings {
  /// The update rules.
  public enum Rule: String, Sendable, CaseIterable, Codable {
    /// Plain gradient steps.
    case sgd
    /// Steps shrink with each number's own squared gradients.
    case adagrad
    /// Running mean and variance of gradients.
    case adam
  }

  /// The rule.
  ///
  /// Default `adagrad`, as for rows.
  public var rule = Rule.adagrad
  /// Step size, unitless.
  ///
  /// Default 0.05.
  public var learningRate = 0.05
  /// What AdaGrad's sums of squares begin with.
  ///
  /// Default 0.1.
  public var initialAccumulator = 0.1
  /// Adam's decay of the mean gradient.
  ///
  /// Default 0.9.
  public var beta1 = 0.9
  /// Adam's decay of the mean squared gradient.
  ///
  /// Default 0.999.
  public var beta2 = 0.999
  /// Added to the root before dividing, in AdaGrad and Adam.
  ///
  /// Default 1e-8.
  public var epsilon = 1e-8
  /// Share of each value taken away per unit of learning rate and step.
  ///
  /// Default 0.
  public var weightDecay = 0.0

  /// The defaults.
  public init() {}

  /// Plain steps of 1: what a counting model has.
  static var exact: Self {
    var settings = Self()
    (settings.rule, settings.learningRate) = (.sgd, 1)
    return settings
  }

  mutating func bind(_ section: Section) {
    section.value("rule", &rule, .word)
    section.value("learningRate", &learningRate, .positive(upTo: 100))
    section.value("initialAccumulator", &initialAccumulator, .number(0...1e6))
    section.value("beta1", &beta1, .number(0...1))
    section.value("beta2", &beta2, .number(0...1))
    section.value("epsilon", &epsilon, .positive(upTo: 1))
    section.value("weightDecay", &weightDecay, .number(0...1000))
  }
}
