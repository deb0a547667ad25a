// What a run did and what it found, as JSON and as a table to read.

import Base
import Foundation

/// The result of one run.
struct ChaosReport: Codable {
  /// A death at a named moment, and what the issue at hand calls it.
  struct Phase: Codable {
    var name: String
    var moment: String
    var kills: Int
  }

  var seed: UInt64 = 0
  var command = ""
  var events = ""
  var faultsWanted = 0
  /// By kind.
  var faults: [String: Int] = [:]
  /// Where processes were when they were killed.
  var phases: [Phase] = []
  var processesKilled = 0
  var restarts = 0
  var messagesLost = 0
  /// Trainers that another owner's claim, mostly a dead one's, made stop.
  var fencedTrainers = 0
  var endings: [String] = []
  var examples = 0
  /// Examples applied when the last fault was made, by the mean of shards and models.
  var examplesUnderFaults = 0
  var seconds = 0.0
  var restSeconds = 0.0
  /// As the shards answer after the last fault, and again after all were killed once more and read their disks.
  var served = Comparison()
  var recovered = Comparison()
  var replica = "not compared"

  /// Whether every number is exact.
  var isExact: Bool { served.differences + recovered.differences == 0 && served.numbers > 0 && replica == "equal" }

  var totalFaults: Int { faults.values.reduce(0, +) }

  static func phase(of point: FaultPoint) -> String {
    switch point {
    case .pushHalf, .pushApplied: "push"
    case .blockHalf, .blockWaiting, .blockTorn, .blockWritten: "block write"
    case .blockSyncing, .checkpointSyncing: "fsync"
    case .blockSynced, .acknowledgeHalf: "acknowledgement"
    case .claimTaken: "claim"
    case .checkpointHalf, .checkpointWritten: "checkpoint write"
    case .checkpointRenamed, .checkpointUnnamed, .checkpointPublished: "checkpoint rename"
    case .checkpointUnlisted, .checkpointPruned, .segmentUnnamed: "checkpoint clearing"
    case .sendHalf: "sending"
    case .pendingStored, .pendingSnapshot, .pendingNamed: "the joiner's store"
    }
  }

  var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
  }

  var table: String {
    func line(_ name: String, _ value: some CustomStringConvertible) -> String {
      "  " + name.padding(toLength: 50, withPad: " ", startingAt: 0) + "\(value)\n"
    }
    var text = "chaos, seed \(seed), events \(events)\n"
    text += "faults (\(totalFaults))\n"
    for (kind, count) in faults.sorted(by: { $0.key < $1.key }) { text += line(kind, count) }
    text += "where processes were when they were killed (\(processesKilled))\n"
    for phase in phases { text += line("\(phase.name): \(phase.moment)", phase.kills) }
    text += "run\n"
    text += line("restarts", restarts)
    text += line("messages the links lost", messagesLost)
    text += line("trainers fenced by the claim of a dead one", fencedTrainers)
    text += line("examples by each model: under faults, in all", "\(examplesUnderFaults), \(examples)")
    text += line("seconds with faults, until rest", String(format: "%.1f, %.1f", seconds, restSeconds))
    text += "compared: as served, and read back from disk\n"
    text += line("rows", "\(served.rows), \(recovered.rows)")
    text += line("numbers", "\(served.numbers), \(recovered.numbers)")
    text += line("counts of ids without a row", "\(served.idsWithoutRow), \(recovered.idsWithoutRow)")
    text += line("chains", "\(served.chains), \(recovered.chains)")
    text += line("replica and shards", replica)
    text += line("DIFFERENCES", "\(served.differences), \(recovered.differences)")
    for difference in (served.examples + recovered.examples) { text += "    \(difference)\n" }
    for ending in endings { text += "  unexpected: \(ending)\n" }
    return text
  }
}
