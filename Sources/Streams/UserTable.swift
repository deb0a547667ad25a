// What a file says of users, beside the events: a CSV table with a column of ids, whose other columns are features. Held in
// memory, each value as its number among the column's.

internal import Base

/// Features of users by their id.
public struct UserTable: Sendable, Equatable {
  /// The columns' names.
  public private(set) var names: [String]
  /// By column: the number of each user's value; users are at their places, and who is not in the table at 0.
  public private(set) var columns: [[Int32]]
  /// By column: how many values there are, that of a user who is not in the table among them.
  public private(set) var idCounts: [Int]
  private var places: [UInt64: Int] = [:]

  /// Reads a table.
  ///
  /// A row whose key is no integer is left out, as is a repeated one.
  ///
  /// - Parameter key: the column of the users' ids; every other one is a feature.
  /// - Throws: `StreamError` when the file cannot be read or does not have that column.
  public init(path: String, key: String) throws(StreamError) {
    var table = try CSVTable(path: path, needs: [key])
    let header = table.header.names
    let keyColumn = table.header.column(key) ?? 0
    let features = header.indices.filter { $0 != keyColumn }
    names = features.map { header[$0] }
    columns = features.map { _ in [0] }
    var numbers = features.map { _ in [String: Int32]() }
    while true {
      let outcome = try table.next()
      if outcome == .end { break }
      guard outcome == .record, table.reader.count == header.count,
        let id = table.reader.optionalInteger(keyColumn).map(UInt64.init(bitPattern:)), places[id] == nil
      else { continue }
      places[id] = places.count + 1
      for (place, column) in features.enumerated() {
        let value = table.reader.text(column)
        let number = numbers[place][value] ?? Int32(numbers[place].count + 1)
        numbers[place][value] = number
        columns[place].append(number)
      }
    }
    idCounts = numbers.map { $0.count + 1 }
  }

  /// Where a user is; 0 for somebody who is not in the table.
  public func place(of id: UInt64?) -> Int { id.flatMap { places[$0] } ?? 0 }
}
