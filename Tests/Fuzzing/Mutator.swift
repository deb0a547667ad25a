// Changes valid bytes in the ways that find careless decoders. Everything follows from the iteration's own seed.

import Base

/// Makes inputs from a few valid ones.
struct Mutator {
  private static let numbers: [UInt64] = [
    0, 1, 2, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 4096, 65535, 65536, 1 << 20, 1 << 22, 1 << 24, 1 << 30, 1 << 31,
    (1 << 32) - 1, 1 << 32, 1 << 61, 1 << 62, .max >> 1, 1 << 63, .max - 1, .max,
  ]

  /// One to four changes of one of the seeds.
  static func mutate(_ seeds: [[UInt8]], _ random: inout SeededRandom) -> [UInt8] {
    var bytes = seeds[Int(random.next() % UInt64(seeds.count))]
    for _ in 0..<1 + random.next() % 4 { change(&bytes, seeds, &random) }
    return bytes
  }

  private static func change(_ bytes: inout [UInt8], _ seeds: [[UInt8]], _ random: inout SeededRandom) {
    let draw = random.next()
    guard !bytes.isEmpty else {
      bytes = [UInt8(truncatingIfNeeded: draw)]
      return
    }
    let at = Int(random.next() % UInt64(bytes.count))
    switch draw % 12 {
    case 0, 1: bytes[at] ^= 1 << UInt8(draw >> 8 & 7)
    case 2: bytes[at] = UInt8(truncatingIfNeeded: draw >> 8)
    case 3: bytes.removeLast(bytes.count - at)
    case 4:
      bytes.append(contentsOf: repeatElement(UInt8(truncatingIfNeeded: draw >> 8), count: 1 + Int(draw >> 16 & 63)))
    case 5, 6, 7:
      // A number where numbers lie.
      let width = [1, 2, 4, 8][Int(draw >> 8 & 3)]
      put(numbers[Int((draw >> 16) % UInt64(numbers.count))], width: width, at: at / width * width, of: &bytes)
    case 8:
      // A number a little off.
      let width = [2, 4][Int(draw >> 8 & 1)]
      let start = at / width * width
      var number: UInt64 = 0
      for place in 0..<width where start + place < bytes.count { number |= UInt64(bytes[start + place]) << (8 * place) }
      put(number &+ (draw >> 16 & 7) &- 4, width: width, at: start, of: &bytes)
    case 9:
      let count = min(bytes.count - at, 1 + Int(draw >> 8 & 31))
      bytes.removeSubrange(at..<at + count)
    case 10:
      let count = min(bytes.count - at, 1 + Int(draw >> 8 & 31))
      bytes.insert(contentsOf: Array(bytes[at..<at + count]), at: at)
    default:
      // A piece of another seed.
      let other = seeds[Int((draw >> 8) % UInt64(seeds.count))]
      guard !other.isEmpty else { return }
      let from = Int((draw >> 20) % UInt64(other.count))
      let count = min(other.count - from, bytes.count - at, 1 + Int(draw >> 40 & 63))
      bytes.replaceSubrange(at..<at + count, with: other[from..<from + count])
    }
  }

  private static func put(_ number: UInt64, width: Int, at start: Int, of bytes: inout [UInt8]) {
    for place in 0..<width where start + place < bytes.count {
      bytes[start + place] = UInt8(truncatingIfNeeded: number >> UInt64(8 * place))
    }
  }
}
