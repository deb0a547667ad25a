// What a table is told: its segments, who gets a row, and when rows go. Plain values; `problems()` says all that is
// wrong.

/// How the weights of a new row begin; a pure function of (seed, table name, id).
public enum Initializer: Sendable, Equatable {
  /// All zeros.
  case zeros
  /// All the same value.
  case constant(Float)
  /// Uniform in ±bound.
  case uniform(Float)
  /// Normal with this standard deviation, cut off at six of them.
  case normal(Float)
}

/// An update rule with its hyperparameters.
public struct OptimizerOptions: Sendable, Equatable {
  /// The rule itself, with the numbers only it has.
  public enum Rule: Sendable, Equatable {
    /// w -= rate · g.
    case sgd
    /// v = beta · v + g; w -= rate · v.
    case momentum(beta: Float)
    /// One sum of squared gradients per weight.
    case adagrad(initialAccumulator: Float)
    /// One sum of mean squared gradients per segment.
    case rowWiseAdagrad(initialAccumulator: Float)
    /// Adam with steps counted per row; AdamW with `weightDecay`.
    case adam(beta1: Float, beta2: Float, epsilon: Float)
    /// FTRL-proximal; `alpha` is its own learning rate.
    case ftrl(alpha: Float, beta: Float, l1: Float, l2: Float)

    /// The rule without its numbers: state that one made means nothing to another.
    public var name: String {
      switch self {
      case .sgd: "sgd"
      case .momentum: "momentum"
      case .adagrad: "adagrad"
      case .rowWiseAdagrad: "rowWiseAdagrad"
      case .adam: "adam"
      case .ftrl: "ftrl"
      }
    }
  }

  /// The rule.
  public var rule: Rule
  /// Step size; `ftrl` has its own.
  public var learningRate: Float
  /// Adds l2 · w to the gradient; 0 for none.
  public var l2: Float
  /// Decoupled decay: w *= 1 - rate · decay with every update; 0 for none.
  public var weightDecay: Float
  /// Gradients are first clipped to ± this, if set.
  public var clipValue: Float?
  /// Then a segment's gradient is scaled down to this Euclidean norm, if set.
  public var clipNorm: Float?

  /// A rule with its step size and what else changes a step.
  public init(
    rule: Rule, learningRate: Float, l2: Float = 0, weightDecay: Float = 0, clipValue: Float? = nil,
    clipNorm: Float? = nil
  ) {
    self.rule = rule
    self.learningRate = learningRate
    self.l2 = l2
    self.weightDecay = weightDecay
    self.clipValue = clipValue
    self.clipNorm = clipNorm
  }
}

/// A run of weights in a row that share an initializer and an optimizer: a vector, or the bias beside it.
public struct Segment: Sendable, Equatable {
  /// Its name, unique within the table.
  public var name: String
  /// How many weights it has.
  public var width: Int
  /// How they begin.
  public var initializer: Initializer
  /// How they learn.
  public var optimizer: OptimizerOptions

  /// A segment of `width` weights.
  public init(name: String, width: Int, initializer: Initializer, optimizer: OptimizerOptions) {
    self.name = name
    self.width = width
    self.initializer = initializer
    self.optimizer = optimizer
  }
}

/// Who gets a row: an id is admitted at its n-th sighting.
public enum Admission: Sendable, Equatable {
  /// At the first sighting.
  case always
  /// At the n-th, counted exactly (14 bytes for every id that waits).
  case count(Int)
  /// At the n-th, counted by a sketch of six bytes for each of `ids`: never late, early for at most 1 % of ids while no
  /// more than `ids` different ones wait. Counts halve every `ageing`, if set.
  case sketch(Int, ids: Int, ageing: Duration?)
  /// At the first sighting for this share of ids, for the others never; a pure function of (seed, table name, id).
  case probability(Double)

  /// The largest threshold.
  public static let largestThreshold = 65_535

  /// Whether each id that waits has a count of its own.
  public var countsExactly: Bool { if case .count = self { true } else { false } }

  /// The sighting that admits.
  public var threshold: Int {
    switch self {
    case .always, .probability: 1
    case .count(let n), .sketch(let n, _, _): n
    }
  }
}

/// Which row goes when the table is full.
public enum Eviction: Sendable, Equatable {
  /// The one not seen for the longest time, then the smallest id.
  case lru
  /// The one seen least often, then least recently, then the smallest id.
  case lfu
}

/// All that a table is told.
public struct TableOptions: Sendable, Equatable {
  /// Its name; part of what initial weights depend on.
  public var name: String
  /// The seed of initial weights and of admission by probability.
  public var seed: UInt64
  /// A row's segments, in order.
  public var segments: [Segment]
  /// Who gets a row.
  public var admission: Admission
  /// Every weight of the row that ids without one are answered.
  public var defaultWeight: Float
  /// A row not seen for longer than this, in event time, is gone; at least a second, kept for ever if not set.
  public var timeToLive: Duration?
  /// At most this many rows, if set; then `eviction` makes room for new ones.
  public var rowLimit: Int?
  /// Which row goes when `rowLimit` is reached.
  public var eviction: Eviction
  /// At this many bytes ids without a row are refused one, if set; the others are served on.
  public var memoryLimitBytes: Int?
  /// Event times further than this ahead of the watermark count as this far ahead.
  public var allowedSkew: Duration

  /// A table's options; what has a default does without the feature.
  public init(
    name: String, seed: UInt64, segments: [Segment], admission: Admission = .always, defaultWeight: Float = 0,
    timeToLive: Duration? = nil, rowLimit: Int? = nil, eviction: Eviction = .lru, memoryLimitBytes: Int? = nil,
    allowedSkew: Duration = .seconds(300)
  ) {
    self.name = name
    self.seed = seed
    self.segments = segments
    self.admission = admission
    self.defaultWeight = defaultWeight
    self.timeToLive = timeToLive
    self.rowLimit = rowLimit
    self.eviction = eviction
    self.memoryLimitBytes = memoryLimitBytes
    self.allowedSkew = allowedSkew
  }

  /// Weights per row.
  public var weightCount: Int { segments.reduce(0) { $0 + $1.width } }

  /// Floats per row: weights, then optimizer state.
  public var floatCount: Int { segments.reduce(weightCount) { $0 + $1.optimizer.stateCount(width: $1.width) } }
}
