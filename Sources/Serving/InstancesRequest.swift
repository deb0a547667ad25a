// TensorFlow Serving's REST predict, row format: {"instances": [{feature: value, …}, …]}, one object per candidate.
// Source: tensorflow.org/tfx/serving/api_rest, "Predict API".

internal import Base
internal import Streams

/// Reads the instances of a request into a workspace's columns.
enum InstancesRequest {
  /// Whether a body has `instances`.
  static func isMeant(_ body: RawSpan, _ workspace: Workspace) throws(RequestError) -> Bool {
    try workspace.parse(body)
    guard workspace.json[0].kind == .object else { return false }
    var next = 1
    for _ in 0..<workspace.json[0].count {
      if workspace.json.text(workspace.json[next], is: "instances") { return true }
      next = workspace.json[next + 1].end
    }
    return false
  }

  /// Fills the columns; every feature the model reads must be there, null where the candidate has no value.
  static func read(_ body: RawSpan, model: Int, predictor: Predictor, workspace: Workspace) throws(RequestError) {
    try workspace.parse(body)
    guard workspace.json[0].kind == .object else {
      throw .bad("the body is \(workspace.json[0].kind.words); expected an object with 'instances'")
    }
    var instances = 0
    var time: Milliseconds?
    var next = 1
    for _ in 0..<workspace.json[0].count {
      if workspace.json.text(workspace.json[next], is: "instances") { instances = next + 1 }
      if workspace.json.text(workspace.json[next], is: "time") {
        time = try InferenceRequest.time(workspace.json[next + 1])
      }
      next = workspace.json[next + 1].end
    }
    guard instances != 0, workspace.json[instances].kind == .list else {
      throw .bad("the body has no list 'instances'")
    }
    let count = workspace.json[instances].count
    guard count <= Workspace.candidateLimit else {
      throw .bad("there are \(count) instances; the limit is \(Workspace.candidateLimit)")
    }
    workspace.columns.clear()
    var element = instances + 1
    for place in 0..<count {
      try requireAll(model, predictor, workspace, at: element, place: place)
      let features: FeatureBlock
      do throws(EventFault.Reason) {
        features = try workspace.parser.block(workspace.json, at: element)
      } catch {
        throw .bad("instances[\(place)]: \(error)")
      }
      try workspace.add(predictor.filled(features, at: time), schema: predictor.schema)
      element = workspace.json[element].end
    }
  }

  private static func requireAll(
    _ model: Int, _ predictor: Predictor, _ workspace: Workspace, at: Int, place: Int
  ) throws(RequestError) {
    guard workspace.json[at].kind == .object else {
      throw .bad("instances[\(place)] is \(workspace.json[at].kind.words); expected an object of features")
    }
    workspace.present.removeAll(keepingCapacity: true)
    var next = at + 1
    for expected in 0..<workspace.json[at].count {
      let index = workspace.names.index(of: workspace.json[next], in: workspace.json, expecting: expected)
      if let index { workspace.present.insert(index) }
      next = workspace.json[next + 1].end
    }
    for column in predictor.inputs[model].required where !workspace.present.contains(column) {
      throw .bad(
        "instances[\(place)] has no '\(predictor.schema.features[column].name)'; send null when there is no value")
    }
  }
}
