import Base
import Layers
import Testing

@Suite("Kernels") struct KernelTests {
  @Test(arguments: [(2, 1), (5, 3), (9, 8), (12, 11), (27, 16)])
  func `dot products of all pairs, and their gradients, at any size`(vectors: Int, dimension: Int) {
    var random = SeededRandom(seed: UInt64(vectors))
    var plan = Plan()
    let interaction = DotInteraction(vectors: vectors, dimension: dimension, plan: &plan)
    let (examples, offset) = (3, 2)
    let stride = offset + interaction.pairs + 1
    func numbers(_ count: Int) -> [Float] { (0..<count).map { _ in Float(random.uniform() - 0.5) } }
    let z = numbers(examples * vectors * dimension)
    var output = [Float](repeating: 7, count: examples * stride)
    var scratch = Scratch()
    var outputs = output.mutableSpan
    interaction.forward(z.span, examples: examples, scratch: &scratch, to: &outputs, stride: stride, offset: offset)
    let gradient = numbers(examples * stride)
    let before = numbers(z.count)
    var dz = before
    var target = dz.mutableSpan
    interaction.backward(
      gradient.span, stride: stride, offset: offset, z: z.span, examples: examples, scratch: &scratch,
      addingTo: &target)

    var expected = before.map { Double($0) }
    for example in 0..<examples {
      var place = example * stride + offset
      #expect(output[example * stride] == 7 && output[(example + 1) * stride - 1] == 7)
      for i in 0..<vectors {
        for j in 0..<i {
          let (a, b) = ((example * vectors + i) * dimension, (example * vectors + j) * dimension)
          var dot = 0.0
          for k in 0..<dimension {
            dot += Double(z[a + k]) * Double(z[b + k])
            expected[a + k] += Double(gradient[place]) * Double(z[b + k])
            expected[b + k] += Double(gradient[place]) * Double(z[a + k])
          }
          #expect(abs(Double(output[place]) - dot) < 1e-5)
          place += 1
        }
      }
    }
    for (a, b) in zip(dz, expected) { #expect(abs(Double(a) - b) < 1e-5) }
  }

  @Test func `the first NaN or infinity is found wherever it is`() {
    for count in [1, 7, 8, 9, 40] {
      let clean = [Float](repeating: 1, count: count)
      #expect(Gradients.firstNonFinite(in: clean) == nil)
      for position in 0..<count {
        for bad in [Float.nan, .infinity, -.infinity] {
          var values = clean
          values[position] = bad
          values[count - 1] = position == count - 1 ? bad : .nan
          #expect(Gradients.firstNonFinite(in: values) == position)
        }
      }
    }
    #expect(Gradients.firstNonFinite(in: []) == nil)
    #expect(Gradients.firstNonFinite(in: [Float.greatestFiniteMagnitude, -.greatestFiniteMagnitude]) == nil)
  }

  @Test func `clipping by norm takes all arrays as one vector`() {
    var gradients: [[Float]] = [[3, 0], [], [0, 4, 12]]
    #expect(Gradients.norm(gradients) == 13)
    Gradients.scale(&gradients, by: 0.5)
    #expect(gradients == [[1.5, 0], [], [0, 2, 6]])
  }
}
