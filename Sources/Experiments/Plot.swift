// A small line plot as SVG: named series over a row of labels, one scale. Written for documents, so it needs no script and no
// font of its own.

internal import Foundation

/// Series of values over labels.
struct Plot: Sendable, Equatable, Codable {
  /// One line of the plot.
  struct Series: Sendable, Equatable, Codable {
    /// What it is called.
    var name: String
    /// A value for each label; nil leaves a gap.
    var values: [Double?]
  }

  /// What it shows.
  var title: String
  /// What the labels are.
  var across: String
  /// What the values are.
  var up: String
  /// The labels from left to right.
  var labels: [String]
  /// The lines.
  var series: [Series]

  private static let (width, height) = (640.0, 360.0)
  private static let (left, right, top, bottom) = (64.0, 130.0, 36.0, 48.0)
  private static let colours = ["#1b6ca8", "#c8553d", "#3a7d44", "#7a4988", "#b8860b", "#2f4858", "#d16ba5", "#6b705c"]

  /// The document.
  var svg: String {
    let scale = Scale(series.flatMap { $0.values.compactMap { $0 } })
    var lines: [String] = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" "
        + "font-family=\"sans-serif\" font-size=\"11\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      text(title, x: Self.left, y: 20, "font-size=\"14\""),
    ]
    for tick in scale.ticks {
      let y = vertical(tick, scale)
      lines.append(
        "<path d=\"M\(number(Self.left)) \(number(y))H\(number(Self.width - Self.right))\" stroke=\"#ddd\"/>")
      lines.append(
        text(String(format: scale.format, tick), x: Self.left - 6, y: y + 4, "text-anchor=\"end\""))
    }
    let every = max(1, (labels.count + 11) / 12)
    for (place, label) in labels.enumerated() where place % every == 0 {
      lines.append(
        text(label, x: horizontal(place), y: Self.height - Self.bottom + 16, "text-anchor=\"middle\""))
    }
    let middle = (Self.left + Self.width - Self.right) / 2
    lines.append(text(across, x: middle, y: Self.height - 10, "text-anchor=\"middle\""))
    lines.append(text(up, x: 8, y: Self.top - 6, ""))
    for (index, series) in series.enumerated() {
      let colour = Self.colours[index % Self.colours.count]
      var path = ""
      var isOpen = false
      for (place, value) in series.values.enumerated() {
        guard let value else {
          isOpen = false
          continue
        }
        let (x, y) = (number(horizontal(place)), number(vertical(value, scale)))
        path += "\(isOpen ? "L" : "M")\(x) \(y)"
        isOpen = true
        lines.append("<circle cx=\"\(x)\" cy=\"\(y)\" r=\"2.5\" fill=\"\(colour)\"/>")
      }
      lines.append("<path d=\"\(path)\" fill=\"none\" stroke=\"\(colour)\" stroke-width=\"1.5\"/>")
      let y = Self.top + 14 * Double(index)
      lines.append(text(series.name, x: Self.width - Self.right + 10, y: y + 4, "fill=\"\(colour)\""))
    }
    return lines.joined(separator: "\n") + "\n</svg>\n"
  }

  private func horizontal(_ place: Int) -> Double {
    let step = (Self.width - Self.left - Self.right) / Double(max(1, labels.count - 1))
    return labels.count == 1 ? (Self.left + Self.width - Self.right) / 2 : Self.left + step * Double(place)
  }

  private func vertical(_ value: Double, _ scale: Scale) -> Double {
    let share = (value - scale.low) / (scale.high - scale.low)
    return Self.height - Self.bottom - share * (Self.height - Self.top - Self.bottom)
  }

  private func number(_ value: Double) -> String { String(format: "%.1f", value) }

  private func text(_ words: String, x: Double, y: Double, _ attributes: String) -> String {
    let escaped = words.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
    return "<text x=\"\(number(x))\" y=\"\(number(y))\" \(attributes)>\(escaped)</text>"
  }
}

/// A range of values with round numbers to mark in it.
struct Scale {
  let low: Double
  let high: Double
  let ticks: [Double]
  let format: String

  init(_ values: [Double]) {
    let (least, most) = (values.min() ?? 0, values.max() ?? 1)
    let spread = most > least ? most - least : max(abs(most) * 0.01, 1e-6)
    let rough = spread / 5
    let power = pow(10, floor(log10(rough)))
    let step = [1, 2, 5, 10].map { $0 * power }.first { $0 >= rough } ?? rough
    low = floor(least / step) * step
    high = max(ceil(most / step) * step, low + step)
    let count = Int(((high - low) / step).rounded())
    ticks = (0...count).map { [low] in low + Double($0) * step }
    format = "%.\(max(0, Int(-floor(log10(step)))))f"
  }
}
