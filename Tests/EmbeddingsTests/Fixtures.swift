// Small tables and the calls tests make on them.

import Base

@testable import Embeddings

/// A table's options with one segment, for tests that care about something else.
func options(
  _ rule: OptimizerOptions.Rule = .sgd, width: Int = 2, rate: Float = 0.5, admission: Admission = .always,
  initializer: Initializer = .uniform(1)
) -> TableOptions {
  let segment = Segment(
    name: "vector", width: width, initializer: initializer,
    optimizer: OptimizerOptions(rule: rule, learningRate: rate))
  return TableOptions(name: "item", seed: 7, segments: [segment], admission: admission, defaultWeight: -7)
}

extension Table {
  /// Pulls some ids, each seen `sightings` times.
  func pull(_ ids: [UInt64], sightings: UInt32 = 1, at time: Milliseconds = 0) -> [Float] {
    var weights = [Float](repeating: .nan, count: ids.count * weightCount)
    var span = weights.mutableSpan
    pull(
      ids: ids.span, sightings: Array(repeating: sightings, count: ids.count).span, eventTime: time, into: &span)
    return weights
  }

  /// Pushes the same gradient for every weight of every id.
  @discardableResult mutating func push(
    _ ids: [UInt64], gradient: Float = 1, sightings: UInt32 = 1, at time: Milliseconds = 0
  ) -> PushCounts {
    push(ids, gradients: [Float](repeating: gradient, count: ids.count * weightCount), sightings: sightings, at: time)
  }

  @discardableResult mutating func push(
    _ ids: [UInt64], gradients: [Float], sightings: UInt32 = 1, at time: Milliseconds = 0
  ) -> PushCounts {
    push(
      ids: ids.span, sightings: Array(repeating: sightings, count: ids.count).span, gradients: gradients.span,
      eventTime: time)
  }

  /// The sections of one whole cut, in slices of `rows`.
  mutating func cut(rows: Int = 100) -> [Blob] {
    var sections: [Blob] = []
    var writer = ByteWriter()
    while copyCut(rows: rows, into: &writer) { sections.append(writer.take()) }
    return sections
  }

  /// A whole scan, in slices of `rows`.
  func scan(rows: Int = 100) -> [Blob] {
    var sections: [Blob] = []
    var writer = ByteWriter()
    var cursor = TableCursor()
    while scan(cursor: &cursor, rows: rows, into: &writer) { sections.append(writer.take()) }
    return sections
  }

  mutating func apply(_ sections: [Blob]) throws {
    for section in sections {
      var reader = ByteReader(section)
      try apply(section: &reader)
      try reader.expectEnd()
    }
  }
}
