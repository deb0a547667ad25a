// The directory a cluster keeps everything in. `cluster.json` marks it with the cluster's name and the settings that
// stored data depends on; a directory of another cluster is refused before anything in it is touched.
//
//   cluster.json  the mark          cluster.yaml  the configuration in use, --set included
//   unfinished    the mark of a warm start that was not finished: nothing runs on what it left
//   lock          held by guira up  sockets/      ipc sockets, unless the path is too long for one
//   keys/         made by guira keys create before the cluster first starts
//   <role>-<i>/   what one process keeps: lock, status.json, log.jsonl and its own data

internal import Base
internal import Foundation
internal import Glibc
internal import Layers
internal import Training

/// Why a state directory cannot be used.
public struct StateError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What is wrong and what to do.
  public let description: String

  /// An error that says what is wrong and what to do.
  public init(_ description: String) { self.description = description }
}

/// Where things lie in a state directory.
public struct StatePaths: Sendable, Equatable {
  /// The directory, absolute.
  public let root: String

  /// The paths below `root`, which need not exist.
  public init(_ root: String) {
    self.root = URL(filePath: root).standardizedFileURL.path(percentEncoded: false).trimmingSuffix("/")
  }

  /// The mark that says whose directory it is.
  public var mark: String { "\(root)/cluster.json" }
  /// The configuration in use, as every role reads it.
  public var configuration: String { "\(root)/cluster.yaml" }
  /// The mark of a warm start whose shards are not all there yet.
  public var unfinished: String { "\(root)/unfinished" }
  /// The lock that the process in charge holds.
  public var lock: String { "\(root)/lock" }

  /// What one process keeps.
  public func directory(_ instance: RoleInstance) -> String { "\(root)/\(instance.directoryName)" }
  /// What one process says about itself.
  public func status(_ instance: RoleInstance) -> String { "\(directory(instance))/status.json" }
  /// The log of one process, a JSON object a line.
  public func log(_ instance: RoleInstance) -> String { "\(directory(instance))/log.jsonl" }

  /// Where ipc sockets lie: inside, or in a private short directory when the path would not fit into a socket address
  /// (107 bytes).
  public var socketDirectory: String {
    let inside = "\(root)/sockets"
    if inside.utf8.count + 1 + Self.longestSocketName <= Self.socketPathLimit { return inside }
    let temporary = unsafe getenv("TMPDIR").map { unsafe String(cString: $0).trimmingSuffix("/") } ?? ""
    let name = "/guira-\(getuid())-\(String(Hashing.xxh3(root), radix: 36))"
    let fits =
      temporary.hasPrefix("/") && (temporary + name).utf8.count + 1 + Self.longestSocketName <= Self.socketPathLimit
    return (fits ? temporary : "/tmp") + name
  }

  /// The most bytes a socket's path may have on Linux, without the closing zero.
  static let socketPathLimit = 107
  private static let longestSocketName = RoleInstance(.trainer, 1023).directoryName.utf8.count

  /// Refuses a directory that a warm start left half filled.
  /// - Throws: `StateError` that says what to do.
  func checkFinished() throws(StateError) {
    guard Files.exists(unfinished) else { return }
    throw StateError(
      "a warm start into \(root) was not finished, so some of its shards are empty; remove the directory and run "
        + "`guira warm-start` again")
  }

  /// Makes the directory of the sockets.
  /// - Throws: `StateError` when it is there and belongs to somebody else.
  public func makeSocketDirectory() throws(StateError) {
    let path = socketDirectory
    if unsafe mkdir(path, 0o700) != 0, errno != EEXIST {
      throw StateError("\(FileError(errno, "make the directory \(path)"))")
    }
    var info = stat()
    guard unsafe lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR, info.st_uid == getuid(),
      info.st_mode & 0o022 == 0
    else { throw StateError("\(path) belongs to somebody else or is open to others; remove it or set TMPDIR") }
  }
}

/// A state directory in the hands of the process that runs the cluster; unlocked when the value goes.
public struct StateDirectory: ~Copyable, Sendable {
  /// Where things lie.
  public let paths: StatePaths
  private let lock: FileLock

  /// What `cluster.json` holds.
  private struct Mark: Codable {
    var format = 1
    var name: String
    var fingerprint: String
    var layout: [String: String]
  }

  /// Makes the directory or takes it over, writes the configuration into it, and locks it.
  ///
  /// Everything is checked before anything is changed.
  /// - Parameter isFilling: whether shards are about to be filled: until `finish` nothing runs in the directory.
  /// - Throws: `StateError` when it is locked, belongs to another cluster, or was made with settings that stored data
  ///   cannot follow.
  public init(
    _ root: String, for configuration: ClusterConfiguration, isFilling: Bool = false
  ) throws(StateError) {
    let paths = StatePaths(root)
    try Self.check(paths, configuration)
    let lock = try Self.onFiles { () throws(FileError) in
      try Files.makeDirectory(paths.root)
      return try FileLock(path: paths.lock)
    }
    try Self.check(paths, configuration)
    let mark = Mark(
      name: configuration.cluster.name, fingerprint: configuration.fingerprint, layout: configuration.storedLayout)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    guard let bytes = try? encoder.encode(mark) else { throw StateError("cannot write \(paths.mark)") }
    try Self.onFiles { () throws(FileError) in
      if isFilling { try Files.replace(paths.unfinished, with: []) }
      try Files.replace(paths.configuration, with: Array(configuration.text.utf8))
      try Files.replace(paths.mark, with: Array(bytes))
    }
    try paths.makeSocketDirectory()
    // What the last run's processes said would be taken for news of this one.
    for instance in configuration.instances + [RoleInstance(.player), RoleInstance(.supervisor)] {
      try? FileManager.default.removeItem(atPath: paths.status(instance))
    }
    self.paths = paths
    self.lock = lock
  }

  /// Refuses a directory that is not this cluster's; changes nothing.
  /// - Throws: `StateError` that names the difference.
  public static func check(_ paths: StatePaths, _ configuration: ClusterConfiguration) throws(StateError) {
    guard Files.exists(paths.root) else { return }
    try paths.checkFinished()
    guard Files.exists(paths.mark) else {
      let names = try onFiles { () throws(FileError) in try Files.names(in: paths.root) }
      if names.allSatisfy({ $0 == "lock" || $0 == ClusterKeys(configuration, paths).nameInState }) { return }
      throw StateError(
        "\(paths.root) is not empty and not the state of a cluster; choose another directory with --state")
    }
    let bytes = try onFiles { () throws(FileError) in try Files.read(paths.mark) }
    guard let mark = try? JSONDecoder().decode(Mark.self, from: Data(bytes)) else {
      throw StateError(
        "\(paths.mark) cannot be read; is \(paths.root) the state of a newer guira? Choose another --state")
    }
    guard mark.format == 1 else {
      throw StateError("\(paths.root) has format \(mark.format), this guira knows 1; choose another --state")
    }
    guard mark.name == configuration.cluster.name else {
      throw StateError(
        "\(paths.root) belongs to cluster '\(mark.name)', the configuration is of '\(configuration.cluster.name)'; "
          + "choose another directory with --state")
    }
    let layout = configuration.storedLayout
    let differences = layout.keys.sorted().filter { mark.layout[$0] != nil && mark.layout[$0] != layout[$0] }.map {
      "\($0) was '\(mark.layout[$0] ?? "")' and is now '\(layout[$0] ?? "")'"
    }
    guard differences.isEmpty else {
      throw StateError(
        "the data in \(paths.root) was stored with other settings: \(differences.joined(separator: "; ")). "
          + "Set them back, or begin anew with another --state")
    }
  }

  /// All shards are filled: the cluster may run.
  public func finish() throws(StateError) {
    try Self.onFiles { () throws(FileError) in
      try Files.remove(paths.unfinished)
      try Files.syncDirectory(of: paths.unfinished)
    }
  }

  /// Removes the sockets; call it when every process has ended.
  public func removeSockets() {
    try? FileManager.default.removeItem(atPath: paths.socketDirectory)
  }

  private static func onFiles<Result: ~Copyable>(_ body: () throws(FileError) -> Result) throws(StateError) -> Result {
    do throws(FileError) { return try body() } catch {
      let advice = error.code == EWOULDBLOCK ? "; a cluster runs there: stop it, or choose another --state" : ""
      throw StateError("\(error)\(advice)")
    }
  }
}

/// The directory of one process, locked by it.
public struct RoleDirectory: ~Copyable, Sendable {
  /// The directory.
  public let path: String
  private let lock: FileLock

  /// Makes and locks the directory of a role.
  /// - Throws: `StateError` when another process of the same role and number holds it.
  public init(_ instance: RoleInstance, in paths: StatePaths) throws(StateError) {
    path = paths.directory(instance)
    do throws(FileError) {
      try Files.makeDirectory(path)
      lock = try FileLock(path: "\(path)/lock")
    } catch {
      let advice = error.code == EWOULDBLOCK ? "; another \(instance) runs" : ""
      throw StateError("\(error)\(advice)")
    }
  }
}

extension ClusterConfiguration {
  /// The settings that stored data depends on: they cannot change while the state directory lives.
  var storedLayout: [String: String] {
    var layout = [
      "cluster.seed": "\(cluster.seed)", "shards.count": "\(shards.count)",
      "streams.impressions.partitions": "\(streams.impressions.partitions)",
      "streams.actions.partitions": "\(streams.actions.partitions)",
      "streams.examples.partitions": "\(streams.examples.partitions)",
      "features": features.map { "\($0.name):\($0.kind)" }.joined(separator: " "),
      "tasks": tasks.map(\.name).joined(separator: " "),
    ]
    for model in models {
      layout["models.\(model.name)"] =
        "\(model.kind.rawValue) of dimension \(model.dimension), rows by \(model.optimizer.rule.rawValue)"
        + (model.correction == .loss ? ", negatives corrected in the loss" : "")
      // Shards hold tensors by their numbers, with the state of their optimizer.
      let tensors = (try? makeModel(modelOptions(of: model)))?.denseTensors ?? []
      layout["dense tensors of models.\(model.name)"] =
        tensors.map { "\($0.name) \($0.shape)" }.joined(separator: ", ")
        + " by \(model.denseOptimizer.rule.rawValue)"
    }
    return layout
  }
}

extension String {
  func trimmingSuffix(_ suffix: Character) -> String {
    var trimmed = self
    while trimmed.count > 1, trimmed.last == suffix { trimmed.removeLast() }
    return trimmed
  }
}
