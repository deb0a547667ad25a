// The entry points the command calls.

internal import Base
public import Logging
internal import Training

/// Runs one role of a cluster in this process.
public enum Roles {
  /// Runs a role until SIGTERM or SIGINT.
  /// - Throws: what ends it; a supervisor starts it again.
  public static func run(
    _ instance: RoleInstance, configuration: ClusterConfiguration, state: StatePaths, logger: Logger,
    acceptLoss: Bool = false, keepsAllScores: Bool = false
  ) throws {
    try RoleProcess(
      instance, configuration: configuration, paths: state, logger: logger, acceptLoss: acceptLoss,
      keepsAllScores: keepsAllScores
    ).run()
  }

  /// What a process exits with after an error of `run`.
  public static func exitCode(for error: any Error) -> Int32 {
    switch error {
    case is ConfigurationError: ConfigurationError.exitCode
    case let failure as TrainerFailure where failure.needsOperator: ProcessEnding.needsOperator
    default: 1
    }
  }
}
