// The ids a shard was told to forget, kept in a journal of their own for as long as the shard lives: a restore of an older
// state must not bring them back (DESIGN 3, "deletes that travel").

package import Base
internal import Journal
package import Wire

/// Ids of one table that were forgotten in one epoch.
package struct ForgottenIDs: Equatable, Sendable {
  /// How far a chain had been applied.
  package struct Chain: Equatable, Sendable, BitwiseCopyable {
    var key: ChainKey
    var applied: Position

    package init(key: ChainKey, applied: Position) {
      self.key = key
      self.applied = applied
    }
  }

  /// The epoch that was open then.
  var epoch: UInt64
  var table: String
  var ids: [UInt64]
  /// The chains of then: what they had sent must not bring the ids back when it is sent again.
  var chains: [Chain]

  package var encoded: Blob {
    var writer = ByteWriter(capacity: 64 + 8 * ids.count + 40 * chains.count)
    writer.append(epoch)
    writer.append(string: table)
    writer.append(UInt32(ids.count))
    writer.align()
    writer.append(array: ids)
    writer.append(UInt64(chains.count))
    writer.append(array: chains)
    return writer.finish()
  }

  package init(epoch: UInt64, table: String, ids: [UInt64], chains: [Chain] = []) {
    self.epoch = epoch
    self.table = table
    self.ids = ids
    self.chains = chains
  }

  package init(_ record: ByteReader) throws(DecodeError) {
    var reader = record
    epoch = try reader.read()
    table = try reader.string()
    let count = try reader.count("ids", limit: Int(Int32.max))
    try reader.align()
    ids = try reader.view(UInt64.self, count: count).array
    let chainCount = try reader.read(UInt64.self)
    guard chainCount <= UInt64(ShardCore.chainLimit) else {
      throw .invalid(field: "chains", value: "\(chainCount)", expected: "at most \(ShardCore.chainLimit)")
    }
    chains = try reader.view(Chain.self, count: Int(chainCount)).array
    try reader.expectEnd()
  }

  /// All that a shard was told to forget, oldest first; the caller holds the shard's directory.
  ///
  /// The journal is first opened to write: readers trust its head, which a power failure may leave behind its records.
  static func all(
    in files: ShardFiles, acceptLoss: Bool = false
  ) throws -> (forgotten: [ForgottenIDs], losses: [String]) {
    guard Files.exists(files.forgotten) else { return ([], []) }
    let losses: [String]
    do throws(JournalError) {
      let kept = JournalBox(try JournalWriter(directory: files.forgotten, acceptLoss: acceptLoss))
      losses = kept.writer.recovery.acceptedLosses.map(Self.words)
    } catch {
      guard case .damaged(let damage) = error else { throw error }
      throw RecoveryError(description: Self.words(damage))
    }
    return (try records(of: files), losses)
  }

  /// The same for a shard that may be running, whose writer keeps the head current.
  static func read(in files: ShardFiles) throws -> [ForgottenIDs] {
    do { return try all(in: files).forgotten } catch JournalError.locked {
      return try records(of: files)
    }
  }

  private static func records(of files: ShardFiles) throws -> [ForgottenIDs] {
    var reader = try JournalReader(directory: files.forgotten, from: 0)
    var forgotten: [ForgottenIDs] = []
    while let record = try reader.next() { forgotten.append(try ForgottenIDs(record.payload)) }
    return forgotten
  }

  private static func words(_ damage: JournalDamage) -> String {
    "\(damage). It holds the ids that were forgotten: those of the lost records can come back with an older checkpoint; "
      + "forget them again. A start of the shard with --accept-loss gives them up"
  }
}
