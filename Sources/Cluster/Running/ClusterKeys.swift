// The keys of a cluster as files: one secret per instance, `<name>.secret`, readable by its owner alone, and the allow-list
// `allowed` with all public keys. A process on another machine needs its own secret and the allow-list, nothing else.
//
// A secret is written once and never over another one unless that is asked for. A secret without a line in the allow-list
// was revoked: only an explicit replacement brings the instance back, with a new key.

internal import Base
public import Wire

/// Where a cluster's keys are, and what they say.
public struct ClusterKeys: Sendable {
  /// Whom operators' commands and the supervisor speak as.
  public static let operatorName = "operator-0"

  /// Where the files are.
  public let directory: String
  private let configuration: ClusterConfiguration
  private let paths: StatePaths

  /// The keys of a cluster whose files need not exist.
  public init(_ configuration: ClusterConfiguration, _ paths: StatePaths) {
    let keys = configuration.security.keys
    directory = keys.hasPrefix("/") ? keys : "\(paths.root)/\(keys)"
    self.configuration = configuration
    self.paths = paths
  }

  /// What the state directory holds before the cluster first starts, when keys lie in it; nil when they do not.
  var nameInState: String? {
    guard directory.hasPrefix("\(paths.root)/") else { return nil }
    return directory.dropFirst(paths.root.count + 1).split(separator: "/").first.map(String.init)
  }

  /// Whether the cluster uses keys at all.
  public var areUsed: Bool { configuration.security.mode == .curve }
  /// The allow-list.
  public var allowListFile: String { "\(directory)/allowed" }
  /// The secret key of an instance.
  public func secretFile(of name: String) -> String { "\(directory)/\(name).secret" }

  /// Who speaks in this cluster.
  ///
  /// The joiner does not, nor an ingest over HTTP alone: they read and write streams.
  public var names: [(name: String, role: PeerRole)] {
    configuration.instances.compactMap { instance in
      role(of: instance.role).map { (instance.directoryName, $0) }
    } + [(Self.operatorName, .operator)]
  }

  private func role(of role: Role) -> PeerRole? {
    switch role {
    case .shard: .shard
    case .trainer: .trainer
    case .sync: .sync
    // It follows sync as replicas do.
    case .replica, .soap: .replica
    case .ingest: configuration.ingest.zeromqPort == nil ? nil : .ingest
    case .joiner: nil
    case .player, .supervisor: .operator
    }
  }

  // MARK: Using

  /// What a role needs to speak; nil when keys are not used, or it does not speak.
  /// - Throws: `ConfigurationError` that says which key is missing and how to make it.
  public func security(of instance: RoleInstance) throws(ConfigurationError) -> LinkSecurity? {
    switch role(of: instance.role) {
    case nil: nil
    case .operator: try security(of: Self.operatorName)
    default: try security(of: instance.directoryName)
    }
  }

  /// What an instance needs to speak; nil when keys are not used.
  /// - Throws: `ConfigurationError` that says which key is missing and how to make it.
  public func security(of name: String) throws(ConfigurationError) -> LinkSecurity? {
    guard areUsed else { return nil }
    do throws(KeyError) { return try load(name) } catch { throw ConfigurationError([problem(error)]) }
  }

  /// Checks the keys of all instances, for a machine that runs them all.
  /// - Throws: `ConfigurationError` with everything that is missing.
  public func check() throws(ConfigurationError) {
    guard areUsed else { return }
    do throws(KeyError) { _ = try AllowList(file: allowListFile) } catch { throw ConfigurationError([problem(error)]) }
    var problems: [ConfigurationProblem] = []
    for (name, _) in names {
      do throws(KeyError) { _ = try load(name) } catch { problems.append(problem(error)) }
    }
    if !problems.isEmpty { throw ConfigurationError(problems) }
  }

  private func load(_ name: String) throws(KeyError) -> LinkSecurity {
    try LinkSecurity(
      name: name, secretFile: secretFile(of: name), allowListFile: allowListFile,
      servers: Endpoints(configuration, socketDirectory: paths.socketDirectory).servers)
  }

  private func problem(_ error: KeyError) -> ConfigurationProblem {
    ConfigurationProblem(
      place: directory, path: "security.mode", fault: "is curve, but \(error)",
      advice: "`guira keys create --config FILE --state \(paths.root)` makes keys that are missing")
  }

  // MARK: Making

  /// What `create` did.
  public struct Outcome: Sendable, Equatable {
    /// Instances with a new key, in order.
    public var made: [String] = []
    /// Instances that had a key in the allow-list.
    public var kept: [String] = []
    /// Instances that were revoked and stay so: a secret is here, but no line in the allow-list.
    public var revoked: [String] = []
  }

  /// Makes keys for all instances that have none.
  ///
  /// - Parameter replacing: instances that get a new key although they have one.
  /// - Throws: `KeyError` and `FileError`; what was there before is whole then.
  public func create(replacing: [String] = []) throws -> Outcome {
    try Files.makeDirectory(parent)
    try Files.makePrivateDirectory(directory)
    let facts = try Files.facts(directory)
    guard facts.isOurs, !facts.isOpenToOthers else {
      throw KeyError("\(directory) has permissions \(facts.permissions) or another owner: chmod 700 \(directory)")
    }
    let lock = try FileLock(path: "\(directory)/lock")
    defer { _ = lock }
    var list =
      Files.exists(allowListFile) ? try AllowList(file: allowListFile) : AllowList(comment: comment)
    let wanted = names
    let others = replacing.filter { name in !wanted.contains { $0.name == name } }
    for name in others where list[name] == nil {
      throw KeyError("there is no \(name) in this cluster: it has \(wanted.map(\.name).joined(separator: ", "))")
    }
    var outcome = Outcome()
    var secrets: [(name: String, key: SecretKey)] = []
    for (name, role) in wanted + others.compactMap({ name in list[name].map { (name, $0.role) } }) {
      if !replacing.contains(name) {
        if list[name] != nil {
          outcome.kept.append(name)
          continue
        }
        if Files.exists(secretFile(of: name)) {
          outcome.revoked.append(name)
          continue
        }
      }
      let key = try SecretKey.random()
      list.set(AllowList.Entry(name: name, role: role, key: key.publicKey))
      secrets.append((name, key))
      outcome.made.append(name)
    }
    // The list first: a line whose secret was never written lets nobody in, and `show` tells of it.
    if !secrets.isEmpty { try Files.replace(allowListFile, with: Array(list.text.utf8)) }
    for (name, key) in secrets {
      try Files.writePrivate(
        secretFile(of: name), Array(LinkSecurity.secretFileText(key, of: name).utf8),
        replacing: replacing.contains(name))
    }
    return outcome
  }

  private var parent: String { String(directory[..<(directory.lastIndex(of: "/") ?? directory.endIndex)]) }

  private var comment: [String] {
    [
      "Who may speak in cluster '\(configuration.cluster.name)': name, role, public key. Not secret, but only its owner",
      "may change it. To revoke a key delete its line: running processes notice. See docs/security.md.",
    ]
  }

  // MARK: Showing

  /// One instance as `guira keys show` prints it.
  public struct Shown: Sendable, Equatable {
    /// The instance.
    public var name: String
    /// The word for its role.
    public var role: String
    /// Its public key; nil when the allow-list has none.
    public var key: String?
    /// What is wrong with it on this machine, or where its secret is, in words; empty when all is well.
    public var remark: String
  }

  /// All instances, those of the configuration first, never a secret.
  /// - Throws: `KeyError` when the allow-list cannot be read.
  public func shown() throws(KeyError) -> [Shown] {
    let list = try AllowList(file: allowListFile)
    let wanted = names
    var shown = wanted.map { name, role in
      let entry = list[name]
      return Shown(
        name: name, role: (entry?.role ?? role).name, key: entry?.key.description, remark: remark(name, role, entry))
    }
    for entry in list.entries where !wanted.contains(where: { $0.name == entry.name }) {
      shown.append(
        Shown(
          name: entry.name, role: entry.role.name, key: entry.key.description, remark: "not in the configuration"))
    }
    return shown
  }

  private func remark(_ name: String, _ role: PeerRole, _ entry: AllowList.Entry?) -> String {
    let isHere = Files.exists(secretFile(of: name))
    guard let entry else { return isHere ? "revoked: its line is gone" : "missing: it has no key" }
    guard entry.role == role else { return "its role should be \(role.name)" }
    guard isHere else { return "its secret is not on this machine" }
    do throws(KeyError) {
      let secret = try LinkSecurity.readSecret(secretFile(of: name))
      return secret.publicKey == entry.key ? "" : "its secret here is of another key"
    } catch { return error.description }
  }
}
