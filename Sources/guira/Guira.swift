// The command. Each subcommand is a file; work is done by the modules below, here are words and exit codes only.

import ArgumentParser
import Cluster
import Glibc

@main struct Guira: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "guira",
    abstract: "Trains a recommender's model online, and serves it, from one configuration file.",
    discussion: """
      Begin with synthetic traffic:
        guira events generate --output traffic --impressions 100000
        guira up deploy/cluster.yaml --events traffic --speed max --report report.json

      Or with your own events, as CSV or JSON Lines:
        guira init clicks.csv

      Exit codes: 0 success, 1 failure, 2 wrong configuration, 64 wrong arguments, 130 interrupted.
      """,
    subcommands: [
      Up.self, Train.self, Init.self, Status.self, Events.self, Checkpoint.self, Export.self, WarmStartCommand.self,
      Explain.self, Forget.self, Keys.self, Config.self,
      Bench.self, Simulate.self, ExperimentCommand.self,
    ] + roleCommands)

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let failure as Failure {
      write("guira: \(failure.message)\n", to: STDERR_FILENO)
      Glibc.exit(failure.code)
    } catch {
      exit(withError: error)
    }
  }
}

/// What ends a command: words for stderr and the exit code.
struct Failure: Error {
  var message: String
  var code: Int32 = 1

  init(_ message: String, code: Int32 = 1) {
    self.message = message
    self.code = code
  }
}

/// Runs `body`; what it throws becomes words and an exit code.
func reporting<Result>(_ body: () throws -> Result) throws -> Result {
  do { return try body() } catch let error as ConfigurationError {
    throw Failure("the configuration is wrong\n\(error)", code: ConfigurationError.exitCode)
  } catch let error as Failure {
    throw error
  } catch let error as ExitCode {
    throw error
  } catch { throw Failure("\(error)") }
}

/// Writes text to a descriptor; nobody reading it any more is no failure.
func write(_ text: String, to descriptor: Int32 = STDOUT_FILENO) {
  var bytes = Array(text.utf8)[...]
  while !bytes.isEmpty {
    let count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
    if count < 0 && errno == EINTR { continue }
    if count <= 0 { return }
    bytes = bytes.dropFirst(count)
  }
}

/// Where the cluster keeps its state.
struct StateOption: ParsableArguments {
  @Option(help: "The state directory.") var state = "./guira-run"

  var paths: StatePaths { StatePaths(state) }
}
