// `guira simulate`: whole clusters with faults on one thread and a virtual clock, each repeatable from its seed.

import ArgumentParser
import Cluster
import Simulation

struct Simulate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs simulated clusters with faults, each repeatable from its seed.",
    discussion: """
      The real cores of shards, trainers' clients, sync and replicas; network, disks, processes and clock are simulated.
      At the end every number must be exact and the replicas equal to the shards; else the exit code is 1, and the seed
      that failed is printed with what did not hold. A seed decides everything, the size of the cluster too.

      Examples:
        guira simulate --seed 1234
        guira simulate --seeds 1000-2000
      """)

  @Option(help: "The seed of one run.") var seed: UInt64?
  @Option(help: "A range of seeds, FIRST-LAST.", transform: Self.range) var seeds: ClosedRange<UInt64>?
  @Option(help: "Faults per run.") var faults: Int?
  @Option(help: "Examples per partition.") var records: Int?

  func validate() throws {
    guard (seed == nil) != (seeds == nil) else { throw ValidationError("Give --seed N or --seeds FIRST-LAST.") }
    guard faults ?? 0 >= 0, records ?? 1 >= 1 else {
      throw ValidationError("--faults must be 0 or more, --records 1 or more.")
    }
  }

  func run() throws {
    var total = Total()
    for seed in seeds ?? (seed ?? 0)...(seed ?? 0) {
      var options = SimulationOptions(seed: seed)
      if let faults { options.faults = faults }
      if let records { options.records = records }
      var simulation = Simulation(seed: seed, options: options)
      simulation.run()
      total.add(simulation)
      write(simulation.summary + "\n")
      guard !simulation.violations.isEmpty else { continue }
      let sizes = (faults.map { " --faults \($0)" } ?? "") + (records.map { " --records \($0)" } ?? "")
      for violation in simulation.violations { write("  \(violation)\n") }
      write("  again: guira simulate --seed \(seed)\(sizes)\n")
    }
    write(total.table)
    guard total.failed.isEmpty else {
      throw Failure(
        "a promise did not hold with \(total.failed.count) of \(total.runs) seeds: "
          + total.failed.map { "\($0)" }.joined(separator: ", "))
    }
  }

  /// What all runs together did and compared.
  private struct Total {
    var runs = 0
    var failed: [UInt64] = []
    var faults: [String: Int] = [:]
    var messages = 0
    var compared = Simulation.Compared()

    mutating func add(_ run: Simulation) {
      runs += 1
      if !run.violations.isEmpty { failed.append(run.seed) }
      faults.merge(run.faults) { $0 + $1 }
      messages += run.messages
      compared.rows += run.compared.rows
      compared.numbers += run.compared.numbers
      compared.tensors += run.compared.tensors
      compared.chains += run.compared.chains
    }

    var table: String {
      let faults = faults.sorted { $0.key < $1.key }
      let lines: [(String, Int)] =
        [("runs", runs), ("messages", messages)]
        + faults.map { ("fault: \($0.key)", $0.value) }
        + [
          ("compared: rows", compared.rows), ("compared: numbers", compared.numbers),
          ("compared: tensors", compared.tensors), ("compared: chains", compared.chains),
          ("seeds with a broken promise", failed.count),
        ]
      let width = (lines.map { $0.0.count }.max() ?? 0) + 2
      return lines.map { name, value in
        name + String(repeating: " ", count: width - name.count) + "\(value)\n"
      }.joined()
    }
  }

  private static func range(_ text: String) throws -> ClosedRange<UInt64> {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt64($0) }
    guard ends.count == 2, let first = ends[0], let last = ends[1], first <= last else {
      throw ValidationError("'\(text)' is no range FIRST-LAST.")
    }
    return first...last
  }
}
