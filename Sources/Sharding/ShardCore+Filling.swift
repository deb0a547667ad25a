// Rows from nowhere, for benchmarks: as if pushes long ago had made them and their blocks were all synced.

internal import Base
internal import Embeddings

extension ShardCore {
  /// Makes the rows of `count` ids that have none, unstamped and in no block.
  package mutating func fill(table: Int, count: Int, id: (Int) -> UInt64) {
    let width = tables[table].shape.weightCount
    let batch = 4096
    let gradients = [Float](repeating: 0.01, count: batch * width)
    for start in stride(from: 0, to: count, by: batch) {
      let ids = (start..<min(start + batch, count)).map(id)
      tables[table].table.push(
        ids: ids.span, sightings: Span(), gradients: gradients.span.extracting(first: ids.count * width), eventTime: 0)
      guard start / batch % 32 == 31 || start + batch >= count else { continue }
      tables[table].table.closeEpoch()
      var writer = ByteWriter()
      while tables[table].table.copyCut(rows: 1024, into: &writer) { writer.clear() }
    }
  }
}
