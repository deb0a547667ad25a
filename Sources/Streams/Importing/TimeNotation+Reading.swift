// Times out of text. Every notation gives UTC milliseconds or nil; no bytes trap.

public import Base

extension TimeNotation {
  /// The time in `text`; nil when it is not written so, or is outside what Int64 holds.
  func milliseconds(_ text: String) -> Milliseconds? {
    switch self {
    case .seconds: Self.scaled(text, by: 1000)
    case .milliseconds: Self.scaled(text, by: 1)
    case .microseconds: Self.scaled(text, by: 0.001)
    case .iso8601: Self.iso8601(Array(text.utf8))
    case .monthDayYear: Self.monthDayYear(text)
    }
  }

  private static func scaled(_ text: String, by factor: Double) -> Milliseconds? {
    if let whole = Int64(text) {
      if factor == 0.001 { return whole / 1000 }
      let (product, overflow) = whole.multipliedReportingOverflow(by: Int64(factor))
      return overflow ? nil : product
    }
    guard let number = Double(text), abs(number) < 1e17 else { return nil }
    return Int64((number * factor).rounded(.down))
  }

  /// Days from 1970 to a date of the Gregorian calendar.
  ///
  /// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
  static func days(year: Int, month: Int, day: Int) -> Int? {
    let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    guard (1...9999).contains(year), (1...12).contains(month) else { return nil }
    let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    guard day >= 1, day <= lengths[month - 1] + (isLeap && month == 2 ? 1 : 0) else { return nil }
    let shifted = month <= 2 ? year - 1 : year
    let yearOfEra = shifted % 400
    let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
    return shifted / 400 * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
  }

  private static func moment(
    _ days: Int?, _ hour: Int, _ minute: Int, _ second: Int, milliseconds: Int = 0
  ) -> Milliseconds? {
    guard let days, (0..<24).contains(hour), (0..<60).contains(minute), (0...60).contains(second) else { return nil }
    return Int64(((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + Int64(milliseconds)
  }

  private static func iso8601(_ text: [UInt8]) -> Milliseconds? {
    var rest = text[...]
    func digits(_ count: Int) -> Int? {
      guard rest.count >= count else { return nil }
      var value = 0
      for byte in rest.prefix(count) {
        guard byte >= 0x30, byte <= 0x39 else { return nil }
        value = value * 10 + Int(byte - 0x30)
      }
      rest = rest.dropFirst(count)
      return value
    }
    func skip(_ bytes: String) -> Bool {
      guard let first = rest.first, bytes.utf8.contains(first) else { return false }
      rest = rest.dropFirst()
      return true
    }
    guard let year = digits(4), skip("-"), let month = digits(2), skip("-"), let day = digits(2) else { return nil }
    let date = days(year: year, month: month, day: day)
    if rest.isEmpty { return moment(date, 0, 0, 0) }
    guard skip("Tt "), let hour = digits(2), skip(":"), let minute = digits(2) else { return nil }
    var second = 0
    var milliseconds = 0
    if skip(":") {
      guard let whole = digits(2) else { return nil }
      second = whole
      if skip(".,") {
        var place = 100
        guard let first = rest.first, (0x30...0x39).contains(first) else { return nil }
        while let byte = rest.first, (0x30...0x39).contains(byte) {
          milliseconds += Int(byte - 0x30) * place
          place /= 10
          rest = rest.dropFirst()
        }
      }
    }
    guard let time = moment(date, hour, minute, second, milliseconds: milliseconds) else { return nil }
    if rest.isEmpty || skip("Zz") { return rest.isEmpty ? time : nil }
    let isWest = rest.first == 0x2D
    guard skip("+-"), let hours = digits(2), hours < 24 else { return nil }
    _ = skip(":")
    guard rest.isEmpty || rest.count == 2, let minutes = rest.isEmpty ? 0 : digits(2), minutes < 60 else { return nil }
    let offset = Int64(hours * 60 + minutes) * 60_000
    return isWest ? time + offset : time - offset
  }

  private static func monthDayYear(_ text: String) -> Milliseconds? {
    let parts = text.split(separator: " ", omittingEmptySubsequences: false)
    guard parts.count == 3, parts[2] == "AM" || parts[2] == "PM" else { return nil }
    let date = parts[0].split(separator: "/", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
    let time = parts[1].split(separator: ":", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
    guard date.count == 3, time.count == 3, (1...12).contains(time[0]) else { return nil }
    let hour = time[0] % 12 + (parts[2] == "PM" ? 12 : 0)
    return moment(days(year: date[2], month: date[0], day: date[1]), hour, time[1], time[2])
  }
}

extension Milliseconds {
  /// The time in a text such as `2024-05-01T12:00:00Z`; nil when it is not written so.
  public init?(iso8601 text: String) {
    guard let time = TimeNotation.iso8601.milliseconds(text) else { return nil }
    self = time
  }

  /// The time as `2024-05-01T12:00:00Z`, with a fraction when it has one; for times from 1970 to 9999.
  public var iso8601: String {
    func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
    // Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let days = self / 86_400_000 + 719_468
    let dayOfEra = days % 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shifted = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shifted + 2) / 5 + 1
    let month = shifted < 10 ? shifted + 3 : shifted - 9
    let year = days / 146_097 * 400 + yearOfEra + (month <= 2 ? 1 : 0)
    let rest = self % 86_400_000
    let fraction = rest % 1000
    let point = fraction == 0 ? "" : "." + "\(1000 + fraction)".dropFirst()
    let clock = "\(two(rest / 3_600_000)):\(two(rest / 60_000 % 60)):\(two(rest / 1000 % 60))"
    return "\(year)-\(two(month))-\(two(day))T\(clock)\(point)Z"
  }
}
