// The whole cluster as its files tell it, and what is wrong with it in words.

public import Base
internal import Foundation
internal import Glibc

/// What every process of a cluster last said, and what is wrong.
public struct ClusterStatus: Codable, Sendable, Equatable {
  /// One process.
  public struct Entry: Codable, Sendable, Equatable {
    /// What it last said; nil when it never said anything.
    public var status: RoleStatus?
    /// Which process.
    public var instance: RoleInstance
    /// Whether a process of its number runs.
    public var isAlive: Bool
    /// How long ago it said it, seconds.
    public var ageSeconds: Double
    /// How often the supervisor started it again.
    public var restarts: Int
  }

  /// A status older than this is stale, seconds: roles write twice a second.
  public static let staleSeconds = 5.0

  /// The cluster's name.
  public var name: String
  /// When this was read, UTC milliseconds.
  public var time: Milliseconds
  /// Every process, in the order of their start.
  public var entries: [Entry]
  /// What is wrong, in words, the gravest first; empty when all is well.
  public var problems: [String]

  /// Reads the status files of a state directory.
  /// - Throws: `StateError` when the directory is not there or not a cluster's.
  public static func read(_ paths: StatePaths) throws(StateError) -> ClusterStatus {
    guard Files.exists(paths.configuration) else {
      throw StateError("\(paths.root) is not the state of a cluster; name one with --state, or start one: guira up")
    }
    do throws(ConfigurationError) {
      return read(paths, try ClusterConfiguration(file: paths.configuration))
    } catch { throw StateError("\(error)") }
  }

  /// Reads the status files of a cluster whose configuration is known.
  public static func read(_ paths: StatePaths, _ configuration: ClusterConfiguration) -> ClusterStatus {
    let now = Clocks.wall()
    let supervisor = RoleInstance(.supervisor)
    let instances = configuration.instances + [RoleInstance(.player), supervisor]
    let statuses = instances.map { status(at: paths.status($0)) }
    let restarts = statuses.last??.counters ?? [:]
    var entries: [Entry] = []
    for (instance, status) in zip(instances, statuses) {
      if status == nil, instance.role == .player || instance.role == .supervisor { continue }
      entries.append(
        Entry(
          status: status, instance: instance, isAlive: status.map { isAlive($0.pid) } ?? false,
          ageSeconds: status.map { Double(now - $0.time) / 1000 } ?? 0,
          restarts: Int(restarts[StatusKey.restarts(instance)] ?? 0)))
    }
    return ClusterStatus(
      name: configuration.cluster.name, time: now, entries: entries, problems: problems(entries))
  }

  /// The status of one process.
  public subscript(instance: RoleInstance) -> RoleStatus? {
    entries.first { $0.instance == instance }?.status
  }

  /// The statuses of all processes of a role.
  public func all(_ role: Role) -> [RoleStatus] {
    entries.filter { $0.instance.role == role }.compactMap(\.status)
  }

  /// What is wrong with these processes, the gravest first.
  static func problems(_ entries: [Entry]) -> [String] {
    let parts = entries.filter { $0.instance.role != .supervisor && $0.instance.role != .player }
    if !parts.contains(where: { $0.isAlive }) { return ["nothing runs; start the cluster with guira up"] }
    var dead: [String] = []
    var failed: [String] = []
    var waiting: [String] = []
    for entry in entries {
      guard let status = entry.status else {
        waiting.append("\(entry.instance) has not started yet")
        continue
      }
      let message = status.message.isEmpty ? "" : ": \(status.message)"
      if !entry.isAlive {
        // The player and the supervisor end with the replay; the others are meant to run on.
        if entry.instance.role != .player { dead.append("\(entry.instance) is dead (process \(status.pid))\(message)") }
      } else if status.state == .failed {
        failed.append("\(entry.instance) failed\(message)")
      } else if entry.ageSeconds > staleSeconds {
        failed.append("\(entry.instance) has said nothing for \(Int(entry.ageSeconds)) s (process \(status.pid))")
      } else if status.state == .waiting {
        waiting.append("\(entry.instance) waits\(message)")
      } else if status.state == .starting {
        waiting.append("\(entry.instance) is starting\(message)")
      }
      if entry.restarts > 0 {
        waiting.append("\(entry.instance) was restarted \(entry.restarts) time\(entry.restarts == 1 ? "" : "s")")
      }
    }
    return dead + failed + waiting
  }

  private static func status(at path: String) -> RoleStatus? {
    guard let bytes = try? Files.read(path) else { return nil }
    let decoder = JSONDecoder()
    decoder.nonConformingFloatDecodingStrategy = .statusWords
    return try? decoder.decode(RoleStatus.self, from: Data(bytes))
  }

  /// Whether a process runs; one that has ended and that nobody has reaped yet does not.
  private static func isAlive(_ pid: Int32) -> Bool {
    guard pid > 0, kill(pid, 0) == 0 || errno == EPERM else { return false }
    guard let bytes = try? Files.read("/proc/\(pid)/stat") else { return true }
    // "pid (name) state …", and a name may hold anything.
    let state = String(decoding: bytes, as: UTF8.self).split(separator: ")").last?.first { $0 != " " }
    return state != "Z" && state != "X"
  }
}

extension ClusterStatus {
  /// The status as JSON, keys in alphabetical order; numbers that are not finite are words.
  public func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = .statusWords
    return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
  }
}
