// Plots and scales.

import Foundation
import Testing

@testable import Experiments

@Suite("Plot") struct PlotTests {
  @Test func `a scale has round marks around all values`() {
    let scale = Scale([0.7223, 0.7281])
    #expect(scale.low <= 0.7223 && scale.high >= 0.7281)
    #expect(scale.ticks.count >= 3 && scale.ticks.count <= 8)
    #expect(scale.format == "%.3f")
  }

  @Test func `a value that is all there is has a scale too`() {
    let scale = Scale([0.5])
    #expect(scale.low <= 0.5 && scale.high > scale.low)
    #expect(Scale([]).high > 0)
  }

  @Test func `words of a plot are escaped, and gaps begin a new line`() {
    let plot = Plot(
      title: "a < b & c", across: "x", up: "y", labels: ["1", "2", "3"],
      series: [Plot.Series(name: "s", values: [1, nil, 2])])
    #expect(plot.svg.contains("a &lt; b &amp; c"))
    #expect(plot.svg.components(separatedBy: "<circle").count == 3)
    #expect(plot.svg.contains("M") && !plot.svg.contains("L"))
  }
}
