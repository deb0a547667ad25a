// The part of `guira bench sync` that runs a real cluster: what it takes to bring many wide rows to two replicas, and how long
// a rollback takes beside shipping the rows that differ.

internal import Base
internal import CKernels
internal import Cluster

extension SyncBenchmark {
  /// Monolith's case: so many ids of so many numbers a minute, to two replicas.
  func measureShipping(_ series: inout Series) throws {
    let ids = (0..<settings.shippedRows).map { guira_stream_id(settings.seed, UInt64($0)) }
    for precision in Precision.allCases {
      progress("a cluster of rows with \(settings.shippedDimension) numbers as \(precision.rawValue)")
      let cluster = try BenchCluster(
        dimension: settings.shippedDimension, precision: precision, seed: settings.seed, executable: executable)
      // The first version makes the rows; those after it change them all, as a minute of training does.
      for run in 0...settings.shippedRuns {
        progress("shipping \(precision.rawValue): run \(run) of \(settings.shippedRuns)")
        let (before, sync, replica) = (
          try cluster.publishedBytes(), cluster.processorSeconds(.sync), cluster.processorSeconds(.replica)
        )
        try cluster.push(ids)
        let pushed = Clocks.monotonic()
        try cluster.waitUntilMerged()
        let merged = Clocks.monotonic()
        try cluster.publish()
        let served = Clocks.monotonic()
        guard run > 0 else { continue }
        let name = "ship.\(precision.rawValue)"
        series.add("\(name).megabytes", Double(try cluster.publishedBytes() - before) / 1e6, "MB")
        series.add("\(name).secondsAfterThePushes", Double(served - pushed) / 1e9, "s")
        series.add("\(name).secondsToPublishAndServe", Double(served - merged) / 1e9, "s")
        series.add(
          "\(name).syncPercentOfACore", (cluster.processorSeconds(.sync) - sync) / 60 * 100, "% at one a minute")
        series.add(
          "\(name).replicaPercentOfACore", (cluster.processorSeconds(.replica) - replica) / 60 * 100,
          "% at one a minute")
      }
    }
  }

  /// An hour of versions, one a minute, and the way back over all of them.
  func measureRollback(_ series: inout Series) throws {
    progress("a cluster to roll back")
    let cluster = try BenchCluster(
      dimension: settings.dimension, precision: settings.halfPrecision ? .float16 : .float32, seed: settings.seed,
      executable: executable)
    let count = settings.changed
    let ids = (0..<count).map { guira_stream_id(settings.seed, UInt64($0)) }
    try cluster.push(ids)
    try cluster.waitUntilMerged()
    try cluster.publish()
    for run in 1...settings.shippedRuns {
      try cluster.push(ids)
      try cluster.waitUntilMerged()
      let begin = Clocks.monotonic()
      let target = try cluster.publish()
      let shipping = Double(Clocks.monotonic() - begin) / 1e9
      progress("rollback: run \(run) of \(settings.shippedRuns)")
      let step = (count + 59) / 60
      for first in stride(from: 0, to: count, by: step) {
        try cluster.push(Array(ids[first..<min(count, first + step)]))
        try cluster.waitUntilMerged()
        try cluster.publish()
      }
      let order = Clocks.monotonic()
      try cluster.rollBack(to: target)
      let back = Double(Clocks.monotonic() - order) / 1e9
      series.add("rollback.shippingMilliseconds", shipping * 1e3, "ms")
      series.add("rollback.milliseconds", back * 1e3, "ms")
      series.add("rollback.timesShipping", back / shipping, "ratio")
      try cluster.resume()
    }
  }
}
