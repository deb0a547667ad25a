// The ids a shard was told to forget, kept in a journal of their own for as long as the shard lives: a restore of an older
// state must not bring them back (DESIGN 3, "deletes that travel").

internal import Base

/// Ids of one table that were forgotten in one epoch.
struct ForgottenIDs: Equatable, Sendable {
  /// The epoch that was open then.
  var epoch: UInt64
  var table: String
  var ids: [UInt64]

  var encoded: Blob {
    var writer = ByteWriter(capacity: 64 + 8 * ids.count)
    writer.append(epoch)
    writer.append(string: table)
    writer.append(UInt32(ids.count))
    writer.align()
    writer.append(array: ids)
    return writer.finish()
  }

  init(epoch: UInt64, table: String, ids: [UInt64]) {
    self.epoch = epoch
    self.table = table
    self.ids = ids
  }

  init(_ record: ByteReader) throws(DecodeError) {
    var reader = record
    epoch = try reader.read()
    table = try reader.string()
    let count = try reader.count("ids", limit: Int(Int32.max))
    try reader.align()
    ids = try reader.view(UInt64.self, count: count).array
    try reader.expectEnd()
  }
}
