// Whole clusters with random faults. A seed that fails prints how to run it again.

import Foundation
import Testing

@testable import Simulation

@Suite("Simulation") struct SimulationTests {
  /// `GUIRA_SEEDS=1000-2000` tries others.
  static let seeds: ClosedRange<UInt64> = {
    let ends = ProcessInfo.processInfo.environment["GUIRA_SEEDS"]?.split(separator: "-").compactMap { UInt64($0) } ?? []
    return ends.count == 2 && ends[0] <= ends[1] ? ends[0]...ends[1] : 1...32
  }()

  @Test(arguments: seeds)
  func `no update is lost or applied twice, and replicas end up equal to the shards`(seed: UInt64) {
    var simulation = Simulation(seed: seed, options: SimulationOptions(seed: seed))
    simulation.run()
    let text = simulation.violations.joined(separator: "\n")
    #expect(simulation.violations.isEmpty, "\(simulation.summary)\nguira simulate --seed \(seed)\n\(text)")
  }
}
