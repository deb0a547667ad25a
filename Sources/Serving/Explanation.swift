// Why a prediction is what it is: which rows its ids have, from which version, and what each feature adds to the logit.
// The parts come from the model itself, whatever its kind: the same candidate is scored with every feature alone and with
// every feature left out, all in one batch.
//
// For each task: logit = bias + Σ alone + dense + interaction, exactly; `correction` is ln r of the sampled negatives, and
// the probability sigmoid(logit + correction).

internal import Base
internal import Layers
internal import Streams

/// Explains the candidates of one request.
struct Explanation {
  /// The most candidates one request may have explained.
  static let candidateLimit = 64

  private let predictor: Predictor
  private let model: Int
  private let workspace: Workspace
  /// The columns as they came.
  private let columns: FeatureColumns

  /// Takes the candidates a request has left in the workspace.
  init(_ predictor: Predictor, model: Int, _ workspace: Workspace) throws(RequestError) {
    let count = workspace.columns.exampleCount
    guard (1...Self.candidateLimit).contains(count) else {
      throw .bad("there are \(count) candidates to explain; expected 1 to \(Self.candidateLimit)")
    }
    self.predictor = predictor
    self.model = model
    self.workspace = workspace
    columns = workspace.columns
  }

  private var served: ServedModel { predictor.store.models[model] }
  private var input: ModelInput { predictor.inputs[model] }
  private var tasks: [ModelTask] { served.model.options.tasks }

  /// The answer as JSON; nil while there is no base.
  func reply() throws(RequestError) -> Reply? {
    var candidates: [Candidate] = []
    for index in 0..<columns.exampleCount {
      guard let candidate = try explain(index) else { return nil }
      candidates.append(candidate)
    }
    guard let version = candidates.first?.version else { return nil }
    return .json {
      $0.object {
        $0.member("model", served.name)
        $0.member("kind", served.model.options.kind)
        $0.member("version", version.number)
        $0.member("version_made_at", version.created)
        $0.member("newest_event_time", version.newestEventTime)
        $0.list("candidates") {
          for candidate in candidates { write(candidate, &$0) }
        }
      }
    }
  }

  private struct Candidate {
    var version: VersionInfo
    /// By feature of the model: each id with the stamp of its row.
    var ids: [[(id: UInt64, stamp: RowStamp?)]]
    /// By variant, `[tasks]`.
    var logits: [[Float]]
  }

  /// Variants of a candidate: whole, empty, dense numbers alone; then each feature alone, then each left out.
  private func explain(_ candidate: Int) throws(RequestError) -> Candidate? {
    let features = input.columns.count
    workspace.columns.clear()
    try add(candidate, features: Array(repeating: true, count: features), hasDense: true)
    try add(candidate, features: Array(repeating: false, count: features), hasDense: false)
    try add(candidate, features: Array(repeating: false, count: features), hasDense: true)
    for feature in 0..<features {
      try add(candidate, features: (0..<features).map { $0 == feature }, hasDense: false)
    }
    for feature in 0..<features {
      try add(candidate, features: (0..<features).map { $0 != feature }, hasDense: true)
    }
    guard let prediction = predictor.predict(model: model, workspace.columns, workspace) else { return nil }
    let logits = workspace.models[model].logits
    let variants = stride(from: 0, to: logits.count, by: tasks.count).map { Array(logits[$0..<$0 + tasks.count]) }
    let ids = predictor.store.read(workspace.reader) { snapshot in
      input.columns.map { column -> [(id: UInt64, stamp: RowStamp?)] in
        let ids = values(of: column, candidate)
        guard let table = input.tableOfColumn[column] else { return [] }
        return Array(zip(ids, snapshot.tables[table].stamps(ids: ids))).map { (id: $0.0, stamp: $0.1) }
      }
    }
    guard let ids else { return nil }
    return Candidate(version: prediction.version, ids: ids, logits: variants)
  }

  private func values(of column: Int, _ candidate: Int) -> [UInt64] {
    Array(columns.ids[column][Int(columns.offsets[column][candidate])..<Int(columns.offsets[column][candidate + 1])])
  }

  private func add(_ candidate: Int, features: [Bool], hasDense: Bool) throws(RequestError) {
    var values: [FeatureValue] = []
    for (column, feature) in predictor.schema.features.enumerated() {
      if case .dense(let width) = feature.kind {
        let numbers = columns.numbers[column][candidate * width..<(candidate + 1) * width]
        values.append(.numbers(hasDense ? Array(numbers) : Array(repeating: 0, count: width)))
      } else {
        let place = input.columns.firstIndex(of: column)
        values.append(.ids(place.map { features[$0] } ?? false ? self.values(of: column, candidate) : []))
      }
    }
    try workspace.add(FeatureBlock(schema: predictor.schema, values: values), schema: predictor.schema)
  }

  private func write(_ candidate: Candidate, _ json: inout JSONBuilder) {
    let features = input.columns.count
    let (whole, empty, dense) = (candidate.logits[0], candidate.logits[1], candidate.logits[2])
    json.object {
      $0.list("tasks") {
        for (task, options) in tasks.enumerated() {
          let alone = (0..<features).map { candidate.logits[3 + $0][task] - empty[task] }
          let numbers = dense[task] - empty[task]
          let sum = alone.reduce(empty[task] + numbers, +)
          $0.object {
            $0.member("name", options.name)
            $0.member("probability", Losses.sigmoid(whole[task] + served.corrections[task]))
            $0.member("logit", whole[task])
            $0.member("correction", served.corrections[task])
            $0.member("bias", empty[task])
            $0.member("dense", numbers)
            $0.member("interaction", whole[task] - sum)
          }
        }
      }
      $0.list("features") {
        for (feature, column) in input.columns.enumerated() {
          $0.object {
            $0.member("name", predictor.schema.features[column].name)
            if let table = input.tableOfColumn[column] {
              $0.member("table", predictor.store.tableOptions[table].name)
            }
            $0.list("ids") { for (id, stamp) in candidate.ids[feature] { write(id, stamp, &$0) } }
            $0.object("alone") {
              for (task, options) in tasks.enumerated() {
                $0.member(options.name, candidate.logits[3 + feature][task] - empty[task])
              }
            }
            $0.object("without") {
              for (task, options) in tasks.enumerated() {
                $0.member(options.name, whole[task] - candidate.logits[3 + features + feature][task])
              }
            }
          }
        }
      }
    }
  }

  private func write(_ id: UInt64, _ stamp: RowStamp?, _ json: inout JSONBuilder) {
    json.object {
      $0.member("id", id)
      $0.member("found", stamp != nil)
      if let stamp {
        $0.member("version", UInt64(stamp.version))
        $0.member("age_seconds", max(0, Clocks.wall() / 1000 - Int64(stamp.seconds)))
      }
    }
  }
}
