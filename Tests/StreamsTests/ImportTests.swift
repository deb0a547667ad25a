import Base
import Glibc
import Testing

@testable import Streams

@Suite("Imports by a mapping") struct ImportTests {
  private func importAll(_ directory: TemporaryDirectory, _ path: String = "", _ mapping: ImportMapping? = nil) throws
    -> ImportReport
  {
    let importer = try #require(try KnownDatasets.importer(of: directory.path + path, mapping: mapping))
    return try importer.run(into: "\(directory.path)/out") { _ in }
  }

  private func lines(_ directory: TemporaryDirectory) throws -> [String] {
    try directory.read("out/events.jsonl").split(separator: "\n").map(String.init)
  }

  @Test func `MovieLens ratings come in the order of their times, ties in file order, with genres`() throws {
    let directory = try TemporaryDirectory()
    try directory.write("ratings.dat", "1::10::5::978300760\n1::20::3::978300759\n2::10::4::978300760\n2::30::1::x\n")
    try directory.write("movies.dat", "10::Toy Story (1995)::Animation|Children's\n20::Heat::Crime\n")
    let report = try importAll(directory)
    #expect(
      try directory.read("out/events.jsonl") == """
        {"type":"impression","id":2,"time":978300759000,"features":{"user_id":1,"movie_id":20,"genres":["Crime"]}}
        {"type":"action","impression":2,"action":"view_end","time":978300759000}
        {"type":"impression","id":1,"time":978300760000,"features":{"user_id":1,"movie_id":10,"genres":["Animation","Children's"]}}
        {"type":"action","impression":1,"action":"like","time":978300760000}
        {"type":"action","impression":1,"action":"view_end","time":978300760000}
        {"type":"impression","id":3,"time":978300760000,"features":{"user_id":2,"movie_id":10,"genres":["Animation","Children's"]}}
        {"type":"action","impression":3,"action":"like","time":978300760000}
        {"type":"action","impression":3,"action":"view_end","time":978300760000}

        """)
    #expect(report.impressions == 3)
    #expect(report.actions == ["like": 2, "view_end": 3])
    #expect(
      report.rejections == [
        .init(file: "ratings.dat", line: 4, reason: "time is 'x'; expected a time as seconds since 1970")
      ])
    #expect(
      try directory.read("out/rejected.jsonl")
        == #"{"file":"ratings.dat","line":4,"reason":"time is 'x'; expected a time as seconds since 1970","#
        + #""text":"2::30::1::x"}"# + "\n")
    let dataset = try Dataset(directory: directory.path + "/out")
    #expect(dataset.origin == "MovieLens")
    #expect(dataset.sources.map(\.name) == ["ratings.dat", "movies.dat"])
    #expect(
      try Files.names(in: directory.path + "/out").sorted() == ["dataset.json", "events.jsonl", "rejected.jsonl"])
  }

  @Test func `MovieLens needs no movies, and the CSV releases read alike`() throws {
    let directory = try TemporaryDirectory()
    try directory.write("ratings.csv", "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n")
    #expect(try importAll(directory).actions == ["like": 1, "view_end": 2])
    #expect(
      try lines(directory)[0]
        == #"{"type":"impression","id":2,"time":1147868817000,"features":{"user_id":1,"movie_id":306}}"#)
  }

  @Test func `Criteo rows keep their order, numbers are flattened, and empty fields are zero or absent`() throws {
    let directory = try TemporaryDirectory()
    func row(_ label: Int, _ first: String, _ category: String) -> String {
      ([String(label), first] + Array(repeating: "", count: 12) + [category] + Array(repeating: "", count: 25))
        .joined(separator: "\t")
    }
    try directory.write("train.txt", [row(1, "-2", "68fd1e64"), "short\trow", row(0, "9", "")].joined(separator: "\n"))
    let report = try importAll(directory, "/train.txt")
    let found = try lines(directory)
    #expect(found.count == 5)
    let zeros = String(repeating: ",0.0", count: 12)
    #expect(
      found[0]
        == #"{"type":"impression","id":1,"time":1704067200000,"features":{"numbers":[-1.0986123"# + zeros
        + #"],"c1":"68fd1e64"}}"#)
    #expect(found[1] == #"{"type":"action","impression":1,"action":"click","time":1704067200000}"#)
    #expect(
      found[3].hasPrefix(#"{"type":"impression","id":3,"time":1704067200013,"features":{"numbers":[2.3025851,0.0"#))
    #expect(report.rejections.map(\.reason) == ["2 fields; the header has 40"])
  }

  @Test func `each candidate of MIND is an impression, with its news and the history`() throws {
    let directory = try TemporaryDirectory()
    try directory.write(
      "behaviors.tsv",
      "1\tU8\t11/11/2019 9:05:58 AM\tN5 N6\tN1-0 N2-1\n2\tU9\t11/11/2019 9:05:57 PM\t\tN2-0\n3\tU9\t11/11/2019 9:05:57 PM\t\tN2\n"
    )
    try directory.write("news.tsv", "N1\tsports\tgolf\ta \"title\"\t\t\t\t\nN2\tnews\tworld\tb\t\t\t\t\n")
    let report = try importAll(directory)
    #expect(
      try lines(directory).filter { $0.contains("impression\",") } == [
        #"{"type":"impression","id":1,"time":1573463158000,"features":{"user_id":"U8","news_id":"N1","category":"sports","subcategory":"golf","history":["N5","N6"]}}"#,
        #"{"type":"impression","id":2,"time":1573463158000,"features":{"user_id":"U8","news_id":"N2","category":"news","subcategory":"world","history":["N5","N6"]}}"#,
        #"{"type":"impression","id":3,"time":1573506357000,"features":{"user_id":"U9","news_id":"N2","category":"news","subcategory":"world"}}"#,
      ])
    #expect(report.actions == ["click": 1, "view_end": 3])
    #expect(
      report.rejections.map(\.reason) == ["impressions is 'N2'; expected a candidate, '-' and its label"])
  }

  @Test func `JSON Lines are read by key, lists and inner objects too, and the impression's own name is kept`() throws {
    let directory = try TemporaryDirectory()
    var mapping = ImportMapping()
    mapping.format.kind = .jsonl
    mapping.id = "key"
    mapping.time = ImportedTime(column: "at", unit: .iso8601)
    mapping.delay = .milliseconds(1500)
    mapping.features = [
      ImportedFeature("user", column: "user.id"), ImportedFeature("tags", column: "tags", split: ",", limit: 2),
      ImportedFeature("price", numbers: ["price"], scale: 0.5),
    ]
    mapping.tasks = [ImportedTask("buy", column: "bought"), ImportedTask("like", column: "mood", .equals("good"))]
    try directory.write(
      "shop.jsonl",
      #"{"key":"a","at":"2024-05-01T12:00:01.250+02:00","user":{"id":7},"tags":[1,"x","y"],"price":3,"bought":true}"#
        + "\n" + #"{"key":18,"at":"2024-05-01 10:00:02","user":{"id":"7.0"},"tags":"a,b","mood":"good"}"# + "\n"
        + #"{"key":"c","at":"2024-05-01T10:00:02Z","user":{"id":[{}]}}"# + "\n[1]\n"
        + #"{"key":"","at":"2024-05-01T10:00:02Z"}"# + "\n" + #"{"key":"d","at":"2024-05-01T10:00:02Z","price":"dear"}"#
    )
    let report = try importAll(directory, "/shop.jsonl", mapping)
    #expect(
      try directory.read("out/events.jsonl") == """
        {"type":"impression","id":"a","time":1714557601250,"features":{"user":7,"tags":["x","y"],"price":[1.5]}}
        {"type":"impression","id":18,"time":1714557602000,"features":{"user":7,"tags":["a","b"],"price":[0.0]}}
        {"type":"action","impression":"a","action":"buy","time":1714557602750}
        {"type":"action","impression":"a","action":"view_end","time":1714557602750}
        {"type":"action","impression":18,"action":"like","time":1714557603500}
        {"type":"action","impression":18,"action":"view_end","time":1714557603500}

        """)
    #expect(
      report.rejections.map { "\($0.line): \($0.reason)" } == [
        "3: user.id is 'an object'; expected a text, a number, or a list of those",
        "4: not a JSON object: the line is a list", "5: key is ''; expected the name of the impression",
        "6: price is 'dear'; expected a number, or nothing",
      ])
  }

  @Test func `shuffled rows give the same events as sorted ones`() throws {
    var random = SeededRandom(seed: 3)
    var rows = (0..<5000).map { "\($0),\(1_700_000_000_000 + Int64($0) * 37),\($0 % 3 == 0 ? 1 : 0)" }
    var mapping = ImportMapping()
    mapping.id = "n"
    mapping.time = ImportedTime(column: "ms", unit: .milliseconds)
    mapping.delay = .milliseconds(100)
    mapping.features = [ImportedFeature("n")]
    mapping.tasks = [ImportedTask("click", column: "hit")]
    func events(_ rows: [String]) throws -> String {
      let directory = try TemporaryDirectory()
      try directory.write("rows.csv", "n,ms,hit\n" + rows.joined(separator: "\n"))
      _ = try importAll(directory, "/rows.csv", mapping)
      return try directory.read("out/events.jsonl")
    }
    let sorted = try events(rows)
    #expect(sorted.split(separator: "\n").count == 5000 * 2 + 1667)
    for index in rows.indices.reversed() { rows.swapAt(index, Int(random.next() % UInt64(index + 1))) }
    #expect(try events(rows) == sorted)
  }

  @Test func `whole numbers are ids as they are, only in their shortest form`() {
    func id(_ text: String) -> String {
      var writer = ByteWriter()
      RowConverter.append(id: Array(text.utf8)[...], to: &writer)
      return String(decoding: writer.finish().array, as: UTF8.self)
    }
    #expect(
      id("7") == "7" && id("-7") == "-7" && id("7.00") == "7" && id("18446744073709551615") == "18446744073709551615")
    #expect(id("007") == "\"007\"" && id("7.5") == "\"7.5\"" && id("+7") == "\"+7\"" && id("7.") == "\"7.\"")
    #expect(id("18446744073709551616") == "\"18446744073709551616\"")
  }

  @Test func `what is missing is said, and nothing is written`() throws {
    func problem(_ path: String, _ mapping: ImportMapping?) -> String {
      do {
        guard let importer = try KnownDatasets.importer(of: path, mapping: mapping) else { return "unknown" }
        return "\(try importer.run(into: path + "-out") { _ in }.impressions) impressions"
      } catch { return "\(error)" }
    }
    let directory = try TemporaryDirectory()
    try directory.write("a.csv", "user,when\n1,2\n")
    let path = directory.path
    var mapping = ImportMapping()
    mapping.files = ["b*.csv"]
    mapping.features = [ImportedFeature("user"), ImportedFeature("item")]
    mapping.tasks = [ImportedTask("click", column: "clicked")]
    #expect(problem(path, nil) == "unknown")
    #expect(problem(path, mapping) == "no b*.csv in \(path): the mapping reads rows from it")
    #expect(
      problem(path + "/a.csv", mapping)
        == "\(path)/a.csv is not of the expected shape: it has no column item, clicked; it has user, when")
    mapping.features = [ImportedFeature("user")]
    mapping.tasks = [ImportedTask("click", column: "user")]
    mapping.time = ImportedTime(column: "when", unit: .seconds)
    #expect(
      problem(path + "/a.csv", mapping)
        == "no row of \(path)/a.csv can be imported; 1 were refused, the first at line 2: when is '2'; expected a time of "
        + "1990 to 2100, seconds since 1970")
    #expect(try Files.names(in: path) == ["a.csv"])
    #expect(TableImporter.matches("log_1_a.csv", "log*a*.csv") && !TableImporter.matches("log.csv", "log*g.csv"))
  }

  @Test func `times are read in every notation, and absurd ones refused`() {
    #expect(TimeNotation.seconds.milliseconds("1700000000.5") == 1_700_000_000_500)
    #expect(TimeNotation.microseconds.milliseconds("1700000000123456") == 1_700_000_000_123)
    #expect(TimeNotation.iso8601.milliseconds("2024-02-29") == 1_709_164_800_000)
    #expect(TimeNotation.iso8601.milliseconds("2023-02-29") == nil)
    #expect(TimeNotation.iso8601.milliseconds("2024-05-01T12:00:00-0330") == 1_714_577_400_000)
    #expect(TimeNotation.iso8601.milliseconds("2024-05-01T12:00:00+") == nil)
    #expect(TimeNotation.monthDayYear.milliseconds("11/13/2019 12:00:01 AM") == 1_573_603_201_000)
    #expect(TimeNotation.monthDayYear.milliseconds("13/11/2019 12:00:01 AM") == nil)
    for text in ["", "9223372036854775807", "nan", "1e300", "-"] {
      #expect(TimeNotation.seconds.milliseconds(text) == nil)
    }
    var random = SeededRandom(seed: 1)
    for _ in 0..<200 {
      let time = 631_152_000_000 + Int64(random.next() % 3_471_292_800_000)
      #expect(Milliseconds(iso8601: time.iso8601) == time)
    }
  }

  @Test func `no bytes trap, whatever the format`() throws {
    var random = SeededRandom(seed: 9)
    let alphabet = Array("a,\t\"{}[]:1\n\r|\u{1F}".utf8) + [0xFF, 0]
    for round in 0..<60 {
      let directory = try TemporaryDirectory()
      let bytes = (0..<400).map { _ in alphabet[Int(random.next() % UInt64(alphabet.count))] }
      try Files.replace(directory.path + "/rows", with: bytes, durable: false)
      let format: RowFormat =
        switch round % 3 {
        case 0: RowFormat(.csv, columns: ["a", "b"])
        case 1: RowFormat(.delimited, delimiter: "1\"", columns: ["a", "b"])
        default: RowFormat(.jsonl, columns: [])
        }
      let reader = try format.open(directory.path + "/rows", wants: ["a", "b"])
      var cells = RowCells()
      reading: while true {
        cells.truncate(to: 0)
        switch try reader.next(into: &cells) {
        case .end: break reading
        case .row: #expect(cells.count == 2)
        case .fault: #expect(cells.count == 0)
        }
      }
      _ = try? TableGuess(path: directory.path + "/rows").mapping()
    }
  }
}
