// What a join is asked to do: the settings, and the same settings compiled into masks and numbers for the hot path.

internal import Base
public import Streams

/// One of the joiner's two input streams.
public enum JoinStream: String, Sendable, Codable, CaseIterable {
  /// What was shown.
  case impressions
  /// What people did.
  case actions
}

/// One partition of an input stream.
public struct JoinInput: Hashable, Sendable, CustomStringConvertible {
  /// The stream.
  public var stream: JoinStream
  /// The partition's number in it, from 0.
  public var partition: Int

  /// An input from its parts.
  public init(_ stream: JoinStream, _ partition: Int) {
    self.stream = stream
    self.partition = partition
  }

  /// "actions 2".
  public var description: String { "\(stream.rawValue) \(partition)" }
}

/// The settings of a join; all times in them are event time.
public struct JoinRules: Equatable, Sendable {
  /// The tasks, in the schema's order.
  public var tasks: [TaskSpec]
  /// How many partitions the impression stream has.
  ///
  /// All impressions with one id come in one partition.
  public var impressionPartitions: Int
  /// How many partitions the action stream has.
  public var actionPartitions: Int
  /// How many partitions the example stream has; an impression's examples go to `id.hash64 % outputPartitions`.
  public var outputPartitions: Int
  /// How far a record may be behind the newest one of its partition before it is late.
  ///
  /// Default 0: partitions are in order, and a wait here delays every label.
  public var allowedLatenessMilliseconds: Int64
  /// Whether late actions are handed over too.
  ///
  /// Default false: they are only counted.
  public var emitsLateActions: Bool
  /// How long beyond the largest window an impression may still come late and join, and repeats are recognised.
  ///
  /// Default 10 minutes; ids of impressions are remembered, and actions wait, for the largest window plus this.
  public var graceMilliseconds: Int64
  /// The features that are computed from the stream; nil: none are.
  public var features: StreamFeatureRules?

  /// Rules from their parts; the defaults are those of the configuration file.
  public init(
    tasks: [TaskSpec], impressionPartitions: Int = 1, actionPartitions: Int = 1, outputPartitions: Int = 1,
    allowedLatenessMilliseconds: Int64 = 0, graceMilliseconds: Int64 = 10 * 60 * 1000, emitsLateActions: Bool = false,
    features: StreamFeatureRules? = nil
  ) {
    self.tasks = tasks
    self.impressionPartitions = impressionPartitions
    self.actionPartitions = actionPartitions
    self.outputPartitions = outputPartitions
    self.allowedLatenessMilliseconds = allowedLatenessMilliseconds
    self.graceMilliseconds = graceMilliseconds
    self.emitsLateActions = emitsLateActions
    self.features = features
  }

  /// The longest window or grace a configuration may ask for, in milliseconds: ten years.
  public static let longestWait: Int64 = 3650 * 86_400_000

  /// Everything that is wrong with the rules, in words; empty when a core can be made from them.
  public func problems() -> [String] {
    var problems: [String] = []
    if tasks.isEmpty { problems.append("no task is given; at least one is needed") }
    if tasks.count > EventSchema.taskLimit {
      problems.append("\(tasks.count) tasks are given; at most \(EventSchema.taskLimit) are possible")
    }
    var names: Set<String> = []
    for task in tasks {
      if !names.insert(task.name).inserted { problems.append("the task \(task.name) is given twice") }
      if task.positiveActions.isEmpty {
        problems.append("the task \(task.name) names no positive action, so its label could never be positive")
      }
      if !(0...Self.longestWait).contains(task.windowMilliseconds) {
        problems.append("the window of \(task.name) is \(task.windowMilliseconds) ms; use 0 ... \(Self.longestWait)")
      }
      if !(task.negativeRate > 0 && task.negativeRate <= 1) {
        problems.append("the negative rate of \(task.name) is \(task.negativeRate); use a number above 0, up to 1")
      }
    }
    for (what, count) in [
      ("impression", impressionPartitions), ("action", actionPartitions), ("example", outputPartitions),
    ] where !(1...65_536).contains(count) {
      problems.append("the \(what) stream has \(count) partitions; use 1 ... 65536")
    }
    for (what, time) in [("allowed lateness", allowedLatenessMilliseconds), ("grace", graceMilliseconds)]
    where !(0...Self.longestWait).contains(time) {
      problems.append("the \(what) is \(time) ms; use 0 ... \(Self.longestWait)")
    }
    return problems + (features?.problems() ?? [])
  }

  var inputs: [JoinInput] {
    (0..<impressionPartitions).map { JoinInput(.impressions, $0) }
      + (0..<actionPartitions).map { JoinInput(.actions, $0) }
  }

  /// The place of an input in `inputs`.
  func index(of input: JoinInput) -> Int {
    let count = input.stream == .impressions ? impressionPartitions : actionPartitions
    precondition((0..<count).contains(input.partition), "\(input) is outside 0..<\(count)")
    return input.stream == .impressions ? input.partition : impressionPartitions + input.partition
  }
}

/// The tasks as masks: bit t stands for task t.
struct TaskTable {
  /// What an action's name means.
  struct Meaning {
    var positive: UInt64 = 0
    var closing: UInt64 = 0
    /// The tasks whose label this action can bring forward.
    var hurrying: UInt64 = 0
  }

  let names: [String]
  let actionNames: [String]
  let actionNumbers: [String: UInt16]
  let meanings: [Meaning]
  let all: UInt64
  let eager: UInt64
  let sampled: UInt64
  let windows: [Int64]
  let shortestWindow: Int64
  /// Largest window plus grace: how long ids and waiting actions are kept.
  let memory: Int64
  let rates: [Float]
  /// The same for rules by which labels are due at the same times, and tasks and actions have the same numbers.
  let fingerprint: UInt64
  private let keepRates: [Double]
  private let seeds: [UInt64]

  init(_ rules: JoinRules) {
    let tasks = rules.tasks
    names = tasks.map(\.name)
    var numbers: [String: UInt16] = [:]
    var actionNames: [String] = []
    var meanings: [Meaning] = []
    func number(_ name: String) -> Int {
      if let known = numbers[name] { return Int(known) }
      numbers[name] = UInt16(meanings.count)
      actionNames.append(name)
      meanings.append(Meaning())
      return meanings.count - 1
    }
    var eager: UInt64 = 0
    var sampled: UInt64 = 0
    for (index, task) in tasks.enumerated() {
      let bit = UInt64(1) << UInt64(index)
      if task.delivery == .eager { eager |= bit }
      if task.negativeRate < 1 { sampled |= bit }
      for name in task.positiveActions {
        let action = number(name)
        meanings[action].positive |= bit
        if task.delivery == .eager { meanings[action].hurrying |= bit }
      }
      for name in task.closingActions {
        let action = number(name)
        meanings[action].closing |= bit
        meanings[action].hurrying |= bit
      }
    }
    actionNumbers = numbers
    self.actionNames = actionNames
    self.meanings = meanings
    self.eager = eager
    self.sampled = sampled
    all = tasks.count == 64 ? .max : (1 << UInt64(tasks.count)) - 1
    windows = tasks.map(\.windowMilliseconds)
    shortestWindow = windows.min() ?? 0
    memory = (windows.max() ?? 0) + rules.graceMilliseconds
    rates = tasks.map { Float($0.negativeRate) }
    keepRates = tasks.map(\.negativeRate)
    seeds = tasks.map { Hashing.xxh3($0.name) }
    fingerprint = Hashing.xxh3(
      tasks.map { task in
        let actions = "\(task.positiveActions) \(task.closingActions)"
        return "\(task.name) \(actions) \(task.windowMilliseconds) \(task.delivery) \(rules.features != nil)"
      }.joined(separator: "\n"))
  }

  /// Whether sampling keeps a negative: a function of impression id and task name alone.
  func keepsNegative(of task: Int, _ impression: ImpressionID) -> Bool {
    let word = Hashing.mix(impression.hash64 ^ seeds[task])
    return Double(word >> 11) * 0x1p-53 < keepRates[task]
  }
}
