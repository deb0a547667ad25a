// What is attacked: a decoder by name, how to feed it, and what it may allocate.

import Base

/// One decoder under attack.
struct Decoder {
  /// Its name; its seeds in `Tests/Corpus` begin with it.
  let name: String
  /// Valid inputs, made by our own encoders; what the corpus is written from.
  let seeds: () throws -> [[UInt8]]
  /// Makes a decoder without memory of earlier inputs; it answers whether it took one.
  let make: () throws -> (Blob) -> Bool
  /// Makes checksums fit again, so that what lies behind them is reached; half of the inputs get it.
  var seal: ((inout [UInt8]) -> Void)?
  /// Whether all inputs get it.
  var sealsAll = false
  /// The most bytes that may be allocated for an input of so many: the declared limit.
  var limit: (Int) -> Int = { 64 * $0 + (64 << 10) }
  /// Whether it takes a message or not depends on what came before.
  var isConversation = false
  /// How many inputs one state lives through.
  var life = 1000

  init(_ name: String, seeds: @escaping () throws -> [[UInt8]], make: @escaping () throws -> (Blob) -> Bool) {
    self.name = name
    self.seeds = seeds
    self.make = make
  }

  /// A decoder without state.
  init(_ name: String, seeds: @escaping () throws -> [[UInt8]], decode: @escaping (Blob) throws -> Void) {
    self.init(name, seeds: seeds) {
      { input in
        do {
          try decode(input)
          return true
        } catch { return false }
      }
    }
  }
}

extension Blob {
  var array: [UInt8] { bytes.withUnsafeBytes { Array($0) } }
}
