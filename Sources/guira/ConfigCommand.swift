// `guira config check`: everything that is wrong with a configuration, before anything runs.

import ArgumentParser
import Cluster

struct Config: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Looks at configuration files.", subcommands: [ConfigCheck.self])
}

struct ConfigCheck: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Reads a configuration and tells everything that is wrong with it.",
    discussion: """
      Examples:
        guira config check cluster.yaml
        guira config check cluster.yaml --set shards.count=4 --print

      Exit code 2 when something is wrong.
      """)

  @Argument(help: "The configuration file.") var file = "./cluster.yaml"
  @Option(name: .customLong("set"), help: "A value to put in, key.path=value; may be repeated.")
  var overrides: [String] = []
  @Flag(help: "Print every setting in effect, defaults included.") var print = false

  func run() throws {
    try reporting {
      let configuration = try ClusterConfiguration(file: file, overrides: overrides)
      if print { return write(configuration.text) }
      let models = configuration.models.map { "\($0.name) (\($0.kind.rawValue))" }.joined(separator: ", ")
      write(
        """
        \(file) is good: cluster '\(configuration.cluster.name)', \(configuration.features.count) features, \
        \(configuration.tasks.count) tasks, models: \(models)

        """)
    }
  }
}
