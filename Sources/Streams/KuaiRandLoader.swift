// The two passes of the KuaiRand import: rows out of the logs, then events in event-time order.

internal import Base

/// Holds the rows of all logs.
struct KuaiRandLoader {
  private let users: Set<UInt64>
  private var videos: KuaiRandVideos
  private(set) var rows: [KuaiRandRow] = []
  private var nextID: UInt64 = 1

  private static let labels = EventSchema.kuairand.tasks.map(\.name)
  private static let times: ClosedRange<Milliseconds> = EventParser.Options().times
  /// A play longer than this is a damaged field.
  private static let longestPlay: Int64 = 7 * 86_400_000

  init(users: Set<UInt64>, videos: KuaiRandVideos) {
    self.users = users
    self.videos = videos
  }

  /// Where a log keeps what is needed.
  private struct Columns {
    let user, video, time, play, tab: Int
    let labels: [Int]
    let author, tag, duration: Int?

    init(_ header: CSVHeader) {
      func column(_ name: String) -> Int { header.column(name) ?? 0 }
      user = column("user_id")
      video = column("video_id")
      time = column("time_ms")
      play = column("play_time_ms")
      tab = column("tab")
      labels = KuaiRandLoader.labels.map(column)
      author = header.column("author_id")
      tag = header.column("tag")
      duration = header.column("video_duration")
    }
  }

  /// Reads a log; every data row takes a number, readable or not.
  mutating func load(
    _ path: String, name: String, report: inout ImportReport, rejected: inout JSONLinesFile,
    progress: (Int) -> Void
  ) throws(StreamError) {
    var table = try CSVTable(path: path, needs: KuaiRandImporter.logColumns)
    let columns = Columns(table.header)
    let width = table.header.names.count
    var count = 0
    while true {
      let outcome = try table.next()
      if outcome == .end { break }
      let id = nextID
      nextID += 1
      count += 1
      if count % 16_384 == 0 { progress(table.reader.buffer.consumed) }
      do throws(RowFault) {
        if case .fault(let fault) = outcome { throw .csv(fault) }
        guard table.reader.count == width else { throw .fieldCount(table.reader.count, expected: width) }
        rows.append(try row(table.reader, columns, id: id, report: &report))
      } catch {
        let rejection = ImportReport.Rejection(file: name, line: table.reader.line, reason: error.description)
        report.note(rejection)
        try rejected.setAside(rejection, text: CSVReader.text(table.reader.raw))
      }
    }
    report.files.append(ImportReport.FileRows(file: name, rows: count))
  }

  private mutating func row(
    _ reader: borrowing CSVReader, _ columns: Columns, id: UInt64, report: inout ImportReport
  ) throws(RowFault) -> KuaiRandRow {
    let user = UInt64(bitPattern: try reader.integer(columns.user, "user_id"))
    let video = UInt64(bitPattern: try reader.integer(columns.video, "video_id"))
    let time = try reader.integer(columns.time, "time_ms")
    guard Self.times.contains(time) else {
      throw .field("time_ms", value: "\(time)", expected: "UTC milliseconds of 1990 to 2100")
    }
    let play = try reader.integer(columns.play, "play_time_ms")
    guard (0...Self.longestPlay).contains(play) else {
      throw .field("play_time_ms", value: "\(play)", expected: "milliseconds, 0 to \(Self.longestPlay)")
    }
    let tab = try reader.integer(columns.tab, "tab")
    var labels: UInt8 = 0
    for (bit, column) in columns.labels.enumerated() {
      let value = reader.optionalInteger(column)
      guard value == 0 || value == 1 else {
        throw .field(Self.labels[bit], value: reader.text(column), expected: "0 or 1")
      }
      if value == 1 { labels |= 1 << UInt8(bit) }
    }
    let known = videos.byID[video]
    if known == nil { report.unknownVideos += 1 }
    if !users.contains(user) { report.unknownUsers += 1 }
    let author = columns.author.flatMap { reader.optionalInteger($0) }.map(UInt64.init(bitPattern:)) ?? known?.author
    let tag: Int32
    if let column = columns.tag, reader.field(column).byteCount > 0 {
      tag = videos.tags.number(reader.text(column))
    } else {
      tag = known?.tag ?? videos.tags.number("")
    }
    let bucket = columns.duration.map { durationBucket(reader.optionalNumber($0)) } ?? known?.durationBucket ?? 0
    let hash = SIMD2(Hashing.xxh3(reader.raw), Hashing.xxh3(reader.raw, seed: 1))
    return KuaiRandRow(
      lineHash: hash, id: id, time: time, play: play, user: user, video: video, author: author, tag: tag, tab: tab,
      durationBucket: bucket, labels: labels)
  }

  /// Puts the rows in event-time order, file order among equals, and drops repeated lines: those are equal in time, so
  /// they stand near each other then.
  mutating func sortAndDropDuplicates(_ report: inout ImportReport) {
    let isSorted = zip(rows, rows.dropFirst()).allSatisfy { $0.time <= $1.time }
    if !isSorted { rows.sort { ($0.time, $0.id) < ($1.time, $1.id) } }
    var kept: [KuaiRandRow] = []
    kept.reserveCapacity(rows.count)
    var first = 0
    for row in rows {
      if first < kept.count, kept[first].time != row.time { first = kept.count }
      if kept[first...].contains(where: { $0.lineHash == row.lineHash }) {
        report.duplicates += 1
        if videos.byID[row.video] == nil { report.unknownVideos -= 1 }
        if !users.contains(row.user) { report.unknownUsers -= 1 }
      } else {
        kept.append(row)
      }
    }
    rows = kept
  }

  /// What follows an impression: its positive labels (stage 0), then the end of its view (stage 1).
  private struct Due: Comparable {
    let time: Milliseconds
    let row: Int
    let stage: Int

    static func < (left: Due, right: Due) -> Bool {
      (left.time, left.row, left.stage) < (right.time, right.row, right.stage)
    }
  }

  /// Writes impressions and actions, merged in event-time order.
  func write(
    to file: inout JSONLinesFile, report: inout ImportReport, progress: (Double) -> Void
  ) throws(StreamError) {
    var counts = [Int](repeating: 0, count: Self.labels.count + 1)
    var due = MinHeap<Due>()
    var lastTime: Milliseconds = rows[0].time
    for (index, row) in rows.enumerated() {
      while let next = due.first, next.time <= row.time {
        try write(next, to: &file, counts: &counts)
        _ = due.popFirst()
      }
      try write(impression: row, to: &file)
      let end = row.time + row.play
      lastTime = max(lastTime, end)
      if row.labels != 0 { due.insert(Due(time: max(row.time, end - 1), row: index, stage: 0)) }
      due.insert(Due(time: end, row: index, stage: 1))
      if index % 16_384 == 0 { progress(Double(index) / Double(rows.count)) }
    }
    while let next = due.popFirst() { try write(next, to: &file, counts: &counts) }
    report.impressions = rows.count
    report.firstTime = rows[0].time
    report.lastTime = lastTime
    for (index, name) in (Self.labels + ["view_end"]).enumerated() { report.actions[name] = counts[index] }
  }

  private func write(impression row: KuaiRandRow, to file: inout JSONLinesFile) throws(StreamError) {
    file.line.append(text: "{\"type\":\"impression\",\"id\":")
    file.line.append(decimal: row.id)
    file.line.append(text: ",\"time\":")
    file.line.append(decimal: row.time)
    file.line.append(text: ",\"features\":{\"user_id\":")
    file.line.append(decimal: row.user)
    file.line.append(text: ",\"video_id\":")
    file.line.append(decimal: row.video)
    if let author = row.author {
      file.line.append(text: ",\"author_id\":")
      file.line.append(decimal: author)
    }
    file.line.append(text: ",\"tag\":")
    file.line.append(utf8: videos.tags.rendered[Int(row.tag)])
    file.line.append(text: ",\"duration_bucket\":")
    file.line.append(decimal: UInt64(row.durationBucket))
    file.line.append(text: ",\"tab\":")
    file.line.append(decimal: row.tab)
    file.line.append(text: ",\"hour\":")
    file.line.append(decimal: (row.time + 8 * 3_600_000) / 3_600_000 % 24)
    file.line.append(text: "}}")
    try file.endLine()
  }

  private func write(_ due: Due, to file: inout JSONLinesFile, counts: inout [Int]) throws(StreamError) {
    let row = rows[due.row]
    func write(_ action: Int, _ name: String, _ file: inout JSONLinesFile) throws(StreamError) {
      counts[action] += 1
      file.line.append(text: "{\"type\":\"action\",\"impression\":")
      file.line.append(decimal: row.id)
      file.line.append(text: ",\"action\":\"")
      file.line.append(utf8: name)
      file.line.append(text: "\",\"time\":")
      file.line.append(decimal: due.time)
      file.line.append(text: "}")
      try file.endLine()
    }
    if due.stage == 1 { return try write(Self.labels.count, "view_end", &file) }
    for (bit, name) in Self.labels.enumerated() where row.labels & (1 << UInt8(bit)) != 0 {
      try write(bit, name, &file)
    }
  }
}
