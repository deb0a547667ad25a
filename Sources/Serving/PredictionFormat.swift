// The bytes between the prediction client and a replica: TensorFlow Serving's `:predict` with one instance.

internal import Base
internal import Streams

/// Writes requests for one model and reads their answers.
struct PredictionFormat: ~Copyable {
  private let schema: EventSchema
  private let path: String
  private let keys: [String]
  private let tasks: NameTable
  private var body = ByteWriter(capacity: 1024)
  private var json = JSONText(limit: ResponseHead.byteLimit)

  init(model: String, schema: EventSchema) {
    self.schema = schema
    path = "/v1/models/\(model):predict"
    tasks = NameTable(schema.tasks.map(\.name))
    keys = schema.features.map { feature in
      var writer = ByteWriter()
      writer.append(quoted: feature.name)
      return String(decoding: writer.finish().array, as: UTF8.self) + ":"
    }
  }

  /// Replaces `output` by the request for one impression; false when its features are not of the schema.
  ///
  /// Unlike events, a request names every feature: null says that there is no value, and nothing was forgotten.
  ///
  /// - Parameter time: when it is shown; nil: now.
  mutating func encode(
    _ features: FeatureBlock, time: Milliseconds?, host: String, into output: inout [UInt8]
  ) -> Bool {
    guard let values = try? features.values(of: schema) else { return false }
    body.clear()
    body.append(text: "{")
    if let time {
      body.append(text: "\"time\":")
      body.append(decimal: time)
      body.append(text: ",")
    }
    body.append(text: "\"instances\":[{")
    var isFirst = true
    for (index, value) in values.enumerated() where schema.features[index].stream == nil {
      if !isFirst { body.append(text: ",") }
      isFirst = false
      body.append(utf8: keys[index])
      switch value {
      case .ids(let ids):
        if case .id = schema.features[index].kind {
          if let id = ids.first { body.append(decimal: id) } else { body.append(text: "null") }
        } else {
          body.append(text: "[")
          for (place, id) in ids.enumerated() {
            if place > 0 { body.append(text: ",") }
            body.append(decimal: id)
          }
          body.append(text: "]")
        }
      case .numbers(let numbers):
        body.append(text: "[")
        for (place, number) in numbers.enumerated() {
          if place > 0 { body.append(text: ",") }
          body.append(number: number)
        }
        body.append(text: "]")
      }
    }
    body.append(text: "}]}")
    output.removeAll(keepingCapacity: true)
    output.append(
      contentsOf: """
        POST \(path) HTTP/1.1\r
        Host: \(host)\r
        Content-Type: application/json\r
        Content-Length: \(body.count)\r
        \r\n
        """.utf8)
    unsafe body.written.withUnsafeBytes { unsafe output.append(contentsOf: $0) }
    return true
  }

  /// The prediction in an answer; nil when it holds none.
  mutating func decode(_ head: ResponseHead, _ input: [UInt8]) -> ServedPrediction? {
    guard head.status == 200 else { return nil }
    guard (try? unsafe json.parse(input.span.bytes.extracting(head.body))) != nil, json[0].kind == .object else {
      return nil
    }
    var prediction: ServedPrediction?
    var isDefault = false
    var next = 1
    for _ in 0..<json[0].count {
      let value = json[next + 1]
      if json.text(json[next], is: "predictions"), value.kind == .list, value.count == 1 {
        prediction = probabilities(at: next + 2)
      } else if json.text(json[next], is: "default_rows_only") {
        isDefault = value.kind == .yes
      }
      next = value.end
    }
    prediction?.defaultRowsOnly = isDefault
    return prediction
  }

  private func probabilities(at: Int) -> ServedPrediction? {
    guard json[at].kind == .object else { return nil }
    var values = [Float](repeating: .nan, count: tasks.names.count)
    var next = at + 1
    for expected in 0..<json[at].count {
      if let task = tasks.index(of: json[next], in: json, expecting: expected), let number = json[next + 1].number {
        values[task] = Float(number)
      }
      next = json[next + 1].end
    }
    return ServedPrediction(probabilities: values)
  }

  /// The start of an answer's body, for error messages.
  func text(_ head: ResponseHead, _ input: [UInt8]) -> String {
    String(decoding: input[head.body].prefix(300), as: UTF8.self)
  }
}
