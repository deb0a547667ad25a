// Randomness that can be run again: everything random in Guira comes from a seed, but for names that must be unique.

/// xoshiro256** seeded by splitmix64.
///
/// Source: Blackman and Vigna 2018.
public struct SeededRandom: RandomNumberGenerator, Sendable {
  private var state: (UInt64, UInt64, UInt64, UInt64)

  /// A generator whose sequence depends on `seed` alone.
  public init(seed: UInt64) {
    var word = seed
    func next() -> UInt64 {
      defer { word &+= 0x9E37_79B9_7F4A_7C15 }
      return Hashing.mix(word)
    }
    state = (next(), next(), next(), next())
  }

  /// The next 64 random bits.
  public mutating func next() -> UInt64 {
    let result = Self.rotate(state.1 &* 5, 7) &* 9
    let shifted = state.1 &<< 17
    state.2 ^= state.0
    state.3 ^= state.1
    state.1 ^= state.2
    state.0 ^= state.3
    state.2 ^= shifted
    state.3 = Self.rotate(state.3, 45)
    return result
  }

  private static func rotate(_ word: UInt64, _ by: UInt64) -> UInt64 {
    (word &<< by) | (word &>> (64 &- by))
  }

  /// A uniform number in `0 ..< 1` with 53 bits.
  public mutating func uniform() -> Double {
    Double(next() >> 11) * 0x1p-53
  }
}
