// One JSON text as a flat array of tokens: the Swift side of the CSimdJSON fence, and its only importer. Values are found
// by token number; every access is bounds-checked. Belongs to one thread at a time.

internal import Base
internal import CSimdJSON
internal import Glibc

/// What a JSON value is.
package enum JSONKind: UInt8 {
  case null = 0
  case yes, no, unsigned, negative, double, text, list, object

  /// The kind in words, for errors.
  package var words: String {
    switch self {
    case .null: "null"
    case .yes, .no: "a boolean"
    case .unsigned, .negative: "an integer"
    case .double: "a fraction"
    case .text: "a text"
    case .list: "a list"
    case .object: "an object"
    }
  }
}

/// One value, or one key of an object; a container is followed by what it holds.
package struct JSONToken {
  package let kind: JSONKind
  /// Integers in two's complement, a double's bits, or a text's offset.
  package let bits: UInt64
  /// Bytes of a text, members of an object, elements of a list.
  package let count: Int
  /// The token after this value and all it holds.
  package let end: Int

  /// The value of any number.
  package var number: Double? {
    switch kind {
    case .unsigned: Double(bits)
    case .negative: Double(Int64(bitPattern: bits))
    case .double: Double(bitPattern: bits)
    default: nil
    }
  }

  /// The value of an integer that Int64 holds.
  package var integer: Int64? {
    switch kind {
    case .unsigned: Int64(exactly: bits)
    case .negative: Int64(bitPattern: bits)
    default: nil
    }
  }
}

/// Why bytes are no JSON text.
package enum JSONFault: Error, Equatable {
  case notUTF8
  case malformed(String)
}

/// The newest parsed text.
@safe package struct JSONText: ~Copyable {
  private let parser: OpaquePointer
  private var tokens: UnsafePointer<guira_json_token>?
  private var tokenCount = 0
  private var texts: UnsafePointer<UInt8>?
  private var textBytes = 0

  /// A parser for texts of up to `limit` bytes.
  package init(limit: Int) {
    guard let parser = unsafe guira_json_new(limit) else {
      preconditionFailure("out of memory: a JSON parser of \(limit) bytes")
    }
    unsafe self.parser = parser
  }

  deinit { unsafe guira_json_free(parser) }

  /// Replaces the tokens by those of `bytes`.
  package mutating func parse(_ bytes: RawSpan) throws(JSONFault) {
    tokenCount = 0
    let code = unsafe bytes.withUnsafeBytes { unsafe guira_json_parse(parser, $0.baseAddress, $0.count) }
    guard code == GUIRA_JSON_OK else {
      throw code == GUIRA_JSON_NOT_UTF8 ? .notUTF8 : .malformed(unsafe String(cString: guira_json_problem(parser)))
    }
    unsafe tokens = guira_json_tokens(parser, &tokenCount)
    unsafe texts = guira_json_texts(parser, &textBytes)
  }

  /// Token `index`.
  package subscript(_ index: Int) -> JSONToken {
    precondition(index >= 0 && index < tokenCount, "token \(index) of \(tokenCount)")
    let raw = unsafe tokens![index]
    guard let kind = JSONKind(rawValue: raw.kind) else { preconditionFailure("token of kind \(raw.kind)") }
    return JSONToken(kind: kind, bits: raw.bits, count: Int(raw.length), end: Int(raw.end))
  }

  /// The bytes of a text token.
  @_lifetime(borrow self)
  package func bytes(of token: JSONToken) -> RawSpan {
    let offset = Int(token.bits)
    precondition(token.kind == .text && offset + token.count <= textBytes, "text at \(offset) of \(textBytes)")
    let span = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(texts! + offset), byteCount: token.count)
    return unsafe _overrideLifetime(span, borrowing: self)
  }

  /// XXH3-64 of a text token.
  package func hash(of token: JSONToken, seed: UInt64 = 0) -> UInt64 { Hashing.xxh3(bytes(of: token), seed: seed) }

  /// The text of a text token.
  package func string(of token: JSONToken) -> String {
    unsafe bytes(of: token).withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
  }

  /// Whether a text token is `literal`.
  package func text(_ token: JSONToken, is literal: StaticString) -> Bool {
    guard token.count > 0, token.count == literal.utf8CodeUnitCount else { return false }
    return unsafe bytes(of: token).withUnsafeBytes { unsafe memcmp($0.baseAddress!, literal.utf8Start, $0.count) == 0 }
  }

  /// Whether a text token is `name`.
  package func text(_ token: JSONToken, is name: [UInt8]) -> Bool {
    guard token.count == name.count else { return false }
    return unsafe bytes(of: token).withUnsafeBytes { text in
      unsafe name.withUnsafeBytes { name in
        unsafe text.count == 0 || memcmp(text.baseAddress!, name.baseAddress!, text.count) == 0
      }
    }
  }
}
