// The allow-list: who may speak in a cluster. A text that people read and edit: one line per instance, its name, its role
// and its public key; lines that begin with "#" are comments, and stay when a program adds a line. Deleting a line revokes.

internal import Base

/// What is wrong with a key or the allow-list, in words that say what to do.
public struct KeyError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The file, the fault and what to do; never a secret.
  public let description: String

  /// An error from its words.
  public init(_ description: String) { self.description = description }
}

/// Who may speak, as a file says it.
public struct AllowList: Equatable, Sendable {
  /// The most bytes a list may have.
  static let byteLimit = 1 << 20

  /// One line: an instance that may speak.
  public struct Entry: Hashable, Sendable {
    /// The instance: `trainer-0`.
    public var name: String
    /// What it may ask.
    public var role: PeerRole
    /// How it is known.
    public var key: PublicKey

    /// An entry from its parts.
    public init(name: String, role: PeerRole, key: PublicKey) {
      self.name = name
      self.role = role
      self.key = key
    }

    /// What libzmq notes on every message of this peer: name and key, so that a message is judged by the list as it is
    /// now, also when the name has been given another key since.
    var userID: String { "\(name) \(key)" }

    var line: String { "\(name) \(role.name) \(key)" }
  }

  /// The instances in the order of the file; no name and no key twice.
  public private(set) var entries: [Entry] = []
  private var lines: [String]

  /// A list of nobody, with a comment that says what it is.
  public init(comment: [String]) { lines = comment.map { "# \($0)" } }

  /// Reads a list.
  /// - Throws: `KeyError` with the line of the first fault.
  public init(parsing text: String) throws(KeyError) {
    // By what ends a line, because "\r\n" is one character.
    lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).map(String.init)
    if lines.last?.isEmpty == true { lines.removeLast() }
    for (number, line) in lines.enumerated() {
      let words = line.split { $0 == " " || $0 == "\t" }
      // A key may hold "#", so a comment is a line of its own.
      guard let first = words.first, !first.hasPrefix("#") else { continue }
      func fault(_ what: String) -> KeyError { KeyError("line \(number + 1): \(what)") }
      guard words.count == 3 else {
        throw fault("expected a name, a role and a public key, found \(words.count) words")
      }
      guard Self.isName(first) else { throw fault("'\(first.prefix(80))' is not a name such as trainer-0") }
      guard let role = PeerRole.allCases.first(where: { $0.name == words[1] }) else {
        let roles = PeerRole.allCases.map(\.name).joined(separator: ", ")
        throw fault("'\(words[1].prefix(80))' is not a role; use one of: \(roles)")
      }
      guard let key = PublicKey(String(words[2])) else {
        throw fault("the key of \(first) is not a public key: \(PublicKey.length) characters of Z85")
      }
      let entry = Entry(name: String(first), role: role, key: key)
      guard self[entry.name] == nil else { throw fault("\(first) is named twice") }
      guard !entries.contains(where: { $0.key == key }) else { throw fault("the key of \(first) is there twice") }
      entries.append(entry)
    }
  }

  /// Reads the file of a list.
  /// - Throws: `KeyError` when it is not there, is open to changes by others, or has a fault.
  public init(file: String) throws(KeyError) {
    let content: [UInt8]
    let facts: FileFacts
    do throws(FileError) { (content, facts) = try Files.readWithFacts(file, limit: Self.byteLimit) } catch {
      throw KeyError("the allow-list is missing: \(error)")
    }
    guard facts.isOurs, !facts.isWritableByOthers else {
      throw KeyError(
        "the allow-list \(file) can be changed by others than its owner; make it yours alone: chmod 644 \(file)")
    }
    guard let text = String(validating: content, as: UTF8.self) else {
      throw KeyError("the allow-list \(file) is not UTF-8 text")
    }
    do throws(KeyError) { try self.init(parsing: text) } catch {
      throw KeyError("the allow-list \(file), \(error)")
    }
  }

  /// The entry of an instance.
  public subscript(name: String) -> Entry? { entries.first { $0.name == name } }

  /// Adds an entry, or gives its instance another key.
  public mutating func set(_ entry: Entry) {
    if let index = entries.firstIndex(where: { $0.name == entry.name }) {
      let old = lines.firstIndex { Self.name(in: $0) == entry.name[...] }
      entries[index] = entry
      if let old { lines[old] = entry.line }
    } else {
      entries.append(entry)
      lines.append(entry.line)
    }
  }

  /// The file's text.
  public var text: String { lines.map { "\($0)\n" }.joined() }

  private static func name(in line: String) -> Substring? { line.split { $0 == " " || $0 == "\t" }.first }

  private static func isName(_ text: Substring) -> Bool {
    text.utf8.count <= 64
      && text.unicodeScalars.allSatisfy { scalar in
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9", "-", "_": true
        default: false
        }
      }
  }
}
