// What a process needs to prove who it is, and to know whom it speaks with. Given to a `LinkContext`, it makes every socket
// of that context speak CURVE: servers let in whom the allow-list names, clients speak only to the server they mean.

internal import Base

/// The key of one process, and the keys of the others.
public struct LinkSecurity: Sendable {
  /// The most bytes the file of a secret key may have.
  static let secretLimit = 4096

  /// Which instance this process is: `trainer-0`.
  public let name: String
  /// Where the allow-list is; servers read it again when it changes.
  public let allowListFile: String
  let secret: SecretKey
  let allowList: AllowList
  private let servers: [String: String]

  /// Reads the key and the allow-list.
  ///
  /// - Parameters:
  ///   - name: which instance this process is.
  ///   - secretFile: the file of its secret key; nobody else may be able to read it.
  ///   - allowListFile: who may speak.
  ///   - servers: which instance serves at an endpoint.
  /// - Throws: `KeyError` when a file is missing, open to others or damaged, or when the two do not fit.
  public init(
    name: String, secretFile: String, allowListFile: String, servers: [String: String]
  ) throws(KeyError) {
    self.name = name
    self.allowListFile = allowListFile
    self.servers = servers
    secret = try Self.readSecret(secretFile)
    allowList = try AllowList(file: allowListFile)
    guard let own = allowList[name] else {
      throw KeyError("\(name) is not in the allow-list \(allowListFile); was its key revoked?")
    }
    guard own.key == secret.publicKey else {
      throw KeyError(
        "\(secretFile) is not the key that \(name) has in the allow-list \(allowListFile); was one of them replaced?")
    }
  }

  /// Reads the file of a secret key.
  /// - Throws: `KeyError` when it is missing, open to others, or not a key.
  public static func readSecret(_ file: String) throws(KeyError) -> SecretKey {
    let content: [UInt8]
    let facts: FileFacts
    do throws(FileError) { (content, facts) = try Files.readWithFacts(file, limit: secretLimit) } catch {
      throw KeyError("the secret key is missing: \(error)")
    }
    guard facts.isOurs, !facts.isOpenToOthers else {
      throw KeyError(
        "the secret key \(file) has permissions \(facts.permissions) or another owner, so others may know it; make a "
          + "new one, or if nobody can have read it: chmod 600 \(file)")
    }
    // The text is never repeated in a refusal: it may be a key with a slip in it.
    let lines = String(decoding: content, as: UTF8.self).split { $0.isNewline }
    guard let line = lines.first(where: { !$0.hasPrefix("# ") }), lines.last == line,
      let key = SecretKey(String(line))
    else { throw KeyError("\(file) holds no secret key: one line of \(PublicKey.length) characters is expected") }
    return key
  }

  /// The text of a secret key's file.
  public static func secretFileText(_ key: SecretKey, of name: String) -> String {
    "# Secret key of \(name). Its owner alone may read it; never send it unencrypted.\n\(key.secretText)\n"
  }

  /// The key of whoever serves at an endpoint.
  func serverKey(of endpoint: String) throws(LinkError) -> PublicKey {
    guard let server = servers[endpoint], let entry = allowList[server] else {
      let who = servers[endpoint] ?? "its server"
      throw LinkError(noKeyCode, "connect to \(endpoint): the allow-list \(allowListFile) has no key of \(who)")
    }
    return entry.key
  }

  /// Whether only processes of this machine can reach an address.
  public static func isLoopback(host: String) -> Bool {
    if host == "localhost" || host == "::1" || host == "[::1]" { return true }
    let parts = host.split(separator: ".", omittingEmptySubsequences: false)
    // Not by its first characters alone: 127.example.com is anybody's.
    return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
  }

  /// Whether an endpoint may be served without keys: ipc and loopback.
  static func isPrivate(_ endpoint: String) -> Bool {
    guard let scheme = endpoint.range(of: "://") else { return false }
    switch endpoint[..<scheme.lowerBound] {
    case "ipc", "inproc": return true
    case "tcp":
      let address = endpoint[scheme.upperBound...]
      return isLoopback(host: String(address[..<(address.lastIndex(of: ":") ?? address.endIndex)]))
    default: return false
    }
  }
}

/// Who was refused at the servers of a process since it started.
public struct LinkRefusals: Equatable, Sendable {
  /// Clients whose key the allow-list does not have, or that came while the list could not be read.
  public var unknownKeys: UInt64 = 0
  /// Clients that showed no key: NULL, PLAIN, or gone before it could be told.
  public var nullClients: UInt64 = 0
  /// Clients whose handshake failed otherwise: another server's key, or bytes that are no handshake.
  public var failedHandshakes: UInt64 = 0
  /// Messages of peers that had been let in and were revoked since.
  public var revokedMessages: UInt64 = 0
  /// Why nobody new is let in; empty when all is well.
  public var problem = ""

  /// Nobody.
  public init() {}

  /// By the names that status shows.
  public var counters: [String: UInt64] {
    [
      "unknownKeys": unknownKeys, "nullClients": nullClients, "failedHandshakes": failedHandshakes,
      "revokedMessages": revokedMessages,
    ].filter { $0.value > 0 }
  }
}
