// A scan's place as one word, so that it can travel in a message; zero is the start of a table.

extension TableCursor {
  /// The cursor that `rawValue` gave; words that no cursor gives mean the end of the table.
  public init(rawValue: UInt64) {
    self.init()
    guard rawValue != 0 else { return }
    isFirst = false
    next = Int(rawValue & (1 << 60 - 1))
    phase = [.rows, .counts, .sketch][Int(min(rawValue >> 60, 3)) % 3]
    if rawValue >> 60 >= 3 { phase = .end }
  }

  /// The cursor as a word.
  public var rawValue: UInt64 {
    if isFirst { return 0 }
    let number: UInt64 =
      switch phase {
      case .rows: 0
      case .counts: 1
      case .sketch: 2
      case .end: 3
      }
    return number << 60 | UInt64(next)
  }
}
