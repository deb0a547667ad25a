// A role must not outlive the supervisor that started it.

internal import CKernels
internal import Foundation
internal import Glibc

/// Ties the life of a role to that of its supervisor.
public enum ParentWatch {
  /// The environment variable by which a supervisor tells a role its process number.
  static let variable = "GUIRA_SUPERVISOR"

  /// Whether a supervisor started this process.
  public static var isSupervised: Bool { ProcessInfo.processInfo.environment[variable] != nil }

  /// Makes the kernel kill this process when the supervisor ends.
  ///
  /// Call it first thing in a role.
  ///
  /// Without a supervisor (a role started by hand, or by systemd) nothing happens. A role killed so loses nothing: every
  /// role can be killed at any time.
  /// - Returns: false when the supervisor is gone already; exit then.
  public static func begin() -> Bool {
    guard let text = ProcessInfo.processInfo.environment[variable], let supervisor = Int32(text) else { return true }
    _ = guira_signal_on_parent_death(SIGKILL)
    return getppid() == supervisor
  }
}
