// How far one version of the user tower moves users, measured on the same inputs. Pure.

/// The shift between the outputs of two versions for the same users.
public struct SnapshotShift: Sendable, Equatable {
  /// Mean over users of the cosine between the old vector and the new one; 1 = nothing moved.
  public var meanCosine: Double
  /// Mean over users of ‖new − old‖ / ‖old‖.
  public var l2Ratio: Double
  /// How many users were compared.
  public var users: Int

  /// Compares row by row.
  ///
  /// - Parameters:
  ///   - old: `[users × width]`.
  ///   - new: the same users in the same order.
  ///   - width: numbers per user.
  public init(old: [Float], new: [Float], width: Int) {
    precondition(old.count == new.count && width > 0, "\(old.count) and \(new.count) numbers in rows of \(width)")
    var (cosine, ratio) = (0.0, 0.0)
    users = old.count / width
    for user in 0..<users {
      var (product, oldSquares, newSquares, difference) = (0.0, 0.0, 0.0, 0.0)
      for index in user * width..<(user + 1) * width {
        let (a, b) = (Double(old[index]), Double(new[index]))
        product += a * b
        oldSquares += a * a
        newSquares += b * b
        difference += (a - b) * (a - b)
      }
      let length = (oldSquares * newSquares).squareRoot()
      cosine += length > 0 ? product / length : (oldSquares == newSquares ? 1 : 0)
      ratio += oldSquares > 0 ? (difference / oldSquares).squareRoot() : (newSquares > 0 ? 1 : 0)
    }
    meanCosine = users > 0 ? cosine / Double(users) : 1
    l2Ratio = users > 0 ? ratio / Double(users) : 0
  }
}

/// Decides which versions the compute centre works with.
///
/// Some users' inputs are kept; when a version comes, what it makes of them is compared with what the last accepted version
/// made of them. A version that moves them too far is held back: nothing is worked out with it, and reads go on from
/// stored entries, until a later version is near enough again.
public struct SnapshotGate: Sendable {
  private let width: Int
  /// Largest 1 − mean cosine that is let through; nil for all.
  private let limit: Double?
  private var accepted: [Float] = []
  /// The last version that was let through; 0 for none.
  public private(set) var acceptedVersion: UInt64 = 0
  /// The version that is held back; nil when none is.
  public private(set) var heldVersion: UInt64?
  /// The shift of the last version that was compared.
  public private(set) var shift: SnapshotShift?
  /// How many versions were held back.
  public private(set) var heldCount = 0

  /// A gate for vectors of `width` numbers.
  public init(width: Int, holdAbove limit: Double?) {
    self.width = width
    self.limit = limit
  }

  /// Compares a version's vectors of the kept users; gives whether it may be used.
  ///
  /// - Parameter vectors: `[users × width]`; users may have been added at the end since the last version.
  public mutating func admit(version: UInt64, vectors: [Float]) -> Bool {
    let shared = min(accepted.count, vectors.count)
    if shared > 0 {
      let shift = SnapshotShift(old: Array(accepted[..<shared]), new: Array(vectors[..<shared]), width: width)
      self.shift = shift
      if let limit, 1 - shift.meanCosine > limit {
        if heldVersion != version { heldCount += 1 }
        heldVersion = version
        return false
      }
    }
    accepted = vectors
    acceptedVersion = version
    heldVersion = nil
    return true
  }

  /// Adds what the accepted version makes of users that are kept from now on, `[new users × width]`.
  mutating func extend(_ vectors: ArraySlice<Float>) { accepted += vectors }
}
