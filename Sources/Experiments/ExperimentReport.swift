// What an experiment found: tables of figures, each a mean over seeds with its range, as JSON, as text and as a plot.

internal import Foundation

/// A finished experiment.
public struct ExperimentReport: Sendable, Equatable, Codable {
  /// One figure over all seeds.
  public struct Figure: Sendable, Equatable, Codable {
    /// Its mean.
    public var mean: Double
    /// The smallest.
    public var min: Double
    /// The largest.
    public var max: Double

    /// The figure of some runs; nil of none.
    init?(_ values: [Double?]) {
      let values = values.compactMap { $0 }
      guard let min = values.min(), let max = values.max() else { return nil }
      (self.min, self.max) = (min, max)
      mean = values.reduce(0, +) / Double(values.count)
    }
  }

  /// One line of a table.
  public struct Row: Sendable, Equatable, Codable {
    /// What the line is about.
    public var name: String
    /// Figures by column; those that could not be worked out are left out.
    public var values: [String: Figure]
  }

  /// Lines with the same columns.
  public struct Table: Sendable, Equatable, Codable {
    /// What the table shows.
    public var title: String
    /// What its lines are about.
    public var subject: String
    /// The columns in order.
    public var columns: [String]
    /// The lines in order.
    public var rows: [Row]
  }

  /// Which experiment.
  public var name: String
  /// What it ran on and with.
  public var settings: [String: String]
  /// What came out.
  public var tables: [Table]
  /// How long it took.
  public var seconds: Double
  /// What `svg` shows.
  var plot: Plot

  private enum CodingKeys: String, CodingKey { case name, settings, tables, seconds, plot }

  /// The report as one JSON object.
  public func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }

  /// The plot as an SVG document.
  public var svg: String { plot.svg }

  /// The tables as text.
  public var page: String {
    var page =
      "\(name), \(settings.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))\n"
    for table in tables { page += "\n" + table.page }
    return page + String(format: "\n%.1f seconds\n", seconds)
  }
}

extension ExperimentReport.Table {
  /// The means of tables with the same lines and columns, one for each seed.
  static func means(of tables: [Self]) -> Self {
    var table = tables[0]
    for row in table.rows.indices {
      for column in table.columns {
        table.rows[row].values[column] = ExperimentReport.Figure(tables.map { $0.rows[row].values[column]?.mean })
      }
    }
    return table
  }

  /// The table as text, numbers to the right.
  var page: String {
    let lines =
      [[subject] + columns]
      + rows.map { row in [row.name] + columns.map { column in row.values[column]?.text ?? "–" } }
    let widths = (0...columns.count).map { column in lines.map { $0[column].count }.max() ?? 0 }
    let text = lines.map { line in
      line.enumerated().map { column, cell in
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        return column == 0 ? cell + padding : padding + cell
      }.joined(separator: "  ")
    }
    return title + "\n" + text.joined(separator: "\n") + "\n"
  }
}

extension ExperimentReport.Figure {
  /// The mean, with half of the range behind it when there were several runs.
  var text: String {
    let digits = abs(mean) >= 1000 ? "%.0f" : "%.4f"
    guard max > min else { return String(format: digits, mean) }
    return String(format: "\(digits) ±\(digits)", mean, (max - min) / 2)
  }
}
