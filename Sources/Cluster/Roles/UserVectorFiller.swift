// What an application does with user embeddings: asks for those of the users it is about to serve, with their features, reads
// the answer into a feature of the impression, and logs that with it. The player's thread.

internal import Base
internal import Streams
internal import UserModeling
internal import Wire

/// Fills the users' embeddings into impressions.
final class UserVectorFiller {
  private let schema: EventSchema
  private let model: String
  private let userColumn: Int
  /// The feature that takes the embeddings; nil when none does and asking only keeps them fresh.
  private let vectorColumn: Int?
  /// Every number of the vector of a user who is not known.
  private let defaultValue: Float
  /// The models that read it.
  private let readers: [String]
  private var processes: [Box] = []
  /// Impressions that got their user's embeddings.
  private(set) var filled = 0
  /// Impressions whose user was not known, or not answered for in time: they carry the default.
  private(set) var missing = 0

  private final class Box {
    var asker: Asker
    init(_ asker: consuming Asker) { self.asker = asker }
  }

  /// How long an impression waits for its user's embeddings at most.
  private static let patience = Duration.milliseconds(500)

  init(_ configuration: ClusterConfiguration, _ endpoints: Endpoints, _ context: LinkContext) throws {
    schema = configuration.eventSchema
    model = configuration.soap.model ?? ""
    userColumn = schema.features.firstIndex { $0.name == configuration.soap.user } ?? 0
    vectorColumn = schema.features.firstIndex { $0.name == configuration.soap.feature }
    defaultValue = Float(configuration.soap.defaultValue)
    readers = configuration.vectorReaders.map(\.name)
    processes = try configuration.soapCount.indices.map {
      Box(try Asker(endpoint: endpoints.soap($0), context: context))
    }
  }

  /// Asks for the users of all impressions among some events, and puts the answers in.
  func fill(_ events: inout [Event]) {
    var asked = Array(repeating: [(place: Int, user: UInt64, block: FeatureBlock)](), count: processes.count)
    for (place, event) in events.enumerated() {
      guard case .impression(let impression) = event, let values = try? impression.features.values(of: schema),
        case .ids(let ids) = values[userColumn], let user = ids.first
      else { continue }
      asked[UserPart.index(of: user, count: processes.count)].append((place, user, impression.features))
    }
    for (process, questions) in asked.enumerated() where !questions.isEmpty {
      let reply = ask(process, questions.map { ($0.user, $0.block) }, at: events)
      for (row, question) in questions.enumerated() {
        let isKnown = reply.map { $0.origins[row].source != EmbeddingSource.default.rawValue } ?? false
        filled += isKnown ? 1 : 0
        missing += isKnown ? 0 : 1
        // The default is an answer too: what is logged is what a model that serves reads.
        put(vector: reply.map { $0.vector(row) }, into: &events[question.place])
      }
    }
  }

  /// Puts a user's vector into an impression; the default where there was no answer.
  func put(vector: [Float]?, into event: inout Event) {
    guard let column = vectorColumn, case .dense(let width) = schema.features[column].kind,
      case .impression(var impression) = event, var values = try? impression.features.values(of: schema)
    else { return }
    values[column] = .numbers(vector ?? [Float](repeating: defaultValue, count: width))
    impression.features = FeatureBlock(schema: schema, values: values)
    event = .impression(impression)
  }

  /// The answer of one process; nil when there is none in time, or it does not fit the feature.
  private func ask(_ process: Int, _ users: [(user: UInt64, block: FeatureBlock)], at events: [Event]) -> EmbedReply? {
    let time = events.lazy.map(\.time).max() ?? 0
    guard
      var reader = try? processes[process].asker.ask(
        timeout: Self.patience,
        {
          EmbedRequest.encoded(
            model: model, users: users.map(\.user), eventTime: time, features: users.map(\.block.bytes), for: readers,
            request: $0)
        }), let reply = try? EmbedReply(decoding: &reader), reply.origins.count == users.count
    else { return nil }
    if let column = vectorColumn, schema.features[column].kind != .dense(width: reply.count * reply.dimension) {
      return nil
    }
    return reply
  }
}

extension EmbedReply {
  /// The numbers of the user in one row of the answer.
  fileprivate func vector(_ row: Int) -> [Float] {
    let width = count * dimension
    return (row * width..<(row + 1) * width).map { values[$0] }
  }
}
