// Predictions as the two protocols answer them. Numbers are written with as many digits as make them come back the same.

internal import Base

/// Builds the answers.
enum InferenceReply {
  /// Open Inference Protocol v2: one tensor per task asked for; those wanted as bytes follow the JSON.
  static func v2(_ prediction: Prediction, _ request: InferenceRequest, served: ServedModel) -> Reply {
    let tasks = served.model.options.tasks
    let count = prediction.probabilities.count / prediction.taskCount
    var reply = Reply.json {
      $0.object {
        $0.member("model_name", served.name)
        $0.member("model_version", "\(prediction.version.number)")
        if let id = request.id { $0.member("id", id) }
        $0.object("parameters") { members(of: prediction, &$0) }
        $0.list("outputs") {
          for (task, isBinary) in request.outputs {
            $0.object {
              $0.member("name", tasks[task].name)
              $0.member("datatype", "FP32")
              $0.numbers("shape", [Int64(count)])
              if isBinary {
                $0.object("parameters") { $0.member("binary_data_size", Int64(count * 4)) }
              } else {
                $0.list("data") {
                  for candidate in 0..<count {
                    $0.element(prediction.probabilities[candidate * prediction.taskCount + task])
                  }
                }
              }
            }
          }
        }
      }
    }
    guard request.outputs.contains(where: \.isBinary) else { return reply }
    reply.contentType = "application/octet-stream"
    reply.jsonByteCount = reply.body.count
    for (task, isBinary) in request.outputs where isBinary {
      for candidate in 0..<count {
        let bits = prediction.probabilities[candidate * prediction.taskCount + task].bitPattern.littleEndian
        unsafe withUnsafeBytes(of: bits) { unsafe reply.body.append(contentsOf: $0) }
      }
    }
    return reply
  }

  /// TensorFlow Serving: an object of tasks per instance, and beside them what v2 has in `parameters`.
  static func v1(_ prediction: Prediction, served: ServedModel) -> Reply {
    let tasks = served.model.options.tasks
    return .json {
      $0.object {
        $0.list("predictions") {
          for begin in stride(from: 0, to: prediction.probabilities.count, by: prediction.taskCount) {
            $0.object {
              for (task, options) in tasks.enumerated() {
                $0.member(options.name, prediction.probabilities[begin + task])
              }
            }
          }
        }
        members(of: prediction, &$0)
      }
    }
  }

  private static func members(of prediction: Prediction, _ json: inout JSONBuilder) {
    json.member("version", prediction.version.number)
    json.member("newest_event_time", prediction.version.newestEventTime)
    json.member("default_rows_only", prediction.isFromDefaultRowsOnly)
  }
}
