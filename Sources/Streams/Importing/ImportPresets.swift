// The mappings of datasets Guira knows by their files.

internal import Base

extension ImportMapping {
  /// MovieLens 1M and 10M: `ratings.dat`, with the genres of `movies.dat` where that is there.
  public static let movieLens = movieLens(
    ratings: (
      "ratings.dat", RowFormat(.delimited, delimiter: "::", columns: ["user_id", "movie_id", "rating", "time"])
    ),
    movies: ("movies.dat", RowFormat(.delimited, delimiter: "::", columns: ["movie", "title", "genres"]), "movie"),
    columns: ("user_id", "movie_id", "time"))

  /// MovieLens 20M, 25M and 32M: `ratings.csv` and `movies.csv` with headers.
  public static let movieLensCSV = movieLens(
    ratings: ("ratings.csv", RowFormat()), movies: ("movies.csv", RowFormat(), "movieId"),
    columns: ("userId", "movieId", "timestamp"))

  private static func movieLens(
    ratings: (file: String, format: RowFormat), movies: (file: String, format: RowFormat, key: String),
    columns: (user: String, movie: String, time: String)
  ) -> ImportMapping {
    var mapping = ImportMapping()
    mapping.origin = "MovieLens"
    mapping.files = [ratings.file]
    mapping.format = ratings.format
    mapping.time = ImportedTime(column: columns.time, unit: .seconds)
    mapping.features = [
      ImportedFeature("user_id", column: columns.user), ImportedFeature("movie_id", column: columns.movie),
      ImportedFeature("genres", column: "genres", split: "|", limit: 20),
    ]
    mapping.tasks = [ImportedTask("like", column: "rating", .atLeast(4))]
    mapping.tables = [
      ImportedTable(
        file: movies.file, format: movies.format, key: movies.key, on: columns.movie, adds: ["genres"],
        isOptional: true)
    ]
    return mapping
  }

  /// Criteo's display advertising challenge: a label, 13 numbers, 26 categories, tabs, in the order of their time.
  public static let criteo: ImportMapping = {
    let numbers = (1...13).map { "i\($0)" }
    let categories = (1...26).map { "c\($0)" }
    var mapping = ImportMapping()
    mapping.origin = "Criteo"
    mapping.files = ["train.txt"]
    mapping.format = RowFormat(.tsv, columns: ["label"] + numbers + categories)
    // Seven days hold 45,840,617 rows.
    mapping.time.perSecond = 75
    mapping.features = [ImportedFeature("numbers", numbers: numbers, log1p: true)]
    mapping.features += categories.map { ImportedFeature($0) }
    mapping.tasks = [ImportedTask("click", column: "label")]
    return mapping
  }()

  /// MIND: `behaviors.tsv`, with the categories of `news.tsv` where that is there; each candidate is an impression.
  public static let mind: ImportMapping = {
    var mapping = ImportMapping()
    mapping.origin = "MIND"
    mapping.files = ["behaviors.tsv"]
    mapping.format = RowFormat(.tsv, columns: ["impression_id", "user", "time", "history", "impressions"])
    mapping.time = ImportedTime(column: "time", unit: .monthDayYear)
    mapping.features = [
      ImportedFeature("user_id", column: "user"), ImportedFeature("news_id"), ImportedFeature("category"),
      ImportedFeature("subcategory"), ImportedFeature("history", column: "history", split: " ", limit: 50),
    ]
    mapping.tasks = [ImportedTask("click", column: "label")]
    mapping.candidates = ImportedCandidates(column: "impressions", item: "news_id", label: "label")
    mapping.tables = [
      ImportedTable(
        file: "news.tsv",
        format: RowFormat(
          .tsv,
          columns: [
            "news", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities",
          ]), key: "news", on: "news_id", adds: ["category", "subcategory"], isOptional: true)
    ]
    return mapping
  }()
}
