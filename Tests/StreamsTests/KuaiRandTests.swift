import Base
import Glibc
import Testing

@testable import Streams

@Suite("KuaiRand import") struct KuaiRandTests {
  static let videos = """
    video_id,author_id,video_type,video_duration,tag
    7,700,NORMAL,9000.0,"39,68"
    8,800,NORMAL,,
    """
  static let users = "user_id,user_active_degree\n1,\"full,active\"\n2,low\n"
  /// The columns of the original release, in another order: author, tag and duration come from the video table.
  static let plain = """
    user_id,video_id,time_ms,tab,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,is_profile_enter,play_time_ms
    1,7,1650812741000,1,1,0,0,0,0,0,1,0,5000
    2,8,1650812742000,0,0,0,0,0,0,0,0,0,0
    2,9,1650812743000,4,0,0,0,0,0,1,0,0,0
    """

  private func directory(log: String, name: String = "log_standard_a.csv") throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    try directory.write(name, log)
    try directory.write("user_features_pure.csv", Self.users)
    try directory.write("video_features_basic_pure.csv", Self.videos)
    return directory
  }

  private func run(_ directory: TemporaryDirectory) throws -> ImportReport {
    try KuaiRandImporter(directory: directory.path).run(into: "\(directory.path)/out")
  }

  @Test func `impressions and actions are merged in time order, positives just before the end of the view`() throws {
    let directory = try directory(log: Self.plain)
    let report = try run(directory)
    #expect(
      try directory.read("out/events.jsonl") == """
        {"type":"impression","id":1,"time":1650812741000,"features":{"user_id":1,"video_id":7,"author_id":700,"tag":39,"duration_bucket":3,"tab":1,"hour":23}}
        {"type":"impression","id":2,"time":1650812742000,"features":{"user_id":2,"video_id":8,"author_id":800,"tag":"unknown","duration_bucket":0,"tab":0,"hour":23}}
        {"type":"action","impression":2,"action":"view_end","time":1650812742000}
        {"type":"impression","id":3,"time":1650812743000,"features":{"user_id":2,"video_id":9,"tag":"unknown","duration_bucket":0,"tab":4,"hour":23}}
        {"type":"action","impression":3,"action":"is_hate","time":1650812743000}
        {"type":"action","impression":3,"action":"view_end","time":1650812743000}
        {"type":"action","impression":1,"action":"is_click","time":1650812745999}
        {"type":"action","impression":1,"action":"long_view","time":1650812745999}
        {"type":"action","impression":1,"action":"view_end","time":1650812746000}

        """)
    #expect(report.impressions == 3)
    #expect(report.actions["is_click"] == 1)
    #expect(report.actions["view_end"] == 3)
    #expect(report.unknownVideos == 1)
    #expect(report.firstTime == 1_650_812_741_000)
    #expect(report.lastTime == 1_650_812_746_000)
  }

  @Test func `columns of the log come before the video table, and quoted fields and CRLF are read`() throws {
    let header = "is_profile_enter,long_view,is_hate,is_forward,is_comment,is_follow,is_like,is_click,play_time_ms,"
    let log =
      header + "tab,time_ms,video_id,user_id,author_id,tag,video_duration\r\n"
      + "0,0,0,0,0,0,0,0,10,1,1650812741000,7,1,\"701\",\"12,5\",65000.0\r\n"
      + "0,0,0,0,0,0,0,0.0,10,1,1650812741000,7,1,,,\r\n"
    let directory = try directory(log: log)
    _ = try run(directory)
    let lines = try directory.read("out/events.jsonl").split(separator: "\n")
    #expect(lines[0].contains(#""author_id":701,"tag":12,"duration_bucket":6,"#))
    #expect(lines[1].contains(#""author_id":700,"tag":39,"duration_bucket":0,"#))
  }

  @Test func `equal lines are dropped and counted, damaged ones set aside, and the numbering goes on`() throws {
    let rows = Self.plain.split(separator: "\n").map(String.init)
    let log = ([rows[0], rows[1], "nonsense", rows[1], "1,7,x,1,1,0,0,0,0,0,1,0,5000", rows[3]] + ["1,\"7,"])
      .joined(separator: "\n")
    let directory = try directory(log: log)
    try directory.write("log_standard_b.csv", rows[0] + "\n" + rows[2] + "\n" + rows[3] + "\n")
    let report = try run(directory)
    #expect(report.impressions == 3)
    #expect(report.duplicates == 2)
    #expect(report.rejected == 3)
    #expect(
      report.rejections == [
        .init(file: "log_standard_a.csv", line: 3, reason: "1 fields; the header has 13"),
        .init(file: "log_standard_a.csv", line: 5, reason: "time_ms is 'x'; expected an integer"),
        .init(
          file: "log_standard_a.csv", line: 7, reason: "the quote of field 2 is not closed within 65536 bytes"),
      ])
    #expect(report.files.map(\.rows) == [6, 2])
    let ids = try directory.read("out/events.jsonl").split(separator: "\n")
      .filter { $0.hasPrefix(#"{"type":"impression""#) }.map { $0.prefix(28).suffix(2) }
    #expect(ids == ["1,", "7,", "5,"])
    let rejected = try directory.read("out/rejected.jsonl").split(separator: "\n")
    #expect(
      rejected[2]
        == #"{"file":"log_standard_a.csv","line":7,"reason":"the quote of field 2 is not closed within 65536 bytes","#
        + #""text":"1,\"7,"}"#)
  }

  @Test func `rows out of order are put in order, equal times in file order`() throws {
    let rows = Self.plain.split(separator: "\n").map(String.init)
    let directory = try directory(log: [rows[0], rows[3], rows[2], rows[1]].joined(separator: "\n"))
    _ = try run(directory)
    let ids = try directory.read("out/events.jsonl").split(separator: "\n")
      .filter { $0.hasPrefix(#"{"type":"impression""#) }.map { $0.prefix(28).suffix(2) }
    #expect(ids == ["3,", "2,", "1,"])
  }

  @Test func `missing files and tables of another shape are clear errors, and nothing is written`() throws {
    func problem(_ path: String) -> String {
      do {
        _ = try KuaiRandImporter(directory: path).run(into: "\(path)/out")
        return "imported"
      } catch {
        return "\(error)"
      }
    }
    let directory = try directory(log: "user_id,item\n1,2\n")
    let path = directory.path
    #expect(problem(path + "/nowhere") == "there is nothing at \(path)/nowhere")
    #expect(
      problem(path)
        == "\(path)/log_standard_a.csv is not of the expected shape: it has no column video_id, time_ms, play_time_ms, "
        + "tab, is_click, is_like, is_follow, is_comment, is_forward, is_hate, long_view, is_profile_enter; "
        + "it has user_id, item")
    try directory.write("log_standard_a.csv", "")
    #expect(problem(path).hasSuffix("it has no columns"))
    try directory.write("log_standard_a.csv", Self.plain.split(separator: "\n")[0] + "\n")
    #expect(problem(path) == "the log in \(path) has no record that can be imported")
    unlink("\(path)/video_features_basic_pure.csv")
    #expect(
      problem(path)
        == "no video_features_basic*.csv in \(path): KuaiRand keeps the video table beside the log; authors, tags and "
        + "durations are read from it")
    unlink("\(path)/log_standard_a.csv")
    #expect(
      problem(path)
        == "\(path) holds no events: expected dataset.json with events.jsonl, a .jsonl file, or the files of "
        + "KuaiRand, MovieLens, Criteo or MIND; it has user_features_pure.csv. For a table of your own `guira init "
        + "\(path)` writes a mapping")
    #expect(try Files.names(in: path) == ["user_features_pure.csv"])
  }

  @Test func `an output that holds something is left alone`() throws {
    let directory = try directory(log: Self.plain)
    try Files.makeDirectory("\(directory.path)/out")
    try directory.write("out/mine", "precious")
    #expect(throws: StreamError.outputExists(path: "\(directory.path)/out")) { try run(directory) }
    #expect(try directory.read("out/mine") == "precious")
  }

  @Test func `no mutation of a log traps`() throws {
    var random = SeededRandom(seed: 8)
    let log = Array(Self.plain.utf8)
    let header = log.firstIndex(of: 0x0A)!
    for round in 0..<100 {
      var bytes = log
      for _ in 0..<3 {
        let at = Int.random(in: (header + 1)..<bytes.count, using: &random)
        bytes[at] = Array("\",\n\r-.9".utf8 + [0, 0xFF]).randomElement(using: &random)!
      }
      let directory = try directory(log: "")
      try Files.replace("\(directory.path)/log_standard_a.csv", with: bytes, durable: false)
      let importer = try KuaiRandImporter(directory: directory.path)
      _ = try? importer.run(into: "\(directory.path)/\(round)")
    }
  }

  static let realData = getenv("GUIRA_KUAIRAND").map { String(cString: $0) }

  @Test(
    .enabled(
      if: realData != nil,
      "SKIPPED: set GUIRA_KUAIRAND to the directory of the KuaiRand slice to import the real data"))
  func `the real slice gives 222,869 impressions with their known labels, every line readable`() throws {
    let directory = try TemporaryDirectory()
    var input = try EventInput.open(
      path: Self.realData!, schema: .kuairand, importInto: directory.path)
    let imported = input.imported
    let report = try #require(imported)
    #expect(report.impressions == 222_869)
    #expect(report.duplicates == 0)
    #expect(report.rejected == 0)
    #expect(
      report.actions == [
        "is_click": 100_070, "is_like": 3_874, "is_follow": 291, "is_comment": 575, "is_forward": 194, "is_hate": 187,
        "long_view": 70_522, "is_profile_enter": 4_203, "view_end": 222_869,
      ])
    var counts = (impressions: 0, actions: 0)
    var last = Milliseconds.min
    var isOrdered = true
    while let event = try input.next() {
      if case .impression = event { counts.impressions += 1 } else { counts.actions += 1 }
      isOrdered = isOrdered && event.time >= last
      last = event.time
    }
    #expect(counts.impressions == 222_869)
    #expect(counts.actions == report.actions.values.reduce(0, +))
    #expect(isOrdered)
    let faultCount = input.faultCount
    #expect(faultCount == 0)
    #expect(last == report.lastTime)
  }
}
