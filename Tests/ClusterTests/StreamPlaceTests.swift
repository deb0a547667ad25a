import Base
import Testing

@testable import Cluster

@Suite("Where streams live") struct StreamPlaceTests {
  private func problems(_ overrides: [String]) -> [String] {
    do throws(ConfigurationError) {
      _ = try ClusterConfiguration(text: Self.text, file: "cluster.yaml", overrides: overrides)
      return []
    } catch { return error.problems.map(\.description) }
  }

  private static let text = """
    features: [{name: user}]
    tasks: [{name: click}]
    models: [{name: main}]
    """

  @Test func `a carrier is read and written as it is said`() throws {
    let places: [(String, StreamPlace)] = [
      ("journal", .journal), ("redis://127.0.0.1:6379/guira", .redis(host: "127.0.0.1", port: 6379, prefix: "guira")),
      ("kafka://a:9092,b.example:9093/actions", .kafka(brokers: "a:9092,b.example:9093", topic: "actions")),
    ]
    for (text, place) in places {
      let configuration = try ClusterConfiguration(
        text: Self.text, file: "cluster.yaml", overrides: ["streams.actions.carrier=\(text)"])
      #expect(configuration.streams.actions.carrier == place)
      #expect(place.text == text)
      #expect(configuration.storedLayout["streams.actions.carrier"] == text)
    }
  }

  @Test(arguments: [
    "redis", "redis://localhost/guira", "redis://localhost:0/guira", "redis://localhost:6379", "redis://:6379/guira",
    "redis://localhost:6379/", "redis://localhost:6379/a b", "kafka://a:9092,/t", "kafka://a/t", "amqp://a:1/t", "",
  ])
  func `what names no server is refused`(text: String) {
    #expect(problems(["streams.examples.carrier=\(text)"]).count == 1)
  }

  @Test func `a socket for events needs a port of its own, and keys where strangers are`() {
    #expect(problems(["ingest.port=8500", "ingest.zeromqPort=8301"]).isEmpty)
    #expect(problems(["ingest.zeromqPort=8301"]).contains { $0.contains("without ingest.port") })
    #expect(problems(["ingest.port=8301", "ingest.zeromqPort=8301"]).contains { $0.contains("cannot share") })
    #expect(
      problems(["ingest.port=8500", "ingest.zeromqPort=8301", "ingest.host=0.0.0.0"]).contains {
        $0.contains("security.mode")
      })
    #expect(
      problems(["ingest.port=8500", "ingest.zeromqPort=8301", "ingest.host=0.0.0.0", "security.mode=curve"]).isEmpty)
  }

  @Test func `an ingest has a key when it serves a socket`() throws {
    for (overrides, expected) in [([], false), (["ingest.zeromqPort=8301"], true)] {
      let overrides = overrides + ["ingest.port=8500"]
      let configuration = try ClusterConfiguration(text: Self.text, file: "cluster.yaml", overrides: overrides)
      let names = ClusterKeys(configuration, StatePaths("/tmp/guira-nowhere")).names
      #expect(names.contains { $0.name == "ingest-0" && $0.role == .ingest } == expected)
    }
  }
}
