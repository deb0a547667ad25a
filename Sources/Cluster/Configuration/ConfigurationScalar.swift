// How single values are written in the configuration: numbers, durations with a unit, sizes with a unit, words. One value
// of `Scalar` reads and writes one such notation.

internal import Base

/// Why a written value is refused.
struct Refusal: Error {
  var fault: String
  var advice: String
}

/// A notation: text to value and back.
struct Scalar<Value> {
  let read: (String) throws(Refusal) -> Value
  let write: (Value) -> String
}

extension Scalar {
  /// The same notation, and a word that stands for the absence of a value.
  func orWord(_ word: String) -> Scalar<Value?> {
    Scalar<Value?>(
      read: { (text: String) throws(Refusal) -> Value? in
        if text == word { return nil }
        do throws(Refusal) { return try read(text) } catch {
          throw Refusal(fault: error.fault, advice: "\(error.advice), or '\(word)'")
        }
      }, write: { $0.map(write) ?? word })
  }
}

extension Scalar where Value: FixedWidthInteger {
  /// A whole number; `1_000_000` may be written so.
  static func integer(_ range: ClosedRange<Value>) -> Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Value in
        guard let value = Value(text.filter { $0 != "_" }) else {
          throw Refusal(fault: "is '\(text)'", advice: "use a whole number, \(range.lowerBound) to \(range.upperBound)")
        }
        return try checked(value, in: range, text: text) { "\($0)" }
      }, write: { "\($0)" })
  }
}

extension Scalar where Value == Double {
  /// A number between two bounds, both allowed.
  static func number(_ range: ClosedRange<Double>) -> Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Double in
        guard let value = Double(text), value.isFinite else {
          throw Refusal(
            fault: "is '\(text)'", advice: "use a number, \(plain(range.lowerBound)) to \(plain(range.upperBound))")
        }
        return try checked(value, in: range, text: text, write: plain)
      }, write: plain)
  }

  /// A number above 0 and at most `limit`.
  static func positive(upTo limit: Double) -> Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Double in
        guard let value = Double(text), value.isFinite, value > 0, value <= limit else {
          throw Refusal(fault: "is '\(text)'", advice: "use a number above 0, at most \(plain(limit))")
        }
        return value
      }, write: plain)
  }

  private static func plain(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? "\(Int64(value))" : "\(value)"
  }
}

extension Scalar where Value == Duration {
  private static var units: [(name: String, milliseconds: Int64)] {
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)]
  }

  /// A duration: a whole number and its unit, `50ms`, `1s`, `15m`, `24h`, `7d`.
  static func duration(_ range: ClosedRange<Duration>) -> Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Duration in
        let digits = text.prefix { $0.isNumber && $0.isASCII }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }
        guard let count = Int64(digits), let scale = units.first(where: { $0.name == unit })?.milliseconds else {
          let missing = !digits.isEmpty && unit.isEmpty
          throw Refusal(
            fault: "is '\(text)'\(missing ? ", which has no unit" : "")",
            advice: "use a duration such as 50ms, 1s, 15m, 24h or 7d")
        }
        let (milliseconds, overflow) = count.multipliedReportingOverflow(by: scale)
        let value: Duration = overflow || milliseconds > 1 << 52 ? .milliseconds(1 << 52) : .milliseconds(milliseconds)
        return try checked(value, in: range, text: text, write: written)
      }, write: written)
  }

  /// A time of day in UTC, `04:00`, as the duration since midnight.
  static var timeOfDay: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Duration in
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ (1...2).contains($0.count) }), let hours = Int(parts[0]),
          let minutes = Int(parts[1]), (0..<24).contains(hours), (0..<60).contains(minutes)
        else { throw Refusal(fault: "is '\(text)'", advice: "use a time of day in UTC such as 04:00") }
        return .seconds(hours * 3600 + minutes * 60)
      },
      write: { value in
        let minutes = value.milliseconds / 60_000
        return "\(minutes / 600)\(minutes / 60 % 10):\(minutes % 60 / 10)\(minutes % 10)"
      })
  }

  private static func written(_ value: Duration) -> String {
    let milliseconds = value.milliseconds
    if milliseconds == 0 { return "0s" }
    let unit = units.first { milliseconds % $0.milliseconds == 0 } ?? ("ms", 1)
    return "\(milliseconds / unit.milliseconds)\(unit.name)"
  }
}

extension Scalar where Value == Int {
  private static var units: [(name: String, bytes: Int)] {
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)]
  }

  /// A number of bytes: a whole number and its unit, `64KiB`, `256MiB`, `4GiB`.
  static func size(_ range: ClosedRange<Int>) -> Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Int in
        let digits = text.prefix { $0.isNumber && $0.isASCII }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }
        guard let count = Int(digits), let scale = units.first(where: { $0.name == unit })?.bytes else {
          throw Refusal(fault: "is '\(text)'", advice: "use a size such as 64KiB, 256MiB or 4GiB")
        }
        let (bytes, overflow) = count.multipliedReportingOverflow(by: scale)
        return try checked(overflow ? .max : bytes, in: range, text: text, write: written)
      }, write: written)
  }

  private static func written(_ value: Int) -> String {
    let unit = units.first { value != 0 && value % $0.bytes == 0 } ?? ("B", 1)
    return "\(value / unit.bytes)\(unit.name)"
  }
}

extension Scalar where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
  /// One of the words of an enumeration.
  static var word: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Value in
        if let value = Value(rawValue: text) { return value }
        let words = Value.allCases.map(\.rawValue)
        let guess = nearest(to: text, among: words).map { " (did you mean '\($0)'?)" } ?? ""
        throw Refusal(fault: "is '\(text)'", advice: "use one of: \(words.joined(separator: ", "))\(guess)")
      }, write: \.rawValue)
  }
}

extension Scalar where Value == Bool {
  /// `true` or `false`.
  static var flag: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> Bool in
        guard let value = Bool(text) else { throw Refusal(fault: "is '\(text)'", advice: "use true or false") }
        return value
      }, write: { "\($0)" })
  }
}

extension Scalar where Value == String {
  /// A name: letters, digits, `_` and `-`, beginning with a letter or `_`, at most 64 characters.
  ///
  /// Names become parts of key paths, file names and metric labels.
  static var name: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> String in
        let fits = text.unicodeScalars.allSatisfy { isWordCharacter($0) || $0 == "-" }
        let first = text.unicodeScalars.first
        guard fits, let first, isWordCharacter(first), !("0"..."9").contains(first), text.utf8.count <= 64 else {
          throw Refusal(
            fault: "is '\(text.prefix(80))'",
            advice: "use a name of letters, digits, '_' and '-' that begins with a letter, at most 64 characters")
        }
        return text
      }, write: { $0 })
  }

  /// A host name or address.
  static var host: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> String in
        let fits = text.unicodeScalars.allSatisfy { isWordCharacter($0) || $0 == "-" || $0 == "." || $0 == ":" }
        guard fits, !text.isEmpty, text.utf8.count <= 253 else {
          throw Refusal(fault: "is '\(text.prefix(80))'", advice: "use a host name or address such as 127.0.0.1")
        }
        return text
      }, write: { $0 })
  }

  /// A host name in which `{role}` and `{index}` may stand for a role's.
  static var hostPattern: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> String in
        let sample = text.replacing("{role}", with: "shard").replacing("{index}", with: "0")
        guard (try? Scalar<String>.host.read(sample)) != nil else {
          throw Refusal(
            fault: "is '\(text.prefix(80))'", advice: "use a name such as guira-{role}-{index}.guira-{role}, or none")
        }
        return text
      }, write: { $0 })
  }

  /// The path of a file or directory.
  static var path: Scalar {
    Scalar(
      read: { (text: String) throws(Refusal) -> String in
        guard !text.isEmpty, text.utf8.count <= 1024, text.unicodeScalars.allSatisfy({ $0.value >= 32 }) else {
          throw Refusal(fault: "is '\(text.prefix(80))'", advice: "use a path of at most 1024 bytes")
        }
        return text
      }, write: { $0 })
  }

  private static func isWordCharacter(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "a"..."z", "A"..."Z", "0"..."9", "_": true
    default: false
    }
  }
}

private func checked<Value: Comparable>(
  _ value: Value, in range: ClosedRange<Value>, text: String, write: (Value) -> String
) throws(Refusal) -> Value {
  if value < range.lowerBound {
    throw Refusal(fault: "is \(text)", advice: "use at least \(write(range.lowerBound))")
  }
  if value > range.upperBound {
    throw Refusal(fault: "is \(text)", advice: "use at most \(write(range.upperBound))")
  }
  return value
}
