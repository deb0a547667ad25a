// CURVE keys as libzmq makes them: 32 bytes each, written as 40 characters of Z85. A secret key prints as nothing, however
// it is printed, so that no log or error can hold one.

internal import Base
internal import CZeroMQ

/// The half of a key pair that others know.
public struct PublicKey: Hashable, Sendable, CustomStringConvertible {
  /// How many characters a key has.
  public static let length = 40
  /// Z85, 40 characters.
  public let description: String

  /// A key from its 40 characters; nil when they are none.
  public init?(_ text: String) {
    guard decodedKey(text) != nil else { return nil }
    description = text
  }

  /// A key from its 32 bytes, as ZAP brings them; nil when there are more or fewer.
  public init?(bytes: [UInt8]) {
    guard bytes.count == 32 else { return nil }
    var text = [CChar](repeating: 0, count: Self.length + 1)
    guard unsafe zmq_z85_encode(&text, bytes, bytes.count) != nil else { return nil }
    description = keyText(text)
  }
}

/// The half of a key pair that one process alone knows.
public struct SecretKey: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// Z85, 40 characters: for the key's file and for libzmq, nowhere else.
  public let secretText: String
  /// The other half.
  public let publicKey: PublicKey

  /// A key from its 40 characters; nil when they are none.
  public init?(_ text: String) {
    var half = [CChar](repeating: 0, count: PublicKey.length + 1)
    guard decodedKey(text) != nil, unsafe zmq_curve_public(&half, text) == 0,
      let publicKey = PublicKey(keyText(half))
    else { return nil }
    secretText = text
    self.publicKey = publicKey
  }

  /// A new pair.
  /// - Throws: `LinkError` when this libzmq was built without CURVE.
  public static func random() throws(LinkError) -> SecretKey {
    var half = [CChar](repeating: 0, count: PublicKey.length + 1)
    var secret = half
    guard unsafe zmq_curve_keypair(&half, &secret) == 0, let key = SecretKey(keyText(secret)) else {
      throw LinkError(zmq_errno(), "make a key pair")
    }
    return key
  }

  /// "(secret)".
  public var description: String { "(secret)" }
  /// "(secret)".
  public var debugDescription: String { description }
  /// Nothing inside can be looked at.
  public var customMirror: Mirror { Mirror(self, children: []) }
}

private func decodedKey(_ text: String) -> [UInt8]? {
  // libzmq counts characters up to the zero that ends a C string.
  guard text.utf8.count == PublicKey.length, !text.utf8.contains(0) else { return nil }
  var bytes = [UInt8](repeating: 0, count: 32)
  return unsafe zmq_z85_decode(&bytes, text) == nil ? nil : bytes
}

private func keyText(_ characters: [CChar]) -> String {
  String(decoding: characters.prefix(PublicKey.length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
