// What the platform answers over HTTP: requests in, replies out, without sockets. User ids are as in events: integers, or
// texts that are hashed with the feature's name.

internal import Base
internal import Serving
internal import Streams
internal import Synchronization
internal import Wire

/// Answers requests of applications; any thread may call it.
final class SoapService: Sendable {
  static let userLimit = 16_384
  let soap: Soap
  let metrics = RequestMetrics()
  private let parsers = Mutex<[RequestParser]>([])
  private let userSeed: UInt64
  /// Not ready when the version is older than this.
  private let stalenessLimit: Duration?

  init(soap: Soap, stalenessLimit: Duration?) {
    self.soap = soap
    self.stalenessLimit = stalenessLimit
    userSeed = Hashing.xxh3(soap.options.userFeature)
  }

  func liveness() -> Reply { .json { $0.object { $0.member("live", true) } } }

  /// Stored embeddings are served whatever has become of the model; ready says that new ones are made, too.
  func readiness() -> Reply {
    if let refusal = soap.predictor.store.refusal { return .error(503, refusal) }
    let status = soap.status
    guard status.version > 0 || status.heldVersion != nil else { return .error(503, "no base has been applied yet") }
    if let stalenessLimit, let lag = soap.predictor.store.lag, lag > stalenessLimit {
      return .error(503, "the version in use was made \(lag.milliseconds) ms ago")
    }
    return .json { $0.object { $0.member("ready", true) } }
  }

  /// One user's vector.
  ///
  /// - Parameter readers: the downstream models that it is for.
  func user(model: String, name: String, readers: [String] = []) throws(RequestError) -> Reply {
    try requireModel(model)
    let audience = try audience(readers)
    let user = UInt64(name) ?? Hashing.xxh3(name, seed: userSeed)
    return try answer(users: [user]) { () throws(FeatureStoreError) in
      try soap.vectors(of: [user], for: audience)
    }
  }

  /// The vectors of `users`, or of `instances` with features.
  func embed(model: String, body: RawSpan) throws(RequestError) -> Reply {
    try requireModel(model)
    let parser = parsers.withLock { $0.popLast() } ?? RequestParser(soap)
    defer { parsers.withLock { $0.append(parser) } }
    let request = try parser.read(body, userSeed: userSeed)
    let shape = request.shape ?? soap.shape
    guard request.users.count * shape.width * 4 <= EmbedReply.byteLimit else {
      throw .bad(
        "\(request.users.count) users of \(shape) numbers are more than \(EmbedReply.byteLimit) bytes; ask for fewer")
    }
    let audience = try audience(request.readers)
    return try answer(users: request.users) { () throws(FeatureStoreError) in
      request.computes.isEmpty
        ? try soap.vectors(of: request.users, shape: request.shape, asOf: request.asOf, for: audience)
        : try soap.vectors(for: request.computes, audience: audience)
    }
  }

  private func requireModel(_ model: String) throws(RequestError) {
    guard model == soap.options.model else {
      throw .notFound("there is no model '\(model)' here; it is '\(soap.options.model)'")
    }
  }

  private func audience(_ models: [String]) throws(RequestError) -> Audience {
    do throws(SoapError) { return try soap.audience(models) } catch { throw .bad("'for': \(error)") }
  }

  private func answer(
    users: [UInt64], _ vectors: () throws(FeatureStoreError) -> [UserVector]
  ) throws(RequestError) -> Reply {
    do throws(SoapError) { try soap.requireOwn(users) } catch {
      throw RequestError(status: 421, message: "\(error)")
    }
    let answer: [UserVector]
    do throws(FeatureStoreError) { answer = try vectors() } catch { throw .unavailable("\(error)") }
    return .json { json in
      json.object { json in
        json.member("model", soap.options.model)
        json.list("users") { list in
          for (user, vector) in zip(users, answer) {
            list.object { json in
              json.member("user", user)
              json.member("source", vector.source.name)
              json.member("version", vector.version)
              json.member("event_time", vector.eventTime)
              json.member("age_ms", vector.age)
              json.member("pooled", Int64(vector.pooled))
              if vector.isWithheld { json.member("withheld", true) }
              json.list("embedding") { list in for value in vector.values { list.element(value) } }
            }
          }
        }
      }
    }
  }

  /// The state of the platform as JSON.
  func statusReply() -> Reply {
    let status = soap.status
    return .json { json in
      json.object { json in
        json.member("mode", soap.options.mode.rawValue)
        json.member("version", status.version)
        json.object("reads") { json in
          json.member("current", status.currentReads)
          json.member("stored", status.storedReads)
          json.member("default", status.defaultReads)
          json.member("withheld", status.withheldReads)
        }
        if !status.seen.isEmpty {
          json.list("downstream") { list in
            for model in status.seen {
              list.object { json in
                json.member("model", model.model)
                json.member("served", model.served)
                if let candidate = model.candidate { json.member("candidate", candidate) }
                json.member("examples", model.examples)
                json.member("waiting", model.waiting)
                json.member("needed", model.needed)
              }
            }
          }
        }
        json.object("compute") { json in
          json.member("computed", status.computed)
          json.member("queued", Int64(status.queued))
          json.member("changed", status.changed)
          json.member("replaced", status.replaced)
          json.member("dropped", status.dropped)
          json.member("held_versions", Int64(status.heldVersions))
          json.member("forgotten", status.forgotten)
        }
        if let shift = status.shift {
          json.object("shift") { json in
            json.member("mean_cosine", Float(shift.meanCosine))
            json.member("l2_ratio", Float(shift.l2Ratio))
            json.member("users", Int64(shift.users))
          }
        }
        json.object("store") { json in
          json.member("users", Int64(status.extent.users))
          json.member("bytes", Int64(status.extent.bytes))
          json.member("failures", status.storeFailures)
        }
        json.member("problem", status.problem)
      }
    }
  }

  /// Prometheus text.
  func exposition() -> String {
    let status = soap.status
    var text = PrometheusText()
    text.family("guira_soap_requests_total", "counter", "HTTP requests answered, by route and status code.") {
      for (key, count) in metrics.totals().answers.sorted(by: {
        ($0.key.route, $0.key.status) < ($1.key.route, $1.key.status)
      }) {
        $0.sample("route=\"\(key.route)\",code=\"\(key.status)\"", "\(count)")
      }
    }
    text.histogram(
      "guira_soap_embed_seconds", "Time from a request for embeddings to its answer.", metrics.totals().latency,
      unitsPerSecond: 1e6, bounds: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1])
    text.family("guira_soap_reads_total", "counter", "Users answered, by what the answer came from.") {
      $0.sample("source=\"current\"", "\(status.currentReads)")
      $0.sample("source=\"stored\"", "\(status.storedReads)")
      $0.sample("source=\"default\"", "\(status.defaultReads)")
    }
    text.value(
      "guira_soap_withheld_total", "counter",
      "Users answered with the default because no entry is of a served version.",
      "\(status.withheldReads)")
    if !status.seen.isEmpty {
      func family(_ name: String, _ help: String, _ value: (SeenStatus) -> UInt64) {
        text.family(name, "gauge", help) {
          for model in status.seen { $0.sample("model=\"\(model.model)\"", "\(value(model))") }
        }
      }
      family("guira_soap_served_version", "The newest version served to a downstream model.", \.served)
      family("guira_soap_seen_examples", "Answers of later versions it was trained on.", \.examples)
      family("guira_soap_seen_examples_needed", "How many have the next version served.", \.needed)
    }
    text.value("guira_soap_computed_total", "counter", "Embeddings worked out.", "\(status.computed)")
    text.value("guira_soap_queued", "gauge", "Users that wait for the compute centre.", "\(status.queued)")
    text.value(
      "guira_soap_changed_total", "counter", "Users queued because a version changed their row.", "\(status.changed)")
    text.value("guira_soap_replaced_total", "counter", "Requests replaced by a newer one.", "\(status.replaced)")
    text.value("guira_soap_dropped_total", "counter", "Requests dropped from a full queue.", "\(status.dropped)")
    text.value(
      "guira_soap_forgotten_total", "counter", "Users forgotten, or without a row any more.", "\(status.forgotten)")
    text.value("guira_soap_store_failures_total", "counter", "Times the store failed.", "\(status.storeFailures)")
    text.value("guira_soap_users", "gauge", "Users with entries.", "\(status.extent.users)")
    text.value("guira_soap_bytes", "gauge", "Bytes of entries.", "\(status.extent.bytes)")
    text.value("guira_soap_version", "gauge", "The version in use.", "\(status.version)")
    text.value("guira_soap_held_versions_total", "counter", "Versions held back.", "\(status.heldVersions)")
    if let shift = status.shift {
      text.value(
        "guira_soap_shift_cosine", "gauge", "Mean cosine of users between the last two versions.",
        "\(shift.meanCosine)")
      text.value(
        "guira_soap_shift_l2_ratio", "gauge", "Mean length of users' moves beside their own length.",
        "\(shift.l2Ratio)")
    }
    text.histogram(
      "guira_soap_batch_seconds", "Time of a batch in the compute centre.", status.batches, unitsPerSecond: 1e6,
      bounds: [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5])
    return text.text
  }
}

/// What a body asks for.
private struct EmbedBody {
  var users: [UInt64] = []
  var computes: [ComputeRequest] = []
  var shape: EmbeddingShape?
  var asOf: Milliseconds?
  /// The downstream models that the answer is for.
  var readers: [String] = []
}

/// Reads bodies; keeps its memory from one to the next.
///
/// unchecked because: the service lends it to one thread at a time.
private final class RequestParser: @unchecked Sendable {
  private var json: JSONText
  private var features: FeatureParser
  private let soap: Soap

  init(_ soap: Soap) {
    self.soap = soap
    json = JSONText(limit: soap.predictor.bodyByteLimit)
    features = FeatureParser(schema: soap.predictor.schema, ignored: [])
  }

  func read(_ body: RawSpan, userSeed: UInt64) throws(RequestError) -> EmbedBody {
    do throws(JSONFault) { try json.parse(body) } catch {
      switch error {
      case .notUTF8: throw .bad("the body is not UTF-8")
      case .malformed(let problem): throw .bad("the body is not JSON: \(problem)")
      }
    }
    guard json[0].kind == .object else { throw .bad("the body is \(json[0].kind.words); expected an object") }
    var result = EmbedBody()
    var (users, instances) = (0, 0)
    var eventTime = soap.now
    var next = 1
    for _ in 0..<json[0].count {
      let (key, value) = (json[next], next + 1)
      if json.text(key, is: "users") {
        users = value
      } else if json.text(key, is: "instances") {
        instances = value
      } else if json.text(key, is: "shape") {
        result.shape = try shape(at: value)
      } else if json.text(key, is: "as_of") {
        result.asOf = try time(at: value, "as_of")
      } else if json.text(key, is: "event_time") {
        eventTime = try time(at: value, "event_time")
        do throws(SoapError) { try soap.requirePast(eventTime) } catch { throw .bad("'event_time': \(error)") }
      } else if json.text(key, is: "for") {
        result.readers = try readers(at: value)
      } else {
        throw .bad("'\(json.string(of: key))' is not known; use users or instances, for, shape, as_of, event_time")
      }
      next = json[value].end
    }
    guard (users == 0) != (instances == 0) else { throw .bad("the body needs one of 'users' and 'instances'") }
    let list = max(users, instances)
    guard json[list].kind == .list else {
      throw .bad("'\(users > 0 ? "users" : "instances")' is \(json[list].kind.words); expected a list")
    }
    guard json[list].count <= SoapService.userLimit else {
      throw .bad("there are \(json[list].count) users; the limit is \(SoapService.userLimit)")
    }
    var element = list + 1
    for place in 0..<json[list].count {
      if users > 0 {
        result.users.append(try user(at: element, place, userSeed))
      } else {
        let request = try instance(at: element, place, eventTime)
        result.users.append(request.user)
        result.computes.append(request)
      }
      element = json[element].end
    }
    if instances > 0, result.shape != nil || result.asOf != nil {
      throw .bad("'shape' and 'as_of' go with 'users': instances are answered by what the model gives now")
    }
    return result
  }

  private func user(at element: Int, _ place: Int, _ seed: UInt64) throws(RequestError) -> UInt64 {
    let token = json[element]
    switch token.kind {
    case .unsigned, .negative: return token.bits
    case .text: return json.hash(of: token, seed: seed)
    default: throw .bad("users[\(place)] is \(token.kind.words); expected an integer or a text")
    }
  }

  private func instance(
    at element: Int, _ place: Int, _ eventTime: Milliseconds
  ) throws(RequestError) -> ComputeRequest {
    guard json[element].kind == .object else {
      throw .bad("instances[\(place)] is \(json[element].kind.words); expected an object of features")
    }
    let block: FeatureBlock
    do throws(EventFault.Reason) { block = try features.block(json, at: element) } catch {
      throw .bad("instances[\(place)]: \(error)")
    }
    guard let user = soap.user(of: block) else {
      throw .bad("instances[\(place)] has no '\(soap.options.userFeature)', which names the user")
    }
    return ComputeRequest(user: user, features: block, eventTime: eventTime)
  }

  private func shape(at value: Int) throws(RequestError) -> EmbeddingShape {
    guard json[value].kind == .list, json[value].count == 2, let count = json[value + 1].integer,
      let dimension = json[value + 2].integer, (1...Int64(EmbeddingShape.widthLimit)).contains(count),
      (1...Int64(EmbeddingShape.widthLimit)).contains(dimension),
      count * dimension <= Int64(EmbeddingShape.widthLimit)
    else { throw .bad("'shape' is not two numbers such as [2, 96]") }
    return EmbeddingShape(count: Int(count), dimension: Int(dimension))
  }

  private func readers(at value: Int) throws(RequestError) -> [String] {
    if json[value].kind == .text { return [json.string(of: json[value])] }
    let isList = json[value].kind == .list
    guard isList, json[value].count <= EmbedRequest.modelLimit else {
      throw .bad(
        "'for' is \(isList ? "a list of \(json[value].count)" : json[value].kind.words); expected a model's name or a "
          + "list of at most \(EmbedRequest.modelLimit)")
    }
    var names: [String] = []
    var element = value + 1
    for place in 0..<json[value].count {
      guard json[element].kind == .text else {
        throw .bad("for[\(place)] is \(json[element].kind.words); expected a model's name")
      }
      names.append(json.string(of: json[element]))
      element = json[element].end
    }
    return names
  }

  private func time(at value: Int, _ name: String) throws(RequestError) -> Milliseconds {
    guard let time = json[value].integer else {
      throw .bad("'\(name)' is \(json[value].kind.words); expected milliseconds")
    }
    return time
  }
}
