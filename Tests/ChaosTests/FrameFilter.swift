// One direction of a ZMTP 3 connection, cut into frames, so that a proxy can harm whole messages as a bad link, a dying
// process or a full queue would. Commands of ZeroMQ's own, and the frames' heads, always pass as they are.

import Base

/// What can happen to one message.
enum Harm: Sendable, Equatable {
  /// It vanishes.
  case lose
  /// It comes twice.
  case twice
  /// It comes after the one that was sent next.
  case late
  /// The connection ends in the middle of it.
  case cut
  /// One bit of its body is another: of the byte that lies this far into it, from 0 to 1.
  case flip(Double)

  /// One of all kinds.
  static func any(using random: inout SeededRandom) -> Harm {
    switch Int.random(in: 0..<5, using: &random) {
    case 0: .lose
    case 1: .twice
    case 2: .late
    case 3: .cut
    default: .flip(random.uniform())
    }
  }

  var name: String {
    switch self {
    case .lose: "message lost"
    case .twice: "message repeated"
    case .late: "message overtaken"
    case .cut: "connection cut in a message"
    case .flip: "message damaged"
    }
  }
}

/// Passes the bytes of a ZeroMQ connection on, but for the messages that are to be harmed.
struct FrameFilter {
  private var greetingLeft = 64
  private var waiting: [UInt8] = []
  /// How many bytes of `waiting` are whole frames of a message whose last frame is not there yet.
  private var begun = 0
  /// A message that is passed on after the next one.
  private var held: [UInt8] = []
  /// The connection must end once what was passed on is written.
  private(set) var isCut = false
  private(set) var lost = 0

  /// Takes what was read and gives what to write; `harms` decides about each message once it is whole.
  mutating func pass(_ bytes: ArraySlice<UInt8>, harms: () -> Harm?) -> [UInt8] {
    guard !isCut else { return [] }
    // Each side waits for the other's greeting, so it is passed on as it comes.
    let greeting = min(greetingLeft, bytes.count)
    greetingLeft -= greeting
    var passed = Array(bytes.prefix(greeting))
    waiting.append(contentsOf: bytes.dropFirst(greeting))
    var start = 0
    while !isCut, let frame = frame(at: start + begun) {
      let flags = waiting[frame.lowerBound]
      if flags & 4 != 0 {
        passed += waiting[frame]
        start = frame.upperBound
      } else if flags & 1 != 0 {
        begun = frame.upperBound - start
      } else {
        let body = frame.lowerBound + (flags & 2 == 0 ? 2 : 9)
        pass(Array(waiting[start..<frame.upperBound]), body: body - start, harms(), into: &passed)
        start = frame.upperBound
        begun = 0
      }
    }
    waiting.removeFirst(start)
    return passed
  }

  private mutating func pass(_ message: [UInt8], body: Int, _ harm: Harm?, into passed: inout [UInt8]) {
    var after = held
    held = []
    switch harm {
    case nil: passed += message
    case .lose: lost += 1
    case .twice: passed += message + message
    case .late:
      // Two that are held would come in order again.
      held = message
      passed += after
      after = []
    case .cut:
      passed += message[..<(body + (message.count - body) / 2)]
      isCut = true
      return
    case .flip(let place):
      var damaged = message
      let at = body + Int(place * Double(message.count - body))
      if at < message.count { damaged[at] ^= 1 << UInt8(at % 8) }
      passed += damaged
    }
    passed += after
  }

  /// The frame that begins at `start`; nil when it is not whole yet.
  private func frame(at start: Int) -> Range<Int>? {
    guard start + 2 <= waiting.count else { return nil }
    var size = Int(waiting[start + 1])
    var head = 2
    if waiting[start] & 2 != 0 {
      head = 9
      guard start + head <= waiting.count else { return nil }
      size = waiting[(start + 1)..<(start + 9)].reduce(0) { $0 << 8 | Int($1) }
    }
    return start + head + size <= waiting.count ? start..<(start + head + size) : nil
  }
}
