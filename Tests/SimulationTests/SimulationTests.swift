// Whole clusters with random faults. A seed that fails prints how to run it again.

import Testing

@testable import Simulation

@Suite("Simulation") struct SimulationTests {
  @Test(arguments: 1...32 as ClosedRange<UInt64>)
  func `no update is lost or applied twice, and replicas end up equal to the shards`(seed: UInt64) {
    var options = SimulationOptions()
    options.halfPrecision = seed % 3 == 0
    options.retainedBytes = seed % 5 == 0 ? 4_000 : 1 << 20
    options.shards = 1 + Int(seed % 3)
    var simulation = Simulation(seed: seed, options: options)
    simulation.run()
    print(simulation.summary)
    let text = simulation.violations.joined(separator: "\n")
    #expect(simulation.violations.isEmpty, "guira simulate --seed \(seed)\n\(text)")
  }
}
