// What applications send: bodies of predictions and of events; and what a feature store keeps.

import Base
import Layers
import Serving
import Streams
import UserModeling

private let schema = EventSchema(
  features: [
    FeatureSpec(name: "user"), FeatureSpec(name: "tags", kind: .ids(limit: 4)),
    FeatureSpec(name: "age", kind: .dense(width: 2)),
  ], tasks: [TaskSpec(name: "click")])

/// A replica with one small model.
private func service() throws -> InferenceService {
  var options = ModelOptions(
    kind: "fm", features: [ModelFeature(name: "user", table: 0), ModelFeature(name: "tags", table: 1)],
    tasks: [ModelTask(name: "click")])
  options.dimension = 2
  let model = try makeModel(options)
  let store = try ReplicaStore(
    tables: ["user", "tag"].enumerated().map { table, name in
      ReplicaTableOptions(name: name, defaultRow: [Float](repeating: 0.5, count: model.rowWidth(table: table)))
    }, models: [ServedModelOptions(name: "fm", model: options)])
  store.beginBase()
  try store.setDense(model: "fm", tensors: model.initialDense(seed: 1))
  try store.commitBase(VersionInfo(number: 1, newestEventTime: 1, appliedAt: 1))
  let service = InferenceService(
    predictor: try Predictor(store: store, schema: schema), metrics: RequestMetrics(), stalenessLimit: nil)
  // A request's workspace is made once.
  _ = try service.infer(model: "fm", body: Array(whole.utf8).span.bytes, jsonByteCount: nil)
  return service
}

private let whole = #"""
  {"id":"q","inputs":[{"name":"user","shape":[2,1],"datatype":"UINT64","data":[1,18446744073709551615]},
  {"name":"tags","shape":[2,2],"datatype":"BYTES","data":["a","b","c",""]},
  {"name":"age","shape":[2,2],"datatype":"FP32","data":[0.5,-1e3,0,2]}],"outputs":[{"name":"click"}]}
  """#

/// How long the JSON is, then JSON and binary tensors.
private func binary() -> [UInt8] {
  let json =
    #"{"inputs":[{"name":"user","shape":[1,1],"datatype":"UINT64","parameters":{"binary_data_size":8}},"#
    + #"{"name":"tags","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":7}}],"#
    + #""parameters":{"binary_data_output":true}}"#
  let count = json.utf8.count
  return [UInt8(count & 255), UInt8(count >> 8)] + Array(json.utf8) + [7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 97, 98, 99]
}

/// An `EventBatch` of an impression and an action, as docs/events.md has them.
private let batch: [UInt8] = {
  func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] { [number << 3 | 2, UInt8(bytes.count)] + bytes }
  let time: [UInt8] = [3 << 3, 0x80, 0xD0, 0x95, 0xFF, 0xBC, 0x31]
  let user = field(1, Array("user".utf8)) + field(2, [9])
  let age = field(1, Array("age".utf8)) + field(4, [0, 0, 0, 63, 0, 0, 128, 63])
  let tags = field(1, Array("tags".utf8)) + field(3, Array("music".utf8))
  let impression = [1 << 3, 7] + time + field(4, user) + field(4, age) + field(4, tags)
  let action = [1 << 3, 7] + field(3, Array("click".utf8)) + [4 << 3, 0x80, 0xD0, 0x95, 0xFF, 0xBC, 0x31]
  return field(1, field(1, impression)) + field(1, field(2, action))
}()

/// Decoders of what applications send, and of user embeddings.
func servingDecoders() throws -> [Decoder] {
  let service = try service()
  // Answers are made too: probabilities as text, and an error that shows some of what was found.
  func limited(_ decoder: Decoder) -> Decoder {
    var decoder = decoder
    decoder.limit = { 1024 * $0 + (1 << 20) }
    return decoder
  }
  return [
    limited(
      Decoder("infer-json", seeds: { [Array(whole.utf8)] }) { input in
        _ = try service.infer(model: "fm", body: input.bytes, jsonByteCount: nil)
      }),
    limited(
      Decoder("infer-binary", seeds: { [binary()] }) { input in
        let bytes = input.array
        let count = bytes.prefix(2).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
        let body = Array(bytes.dropFirst(2))
        _ = try service.infer(model: "fm", body: body.span.bytes, jsonByteCount: count)
      }),
    limited(
      Decoder(
        "predict-json",
        seeds: {
          [
            #"{"instances":[{"user":1,"tags":["a",2]},{"user":"u","tags":[]}]}"#,
            #"{"instances":[{"user":18446744073709551615,"tags":[-6]}],"signature_name":"x"}"#,
          ].map { Array($0.utf8) }
        }
      ) { input in _ = try service.predict(model: "fm", body: input.bytes) }),
    limited(
      Decoder("event-protobuf", seeds: { [batch] }) {
        var parser = ProtobufEventParser(schema: schema)
        return { input in
          guard let results = try? parser.parse(input.array) else { return false }
          return results.allSatisfy { if case .success = $0 { true } else { false } }
        }
      }),
    Decoder(
      "user-entry",
      seeds: {
        [false, true].map {
          EntryBytes.encode(
            EmbeddingEntry(
              version: 1, eventTime: 2, madeAt: 3, shape: EmbeddingShape(count: 2, dimension: 2),
              values: [0, 1, -1, 0.5]), half: $0)
        }
      }
    ) { input in
      var reader = ByteReader(input)
      _ = try EntryBytes.decode(&reader)
    },
  ]
}
