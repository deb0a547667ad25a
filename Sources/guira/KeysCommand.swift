// `guira keys`: makes the keys by which processes know each other, and shows the public ones.

import ArgumentParser
import Base
import Cluster

struct Keys: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes and shows the keys by which a cluster's processes know each other.",
    subcommands: [KeysCreate.self, KeysShow.self])
}

struct KeysOptions: ParsableArguments {
  @Option(help: "The configuration file; by default the one in the state directory, or ./cluster.yaml.")
  var config: String?
  @OptionGroup var state: StateOption
  @Option(name: .customLong("set"), help: "A value to put in, key.path=value; may be repeated.")
  var overrides: [String] = []

  func keys() throws -> ClusterKeys {
    let paths = state.paths
    let file = config ?? (Files.exists(paths.configuration) ? paths.configuration : "./cluster.yaml")
    let cluster = try ClusterConfiguration(file: file, overrides: overrides)
    try StateDirectory.check(paths, cluster)
    return ClusterKeys(cluster, paths)
  }
}

struct KeysCreate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Makes a key for every instance of the configuration that has none.",
    discussion: """
      Each instance gets a file <name>.secret that its owner alone may read; all public keys go to the file "allowed".
      A key that is there is never replaced unless --replace names it. Give a process on another machine its own secret
      and "allowed", nothing else; then set security.mode to curve.

      Examples:
        guira keys create --config cluster.yaml
        guira keys create --replace trainer-0      then restart trainer 0
      """)

  @OptionGroup var options: KeysOptions
  @Option(help: "An instance that gets a new key although it has one, such as trainer-0; may be repeated.")
  var replace: [String] = []

  func run() throws {
    try reporting {
      let keys = try options.keys()
      let outcome = try keys.create(replacing: replace)
      var text = "keys in \(keys.directory): \(outcome.made.count) made, \(outcome.kept.count) kept\n"
      for name in outcome.made { text += "  made \(name)\n" }
      for name in outcome.revoked { text += "  \(name) was revoked and stays so; --replace \(name) makes a new key\n" }
      if !keys.areUsed { text += "security.mode is none: set it to curve to use them\n" }
      write(text)
    }
  }
}

struct KeysShow: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Shows who has a key, the public ones, and what is missing.",
    discussion: """
      Secret keys are never shown.

      Example:
        guira keys show --state /var/lib/guira
      """)

  @OptionGroup var options: KeysOptions

  func run() throws {
    try reporting {
      let keys = try options.keys()
      guard Files.exists(keys.allowListFile) else {
        throw Failure("there are no keys in \(keys.directory); make them: guira keys create --config FILE --state DIR")
      }
      let shown = try keys.shown()
      let width = shown.map(\.name.count).max() ?? 0
      var text = "keys in \(keys.directory)\(keys.areUsed ? "" : ", not used: security.mode is none")\n"
      for line in shown {
        let name = line.name + String(repeating: " ", count: width - line.name.count)
        let role = line.role + String(repeating: " ", count: max(0, 8 - line.role.count))
        let key = line.key ?? String(repeating: "-", count: 40)
        text += "  \(name)  \(role)  \(key)\(line.remark.isEmpty ? "" : "  \(line.remark)")\n"
      }
      text += """

        To add what is missing:  guira keys create
        To revoke a key:         delete its line in \(keys.allowListFile); running processes notice within seconds
        To replace a key:        guira keys create --replace NAME, then restart it (and, for a server, its clients)

        """
      write(text)
    }
  }
}
