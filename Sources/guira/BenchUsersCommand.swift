// `guira bench users`.

import ArgumentParser
import Benchmarking
import Cluster

struct BenchUsers: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "users",
    abstract: "User embeddings over ZeroMQ and HTTP, with the compute centre at work and slowed down.",
    discussion: """
      A thousand users a second act while it is measured. The slow platform takes half a second more for every batch of its
      compute centre; its readers should not feel it.
      """)
  @Option(help: "Users with embeddings.") var users = 100_000
  @Option(help: "Embeddings per user, of 96 numbers each.") var embeddings = 2
  @Option(help: "Users per request over ZeroMQ.") var batch = 50
  @Option(help: "Requests under way at a time.") var inFlight = 8
  @Option(help: "Seconds of one run.") var seconds = 2.0
  @Option(help: "Runs of each kind.") var runs = 5
  @Option(help: "The seed of everything.") var seed: UInt64 = 1
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard (1...10_000_000).contains(users), (1...8).contains(embeddings), (1...1000).contains(batch),
      (1...1000).contains(inFlight), seconds > 0, seconds <= 3600, runs > 0
    else { throw ValidationError("a number is out of range.") }
  }

  func run() throws {
    var settings = UsersBenchmarkSettings()
    settings.users = users
    settings.embeddings = embeddings
    settings.batch = batch
    settings.inFlight = inFlight
    settings.seconds = seconds
    settings.runs = runs
    settings.seed = seed
    try reporting {
      let benchmark = UsersBenchmark(settings, executable: Preflight.ownExecutable(), progress: progress)
      try show(benchmark.run(), json: json)
    }
  }
}
