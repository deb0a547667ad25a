// Numbers and tables as people read them; shared by the report's summary and the live status.

internal import Foundation

/// `1234567` as `1,234,567`.
func grouped(_ value: Int) -> String {
  let digits = String(value.magnitude)
  var text = ""
  for (index, digit) in digits.enumerated() {
    if index > 0 && (digits.count - index) % 3 == 0 { text += "," }
    text.append(digit)
  }
  return value < 0 ? "-\(text)" : text
}

/// A number with so many digits after the point; "–" when there is none.
func fixed(_ value: Double?, _ digits: Int) -> String {
  guard let value, value.isFinite else { return "–" }
  return String(format: "%.\(digits)f", value)
}

/// Bytes with the largest unit that leaves a number of at least 1.
func bytes(_ count: Int) -> String {
  var value = Double(count)
  var unit = "B"
  for larger in ["KiB", "MiB", "GiB", "TiB"] where value >= 1024 {
    value /= 1024
    unit = larger
  }
  return unit == "B" ? "\(count) B" : "\(fixed(value, value < 10 ? 1 : 0)) \(unit)"
}

/// Rows of cells in columns: the first to the left, the others to the right.
func columns(_ rows: [[String]], gap: Int = 2) -> [String] {
  let count = rows.map(\.count).max() ?? 0
  let widths = (0..<count).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
  return rows.map { row in
    var line = ""
    for (column, cell) in row.enumerated() {
      let padding = String(repeating: " ", count: widths[column] - cell.count)
      line += column == 0 ? cell + padding : String(repeating: " ", count: gap) + padding + cell
    }
    while line.last == " " { line.removeLast() }
    return line
  }
}
