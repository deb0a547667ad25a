// Open Inference Protocol v2, the request: one input tensor per feature, as JSON or as raw little-endian bytes after the
// JSON (the binary tensor extension), becomes the columns of the candidates.
// Source: kserve/open-inference-protocol, inference_rest.md; triton-inference-server/server, extension_binary_data.md.

internal import Base
internal import Streams

/// Reads inference requests for one model.
struct InferenceRequest {
  /// The sender's name for the request, given back in the answer.
  var id: String?
  /// The tasks asked for, in the order of the answer, each with whether it is wanted as raw bytes.
  var outputs: [(task: Int, isBinary: Bool)] = []

  /// One input tensor, found but not yet read.
  private struct Tensor {
    var column: Int
    var datatype: Datatype
    var candidates: Int
    /// Values per candidate.
    var width: Int
    /// The token of its JSON values, or nil.
    var data: Int?
    /// Where its raw bytes lie.
    var raw: Range<Int>
  }

  private enum Datatype: String {
    case int32 = "INT32"
    case int64 = "INT64"
    case uint32 = "UINT32"
    case uint64 = "UINT64"
    case fp32 = "FP32"
    case fp64 = "FP64"
    case bytes = "BYTES"

    /// Bytes per value; nil for texts.
    var size: Int? {
      switch self {
      case .int32, .uint32, .fp32: 4
      case .int64, .uint64, .fp64: 8
      case .bytes: nil
      }
    }
    var isInteger: Bool { self != .fp32 && self != .fp64 && self != .bytes }
    var isFloating: Bool { self == .fp32 || self == .fp64 }
  }

  private let schema: EventSchema
  private let tasks: [String]
  private let modelInput: ModelInput
  /// When the candidates are shown, UTC milliseconds; nil: now.
  private var time: Milliseconds?

  /// Reads a request into the workspace's columns.
  /// - Parameter jsonByteCount: how much of `body` is JSON, when raw tensors follow.
  /// - Throws: `RequestError` naming what is wrong; the columns are then empty or partly filled.
  init(
    _ body: RawSpan, jsonByteCount: Int?, model: Int, predictor: Predictor, workspace: Workspace
  ) throws(RequestError) {
    schema = predictor.schema
    tasks = predictor.store.models[model].model.options.tasks.map(\.name)
    modelInput = predictor.inputs[model]
    let jsonCount = jsonByteCount ?? body.byteCount
    guard jsonCount >= 0, jsonCount <= body.byteCount else {
      throw .bad("Inference-Header-Content-Length is \(jsonCount); the body has \(body.byteCount) bytes")
    }
    try workspace.parse(body.extracting(0..<jsonCount))
    guard workspace.json[0].kind == .object else {
      throw .bad("the body is \(workspace.json[0].kind.words); expected an object with 'inputs'")
    }
    let inputs = try readObject(workspace.json)
    guard inputs != 0 else { throw .bad("the body has no 'inputs'") }
    var offset = jsonCount
    let tensors = try readInputs(workspace.json, at: inputs, offset: &offset, end: body.byteCount)
    guard offset == body.byteCount else {
      throw .bad("\(body.byteCount - offset) bytes are left after the last raw tensor")
    }
    try fill(workspace, tensors, body, predictor)
  }

  /// Walks the request's fields; gives the token of `inputs`, 0 without one.
  private mutating func readObject(_ json: borrowing JSONText) throws(RequestError) -> Int {
    var inputs = 0
    var outputs = 0
    var wantsBinary = false
    var next = 1
    for _ in 0..<json[0].count {
      let (key, value) = (json[next], next + 1)
      if json.text(key, is: "inputs") {
        inputs = value
      } else if json.text(key, is: "outputs") {
        outputs = value
      } else if json.text(key, is: "id"), json[value].kind == .text {
        id = json.string(of: json[value])
      } else if json.text(key, is: "parameters") {
        wantsBinary = Self.parameter("binary_data_output", json, at: value)?.kind == .yes
        time = try Self.parameter("time", json, at: value).flatMap(Self.time)
      }
      next = json[value].end
    }
    try readOutputs(json, at: outputs, wantsBinary: wantsBinary)
    return inputs
  }

  private mutating func readOutputs(
    _ json: borrowing JSONText, at: Int, wantsBinary: Bool
  ) throws(RequestError) {
    guard at != 0, json[at].kind != .null, json[at].count > 0 else {
      outputs = tasks.indices.map { ($0, wantsBinary) }
      return
    }
    guard json[at].kind == .list else { throw .bad("'outputs' is \(json[at].kind.words); expected a list") }
    var element = at + 1
    for place in 0..<json[at].count {
      let name = try Self.requireText("name", of: "outputs[\(place)]", json, at: element)
      guard let task = tasks.firstIndex(of: name) else {
        throw .bad("output '\(name)' is no task of this model; it has \(tasks.joined(separator: ", "))")
      }
      let parameters = Self.member("parameters", json, at: element)
      let binary = parameters == 0 ? nil : Self.parameter("binary_data", json, at: parameters)
      outputs.append((task, binary.map { $0.kind == .yes } ?? wantsBinary))
      element = json[element].end
    }
  }

  private func readInputs(
    _ json: borrowing JSONText, at: Int, offset: inout Int, end: Int
  ) throws(RequestError) -> [Tensor] {
    guard json[at].kind == .list else { throw .bad("'inputs' is \(json[at].kind.words); expected a list of tensors") }
    var tensors: [Tensor] = []
    var element = at + 1
    for place in 0..<json[at].count {
      guard json[element].kind == .object else {
        throw .bad("inputs[\(place)] is \(json[element].kind.words); expected an object")
      }
      let tensor = try readInput(json, at: element, place: place, offset: &offset, end: end)
      let name = schema.features[tensor.column].name
      guard !tensors.contains(where: { $0.column == tensor.column }) else {
        throw .bad("input '\(name)' is there twice")
      }
      guard tensors.isEmpty || tensors[0].candidates == tensor.candidates else {
        throw .bad(
          "input '\(name)' is for \(tensor.candidates) candidates, "
            + "'\(schema.features[tensors[0].column].name)' for \(tensors[0].candidates)")
      }
      tensors.append(tensor)
      element = json[element].end
    }
    return tensors
  }

  private func readInput(
    _ json: borrowing JSONText, at: Int, place: Int, offset: inout Int, end: Int
  ) throws(RequestError) -> Tensor {
    let name = try Self.requireText("name", of: "inputs[\(place)]", json, at: at)
    guard let column = schema.features.firstIndex(where: { $0.name == name && $0.stream == nil }) else {
      throw .bad(
        "input '\(name)' is no feature; there are \(schema.givenFeatures.map(\.name).joined(separator: ", "))")
    }
    let kind = schema.features[column].kind
    let datatypeName = try Self.requireText("datatype", of: "input '\(name)'", json, at: at)
    guard let datatype = Datatype(rawValue: datatypeName), datatype.isFloating == kind.isDense else {
      throw .bad(
        "input '\(name)' has the datatype '\(datatypeName)'; expected "
          + (kind.isDense ? "FP32 or FP64" : "INT64, UINT64, INT32, UINT32 or BYTES"))
    }
    let shape = try Self.shape(of: name, json, at: at)
    let candidates = shape[0]
    // A candidate without values costs no bytes, so its number needs a limit of its own.
    guard candidates <= Workspace.candidateLimit else {
      throw .bad("input '\(name)' is for \(candidates) candidates; the limit is \(Workspace.candidateLimit)")
    }
    var width = 1
    for size in shape.dropFirst() {
      let product = width.multipliedReportingOverflow(by: size)
      guard !product.overflow, product.partialValue <= Workspace.valueLimit else {
        throw .bad("input '\(name)' has the shape \(shape); too large")
      }
      width = product.partialValue
    }
    try Self.check(width: width, of: name, kind: kind, shape: shape)
    var tensor = Tensor(
      column: column, datatype: datatype, candidates: candidates, width: width, data: nil, raw: 0..<0)
    let parameters = Self.member("parameters", json, at: at)
    if parameters != 0, let size = Self.parameter("binary_data_size", json, at: parameters) {
      guard let bytes = size.integer, bytes >= 0, bytes <= Int64(end - offset) else {
        throw .bad("input '\(name)': binary_data_size does not fit the \(end - offset) bytes that are left of the body")
      }
      tensor.raw = offset..<(offset + Int(bytes))
      offset += Int(bytes)
      if let valueSize = datatype.size, Int(bytes) != candidates * width * valueSize {
        throw .bad("input '\(name)' has \(bytes) raw bytes; its shape \(shape) needs \(candidates * width * valueSize)")
      }
    } else {
      let data = Self.member("data", json, at: at)
      guard data != 0 else { throw .bad("input '\(name)' has neither 'data' nor binary_data_size") }
      guard json[data].kind == .list else {
        throw .bad("'data' of input '\(name)' is \(json[data].kind.words); expected a list")
      }
      tensor.data = data
    }
    return tensor
  }

  private static func check(width: Int, of name: String, kind: FeatureKind, shape: [Int]) throws(RequestError) {
    switch kind {
    case .id where width != 1:
      throw .bad("input '\(name)' has the shape \(shape); expected [N] or [N, 1], one id per candidate")
    case .ids(let limit) where width > limit:
      throw .bad("input '\(name)' has the shape \(shape); expected at most \(limit) ids per candidate")
    case .dense(let expected) where width != expected:
      throw .bad("input '\(name)' has the shape \(shape); expected [N, \(expected)]")
    default: return
    }
  }

  private static func shape(of name: String, _ json: borrowing JSONText, at: Int) throws(RequestError) -> [Int] {
    let list = member("shape", json, at: at)
    guard list != 0, json[list].kind == .list, (1...8).contains(json[list].count) else {
      throw .bad("input '\(name)' needs a 'shape', a list of 1 to 8 sizes")
    }
    var shape: [Int] = []
    for place in 0..<json[list].count {
      guard let size = json[list + 1 + place].integer, size >= 0 else {
        throw .bad("'shape' of input '\(name)' holds something else than sizes")
      }
      shape.append(Int(size))
    }
    return shape
  }

  private func requireAll(_ tensors: [Tensor]) throws(RequestError) {
    let missing = modelInput.required.filter { column in !tensors.contains { $0.column == column } }
    guard missing.isEmpty else {
      let names = missing.map { "'\(schema.features[$0].name)'" }.joined(separator: ", ")
      throw .bad("the model needs the \(missing.count == 1 ? "input" : "inputs") \(names)")
    }
  }

  // MARK: Values

  private func fill(
    _ workspace: Workspace, _ tensors: [Tensor], _ body: RawSpan, _ predictor: Predictor
  ) throws(RequestError) {
    var values = [ColumnValues](repeating: ColumnValues(), count: schema.features.count)
    for tensor in tensors {
      values[tensor.column] = try read(tensor, workspace.json, body)
    }
    try requireAll(tensors)
    try workspace.fillColumns(values, candidates: tensors.first?.candidates ?? 0, schema: schema) {
      predictor.filled($0, at: time)
    }
  }

  private func read(
    _ tensor: Tensor, _ json: borrowing JSONText, _ body: RawSpan
  ) throws(RequestError) -> ColumnValues {
    let feature = schema.features[tensor.column]
    var values = ColumnValues(width: tensor.width)
    let count = tensor.candidates * tensor.width
    let seed = tensor.datatype == .bytes ? Hashing.xxh3(feature.name) : 0
    if let data = tensor.data {
      var reader = DataReader(name: feature.name, seed: seed, expected: count)
      try reader.read(json, at: data, isDense: feature.kind.isDense, isText: tensor.datatype == .bytes, into: &values)
      guard reader.read == count else {
        throw .bad("'data' of input '\(feature.name)' has \(reader.read) values; its shape needs \(count)")
      }
      return values
    }
    let raw = body.extracting(tensor.raw)
    values.reserve(count, isDense: feature.kind.isDense)
    switch tensor.datatype {
    case .uint64, .int64: for at in 0..<count { values.ids.append(Self.load(raw, at)) }
    case .uint32: for at in 0..<count { values.ids.append(UInt64(Self.load(raw, at) as UInt32)) }
    case .int32: for at in 0..<count { values.ids.append(UInt64(bitPattern: Int64(Self.load(raw, at) as Int32))) }
    case .fp32: for at in 0..<count { values.numbers.append(Float(bitPattern: Self.load(raw, at))) }
    case .fp64: for at in 0..<count { values.numbers.append(Float(Double(bitPattern: Self.load(raw, at)))) }
    case .bytes: try Self.readTexts(raw, count: count, feature: feature.name, seed: seed, into: &values)
    }
    if let odd = values.numbers.first(where: { !$0.isFinite }) {
      throw .bad("input '\(feature.name)' holds \(odd); expected finite numbers")
    }
    return values
  }

  private static func load<Word: FixedWidthInteger & BitwiseCopyable>(_ raw: RawSpan, _ index: Int) -> Word {
    unsafe raw.unsafeLoadUnaligned(fromByteOffset: index * MemoryLayout<Word>.size, as: Word.self)
  }

  /// Texts as raw bytes: each a UInt32 count and its UTF-8.
  private static func readTexts(
    _ raw: RawSpan, count: Int, feature: String, seed: UInt64, into values: inout ColumnValues
  ) throws(RequestError) {
    var at = 0
    for place in 0..<count {
      guard raw.byteCount - at >= 4 else { throw .bad("input '\(feature)' ends inside text \(place)") }
      let length = Int(unsafe raw.unsafeLoadUnaligned(fromByteOffset: at, as: UInt32.self))
      guard raw.byteCount - at - 4 >= length else { throw .bad("input '\(feature)' ends inside text \(place)") }
      values.ids.append(Hashing.xxh3(raw.extracting((at + 4)..<(at + 4 + length)), seed: seed))
      at += 4 + length
    }
    guard at == raw.byteCount else { throw .bad("input '\(feature)' has \(raw.byteCount - at) bytes too many") }
  }

  // MARK: JSON

  /// The token of an object's member; 0 when there is none.
  private static func member(_ name: StaticString, _ json: borrowing JSONText, at: Int) -> Int {
    guard json[at].kind == .object else { return 0 }
    var next = at + 1
    for _ in 0..<json[at].count {
      if json.text(json[next], is: name) { return next + 1 }
      next = json[next + 1].end
    }
    return 0
  }

  private static func parameter(_ name: StaticString, _ json: borrowing JSONText, at: Int) -> JSONToken? {
    let token = member(name, json, at: at)
    return token == 0 ? nil : json[token]
  }

  /// What a request says its time is; nil for null.
  static func time(_ token: JSONToken) throws(RequestError) -> Milliseconds? {
    if token.kind == .null { return nil }
    guard let time = token.integer else {
      throw .bad("'time' is \(token.kind.words); expected an integer, UTC milliseconds")
    }
    return time
  }

  private static func requireText(
    _ name: StaticString, of owner: String, _ json: borrowing JSONText, at: Int
  ) throws(RequestError) -> String {
    let token = member(name, json, at: at)
    guard token != 0, json[token].kind == .text else { throw .bad("\(owner) needs a text '\(name)'") }
    return json.string(of: json[token])
  }
}
