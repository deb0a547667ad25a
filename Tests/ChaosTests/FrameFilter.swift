// One direction of a ZMTP 3 connection, cut into frames, so that a proxy can leave out whole messages as a lossy link
// between two machines would not, but a dying process or a full queue does.

/// Passes the bytes of a ZeroMQ connection on, without the messages that are to be lost.
struct FrameFilter {
  private var greetingLeft = 64
  private var waiting: [UInt8] = []
  /// What was decided about the message whose further frames follow.
  private var isLosing: Bool?
  private(set) var lost = 0

  /// Takes what was read and gives what to write; `loses` decides about each message that begins.
  mutating func pass(_ bytes: ArraySlice<UInt8>, loses: () -> Bool) -> [UInt8] {
    // Each side waits for the other's greeting, so it is passed on as it comes.
    let greeting = min(greetingLeft, bytes.count)
    greetingLeft -= greeting
    var passed = Array(bytes.prefix(greeting))
    waiting.append(contentsOf: bytes.dropFirst(greeting))
    var start = 0
    while let end = endOfFrame(from: start) {
      let flags = waiting[start]
      let isCommand = flags & 4 != 0
      let isLast = flags & 1 == 0
      let isLost = isCommand ? false : isLosing ?? loses()
      if !isCommand { isLosing = isLast ? nil : isLost }
      if isLost { lost += isLast ? 1 : 0 } else { passed.append(contentsOf: waiting[start..<end]) }
      start = end
    }
    waiting.removeFirst(start)
    return passed
  }

  /// Where the frame that begins at `start` ends; nil when it is not whole yet.
  private func endOfFrame(from start: Int) -> Int? {
    guard start + 2 <= waiting.count else { return nil }
    var size = Int(waiting[start + 1])
    var head = 2
    if waiting[start] & 2 != 0 {
      head = 9
      guard start + head <= waiting.count else { return nil }
      size = waiting[(start + 1)..<(start + 9)].reduce(0) { $0 << 8 | Int($1) }
    }
    return start + head + size <= waiting.count ? start + head + size : nil
  }
}
