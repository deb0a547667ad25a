// The entry points the command calls.

internal import Base
public import Logging

/// Runs one role of a cluster in this process.
public enum Roles {
  /// Runs a role until SIGTERM or SIGINT.
  /// - Throws: what ends it; a supervisor starts it again.
  public static func run(
    _ instance: RoleInstance, configuration: ClusterConfiguration, state: StatePaths, logger: Logger,
    acceptLoss: Bool = false
  ) throws {
    try RoleProcess(
      instance, configuration: configuration, paths: state, logger: logger, acceptLoss: acceptLoss
    ).run()
  }
}
