// Which importer a path needs: datasets are known by their files, anything else by a mapping.

internal import Base

/// Finds the importer of a path.
public enum KnownDatasets {
  /// The importer for a directory or a lone file; nil when nothing is known of it.
  /// - Parameter mapping: how its rows become events; asked before the files are looked at.
  /// - Throws: what is missing of a dataset that was recognised.
  public static func importer(of path: String, mapping: ImportMapping? = nil) throws(StreamError)
    -> (any DatasetImporter)?
  {
    guard Files.exists(path) else { throw .noDataset(path: path) }
    if let mapping { return try TableImporter(path: path, mapping: mapping) }
    let names = try? Files.names(in: path)
    if let names, KuaiRandImporter.recognizes(names) { return try KuaiRandImporter(directory: path) }
    let files = names ?? [path.split(separator: "/").last.map(String.init) ?? path]
    guard let found = preset(files, directory: names == nil ? nil : path, file: path) else { return nil }
    return try TableImporter(path: path, mapping: found)
  }

  /// The mapping of a dataset with these files; nil when they are none that is known.
  private static func preset(_ files: [String], directory: String?, file: String) -> ImportMapping? {
    func path(_ name: String) -> String { directory.map { "\($0)/\(name)" } ?? file }
    func has(_ name: String, columns: Int? = nil, header: [String] = [], separator: String = "\t") -> Bool {
      guard files.contains(name) else { return false }
      guard columns != nil || !header.isEmpty else { return true }
      guard let first = firstLine(path(name)) else { return false }
      let fields = first.components(separatedBy: Array(separator.utf8))
      return (columns ?? fields.count) == fields.count && header.allSatisfy(fields.contains)
    }
    if has("ratings.dat") { return .movieLens }
    if has("ratings.csv", header: ["userId", "movieId", "rating", "timestamp"], separator: ",") {
      return .movieLensCSV
    }
    if has("behaviors.tsv", columns: 5) { return .mind }
    let rows = files.filter { $0.hasSuffix(".txt") || $0.hasSuffix(".tsv") }.sorted()
    guard let name = rows.first(where: { $0 == "train.txt" }) ?? rows.first, has(name, columns: 40) else { return nil }
    var mapping = ImportMapping.criteo
    mapping.files = [name]
    return mapping
  }

  private static func firstLine(_ path: String) -> String? {
    guard var reader = try? LineReader(path: path, limit: 1 << 16), (try? reader.advance()) == .line else { return nil }
    return CSVReader.text(reader.line)
  }
}
