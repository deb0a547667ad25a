// The numbers every table and tensor must hold, added up from the examples on disk and from nothing else.

import Base
import Cluster
import Layers
import Streams

/// What one id must have come to.
struct TallyRow: Equatable {
  var sightings = 0
  var sums = [Int](repeating: 0, count: ChaosOptions.dimension)
}

/// What a cluster that loses nothing and repeats nothing holds.
struct Tally {
  /// Per table of the cluster: its ids.
  var tables: [[UInt64: TallyRow]]
  /// Per model: the tensor `counts`.
  var counts: [[Int]]
  /// Per partition: examples.
  var examples: [Int]

  /// Adds up the examples of all partitions.
  init(root: String, plan: ClusterPlan) throws {
    let schema = plan.configuration.eventSchema
    tables = plan.tables.map { _ in [:] }
    counts = plan.models.map { _ in [Int](repeating: 0, count: ChaosOptions.dimension) }
    examples = []
    for partition in 0..<plan.configuration.streams.examples.partitions {
      let location = StreamLocation(root: root, stream: .examples, partition: partition)
      let source = try JournalSource(location, consumer: "tally")
      examples.append(0)
      while let record = try source.next() {
        var reader = record.reader
        let example = try Example(decoding: &reader)
        let identity = CountingModelSums.identity(partition: partition, end: record.position)
        let addends = (0..<ChaosOptions.dimension).map { CountingModelSums.addend(of: identity, column: $0) }
        add(try example.features.values(of: schema), addends, plan)
        examples[partition] += 1
      }
    }
  }

  private mutating func add(_ values: [FeatureValue], _ addends: [Int], _ plan: ClusterPlan) {
    let names = plan.configuration.eventSchema.features.map(\.name)
    for (index, model) in plan.models.enumerated() {
      for column in addends.indices { counts[index][column] += addends[column] }
      for feature in model.options.features {
        guard let place = names.firstIndex(of: feature.name), case .ids(let ids) = values[place] else { continue }
        let table = model.tableIndex[feature.table]
        let isCounted = plan.tables[table].admission == .count(ChaosOptions.threshold)
        for id in ids {
          var row = tables[table].removeValue(forKey: id) ?? TallyRow()
          row.sightings += 1
          // The push that admits an id at a later sighting than the first drops its gradient.
          if !isCounted || row.sightings > ChaosOptions.threshold {
            for column in addends.indices { row.sums[column] += addends[column] }
          }
          tables[table][id] = row
        }
      }
    }
  }
}
