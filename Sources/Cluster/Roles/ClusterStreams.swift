// The streams of a cluster, each on what the configuration says. The one place that knows which back-ends there are.

internal import Base
internal import Foundation
internal import Joining
internal import KafkaStreams
internal import Redis
internal import RedisStreams
internal import Streams

/// Opens the streams of one cluster; any thread may use it.
struct ClusterStreams: Sendable {
  private let carriers: [StreamLocation.Stream: any StreamCarrier]
  private let late: JournalCarrier
  private let keptExamples: UInt64
  /// How many partitions each stream has.
  let partitions: [StreamLocation.Stream: Int]

  init(_ configuration: ClusterConfiguration, root: String) {
    let isDurable = configuration.cluster.durability == .epoch
    let settings: [StreamLocation.Stream: StreamSettings] = [
      .impressions: configuration.streams.impressions, .actions: configuration.streams.actions,
      .examples: configuration.streams.examples,
    ]
    carriers = Dictionary(
      uniqueKeysWithValues: settings.map { stream, settings in
        let properties = configuration.streams.kafkaProperties
        return (
          stream,
          Self.carrier(stream.rawValue, settings.carrier, properties, root: root, durable: isDurable)
        )
      })
    partitions = settings.mapValues(\.partitions)
    late = JournalCarrier(root: root, stream: "late", durable: isDurable)
    keptExamples = UInt64(configuration.joiner.keepExamples)
  }

  private static func carrier(
    _ stream: String, _ place: StreamPlace, _ properties: String?, root: String, durable: Bool
  ) -> any StreamCarrier {
    switch place {
    case .journal: return JournalCarrier(root: root, stream: stream, durable: durable)
    case .redis(let host, let port, let prefix):
      let environment = ProcessInfo.processInfo.environment
      let address = RedisAddress(
        host: host, port: port, user: environment["GUIRA_REDIS_USER"], password: environment["GUIRA_REDIS_PASSWORD"])
      return RedisCarrier(address, prefix: prefix, stream: stream, durable: durable)
    case .kafka(let brokers, let topic):
      return KafkaCarrier(brokers: brokers, topic: topic, propertiesFile: properties, root: root, stream: stream)
    }
  }

  subscript(stream: StreamLocation.Stream) -> any StreamCarrier {
    guard let carrier = carriers[stream] else { preconditionFailure("no carrier for \(stream)") }
    return carrier
  }

  /// The streams as a joiner sees them, and those who follow it.
  func joiner(consumer: String = "joiner") -> CarriedJoinerStreams {
    CarriedJoinerStreams(
      impressions: self[.impressions], actions: self[.actions], examples: self[.examples], late: late,
      consumer: consumer, keepBytes: keptExamples)
  }

  /// The writing ends of a stream, each waiting while its server is away.
  func sinks(
    _ stream: StreamLocation.Stream, shouldStop: @escaping @Sendable () -> Bool,
    report: @escaping @Sendable (String?) -> Void = { _ in }
  ) throws(StreamError) -> [any RecordSink] {
    var sinks: [any RecordSink] = []
    for partition in 0..<(partitions[stream] ?? 0) {
      sinks.append(
        try PatientSink.opened(shouldStop: shouldStop, report: report) { () throws(StreamError) in
          try self[stream].sink(partition: partition)
        })
    }
    return sinks
  }
}
