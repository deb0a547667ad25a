// What a replica answers to each request, without sockets: bytes in, bytes out. Called on any thread.

internal import Base
internal import Layers
internal import Streams

/// The requests a replica answers.
package struct InferenceService: Sendable {
  let predictor: Predictor
  let metrics: RequestMetrics
  /// A replica whose last version is older than this is not ready; nil for never.
  let stalenessLimit: Duration?

  private var store: ReplicaStore { predictor.store }

  package init(predictor: Predictor, metrics: RequestMetrics, stalenessLimit: Duration?) {
    self.predictor = predictor
    self.metrics = metrics
    self.stalenessLimit = stalenessLimit
  }

  // MARK: Predictions

  /// Open Inference Protocol v2: `POST /v2/models/M/infer`.
  package func infer(model name: String, body: RawSpan, jsonByteCount: Int?) throws(RequestError) -> Reply {
    let model = try index(of: name)
    return try predictor.withWorkspace { workspace throws(RequestError) in
      let request = try InferenceRequest(
        body, jsonByteCount: jsonByteCount, model: model, predictor: predictor, workspace: workspace)
      let prediction = try predict(model, workspace)
      return InferenceReply.v2(prediction, request, served: store.models[model])
    }
  }

  /// TensorFlow Serving: `POST /v1/models/M:predict`.
  package func predict(model name: String, body: RawSpan) throws(RequestError) -> Reply {
    let model = try index(of: name)
    return try predictor.withWorkspace { workspace throws(RequestError) in
      try InstancesRequest.read(body, model: model, predictor: predictor, workspace: workspace)
      return InferenceReply.v1(try predict(model, workspace), served: store.models[model])
    }
  }

  /// `POST /v2/models/M/explain`: a body as of `infer`, or as of `:predict`.
  package func explain(model name: String, body: RawSpan, jsonByteCount: Int?) throws(RequestError) -> Reply {
    let model = try index(of: name)
    return try predictor.withWorkspace { workspace throws(RequestError) in
      if jsonByteCount == nil, try InstancesRequest.isMeant(body, workspace) {
        try InstancesRequest.read(body, model: model, predictor: predictor, workspace: workspace)
      } else {
        _ = try InferenceRequest(
          body, jsonByteCount: jsonByteCount, model: model, predictor: predictor, workspace: workspace)
      }
      guard let reply = try Explanation(predictor, model: model, workspace).reply() else { throw notReady }
      return reply
    }
  }

  private func predict(_ model: Int, _ workspace: Workspace) throws(RequestError) -> Prediction {
    guard let prediction = predictor.predict(model: model, workspace.columns, workspace) else { throw notReady }
    metrics.predicted(candidates: workspace.columns.exampleCount, prediction)
    return prediction
  }

  private func index(of name: String) throws(RequestError) -> Int {
    guard let index = store.model(named: name) else {
      throw .notFound("there is no model '\(name)'; there are \(store.modelNames.joined(separator: ", "))")
    }
    return index
  }

  private var notReady: RequestError { .unavailable("no base has been applied yet") }

  // MARK: State

  /// Why predictions should not be asked of this replica now; nil when it is ready.
  var unreadiness: String? {
    if let refusal = store.refusal { return refusal }
    guard let lag = store.lag else { return "no base has been applied yet" }
    guard let stalenessLimit, lag > stalenessLimit else { return nil }
    return "the last version was made \(lag.inSeconds) seconds ago; the limit is \(stalenessLimit.inSeconds)"
  }

  /// `/readyz`, `/v2/health/ready`.
  func readiness() -> Reply {
    if let unreadiness { return .error(503, unreadiness) }
    return .json { $0.object { $0.member("ready", true) } }
  }

  /// `/healthz`, `/v2/health/live`: the process answers.
  func liveness() -> Reply { .json { $0.object { $0.member("live", true) } } }

  /// `/v2/models/M/ready`.
  func readiness(model name: String) throws(RequestError) -> Reply {
    _ = try index(of: name)
    return readiness()
  }

  // MARK: Metadata

  /// `/v2`.
  func serverMetadata() -> Reply {
    .json {
      $0.object {
        $0.member("name", "guira")
        $0.member("version", "1")
        $0.list("extensions") { $0.element("binary_tensor_data") }
      }
    }
  }

  /// `/v2/models/M`.
  func metadata(model name: String) throws(RequestError) -> Reply {
    let index = try index(of: name)
    let served = store.models[index]
    let input = predictor.inputs[index]
    return .json {
      $0.object {
        $0.member("name", served.name)
        $0.list("versions") { if let version = store.version { $0.element("\(version.number)") } }
        $0.member("platform", "guira_\(served.model.options.kind)")
        $0.list("inputs") {
          for column in input.required {
            let feature = predictor.schema.features[column]
            $0.object {
              $0.member("name", feature.name)
              switch feature.kind {
              case .id:
                $0.member("datatype", "UINT64")
                $0.numbers("shape", [-1, 1])
              case .ids:
                $0.member("datatype", "UINT64")
                $0.numbers("shape", [-1, -1])
              case .dense(let width):
                $0.member("datatype", "FP32")
                $0.numbers("shape", [-1, Int64(width)])
              }
            }
          }
        }
        $0.list("outputs") {
          for task in served.model.options.tasks {
            $0.object {
              $0.member("name", task.name)
              $0.member("datatype", "FP32")
              $0.numbers("shape", [-1])
            }
          }
        }
      }
    }
  }

  /// TensorFlow Serving's model status: `/v1/models/M`.
  func status(model name: String) throws(RequestError) -> Reply {
    _ = try index(of: name)
    return .json {
      $0.object {
        $0.list("model_version_status") {
          $0.object {
            $0.member("version", "\(store.version?.number ?? 0)")
            $0.member("state", store.isReady ? "AVAILABLE" : "LOADING")
            $0.object("status") {
              $0.member("error_code", "OK")
              $0.member("error_message", "")
            }
          }
        }
      }
    }
  }

  /// `/status`: what the replica holds, how fresh it is, what it has answered.
  func status() -> Reply {
    let statistics = store.statistics()
    let requests = metrics.totals()
    return .json {
      $0.object {
        $0.member("ready", unreadiness == nil)
        if let unreadiness { $0.member("problem", unreadiness) }
        $0.list("models") { for name in store.modelNames { $0.element(name) } }
        if let version = statistics.version {
          $0.object("version") {
            $0.member("number", version.number)
            $0.member("newestEventTime", version.newestEventTime)
            $0.member("modelStep", version.modelStep)
            $0.numbers("shardEpochs", version.shardEpochs.map { Int64(clamping: $0) })
            $0.member("appliedAt", version.appliedAt)
            $0.member("ageMilliseconds", statistics.age?.milliseconds ?? 0)
            $0.member("lagMilliseconds", statistics.lag?.milliseconds ?? 0)
            $0.member("stalenessMilliseconds", version.staleness(at: Clocks.wall()))
          }
        }
        $0.list("tables") {
          for table in statistics.tables {
            $0.object {
              $0.member("name", table.name)
              $0.member("rows", Int64(table.rows))
              $0.member("bytes", Int64(table.bytes))
            }
          }
        }
        $0.object("freshnessMilliseconds") { $0.summary(statistics.freshness) }
        $0.object("requests") {
          $0.member("answered", requests.answered)
          $0.member("refused", requests.refused)
          $0.member("candidates", requests.candidates)
          $0.member("defaultRowsOnly", requests.defaultRowsOnly)
          $0.object("latencyMicroseconds") { $0.summary(requests.latency) }
        }
      }
    }
  }
}
