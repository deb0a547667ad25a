// Runs one decoder over many inputs. Each input follows from the seed and its number, so what a crash names can be run
// again alone.

import Base
import Glibc
import Synchronization

/// What became of a decoder's inputs.
struct Outcome {
  var inputs = 0
  var accepted = 0
  /// The most bytes allocated for one input, and how many bytes that input had.
  var largest = (allocated: 0, input: 0)
  /// Inputs for which more than the limit was allocated, in words; the first few.
  var overLimit: [String] = []
  var seconds = 0.0
  /// The input that took longest, and how many milliseconds.
  var slowest = (input: 0, milliseconds: 0.0)
}

/// Runs decoders.
enum Campaign {
  /// The number of the input under way, for those who report a crash.
  static let current = Atomic<Int>(0)

  static func run(_ decoder: Decoder, corpus: [[UInt8]], inputs range: Range<Int>, seed: UInt64) throws -> Outcome {
    var outcome = Outcome()
    let began = Clocks.monotonic()
    let counts = Allocation.isCounted
    var decode = try decoder.make()
    // What was taken, with its changes, is changed further; forgotten with the state.
    var pool = corpus
    var before = began
    for number in range {
      if number % decoder.life == 0, number != range.lowerBound {
        decode = try decoder.make()
        pool = corpus
      }
      current.store(number, ordering: .relaxed)
      var random = SeededRandom(seed: Hashing.mix(seed ^ Hashing.mix(UInt64(number))))
      var bytes = Mutator.mutate(pool, &random)
      if let seal = decoder.seal, random.next() & 1 == 0 || decoder.sealsAll { seal(&bytes) }
      let input = Blob(bytes)
      var isTaken = false
      if counts {
        let allocated = Allocation.count { isTaken = decode(input) }
        if allocated > outcome.largest.allocated { outcome.largest = (allocated, bytes.count) }
        if allocated > decoder.limit(bytes.count), outcome.overLimit.count < 5 {
          outcome.overLimit.append(
            "input \(number) of \(bytes.count) bytes: \(allocated) allocated, \(decoder.limit(bytes.count)) allowed")
        }
      } else {
        isTaken = decode(input)
      }
      let now = Clocks.monotonic()
      if Double(now - before) / 1e6 > outcome.slowest.milliseconds {
        outcome.slowest = (number, Double(now - before) / 1e6)
      }
      before = now
      outcome.inputs += 1
      guard isTaken else { continue }
      outcome.accepted += 1
      if bytes.count <= 1 << 14, pool.count < corpus.count + 24, random.next() % 8 == 0 { pool.append(bytes) }
    }
    outcome.seconds = Double(Clocks.monotonic() - began) / 1e9
    return outcome
  }
}
