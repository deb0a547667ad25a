import Base
import Layers
import Testing

@Suite("User model") struct ScalingUserModelTests {
  @Test(arguments: ExtractorKind.allCases)
  func `gradients equal central differences with one extractor alone`(extractor: ExtractorKind) throws {
    for tokens in [[], [3]] {
      try Problem(kind: "sum", seed: 21, examples: 3) { options in
        options.userModel.extractors = [extractor]
        options.hidden = [4]
        options.bottom = [3]
        options.crossLayers = 2
        options.userModel.userTokens = tokens
        options.userModel.mixTokens = [2]
        options.userModel.mixtures = 3
      }.expectGradientsMatch()
    }
  }

  @Test(arguments: [false, true])
  func `gradients equal central differences with all extractors`(isFull: Bool) throws {
    var problem = try Problem(
      kind: "sum", seed: 11, examples: 3, denseWidth: isFull ? 3 : 0, listCombiner: isFull ? .attention : .mean
    ) { options in
      options.layerNorm = isFull
      options.dropout = isFull ? 0.3 : 0
      options.hidden = [4]
      options.bottom = [3]
      options.crossLayers = 1
      options.userModel.userTokens = []
    }
    problem.dropoutSeed = 5
    problem.expectGradientsMatch()
  }

  @Test func `nothing of the user reaches the mix tower but through the embeddings`() throws {
    var problem = try Problem(kind: "sum", seed: 22)
    let model = try #require(problem.model as? any UserModel)
    #expect(model.userFeatures == [0, 1])
    // With the user tower's last normalisation at zero every embedding is its shift, whoever the user is.
    for (index, tensor) in model.denseTensors.enumerated() where tensor.name == "user.1.norm.scale" {
      problem.dense[index] = problem.dense[index].map { _ in 0 }
    }
    var scratch = Scratch()
    let before = problem.logits(&scratch)
    var other = problem
    other.rows[0] = problem.rows[0].map { $0 + 1 }
    other.batch.features[0].rows = problem.batch.features[0].rows.reversed()
    other.batch.features[1].rows = problem.batch.features[1].rows.map { 3 - $0 }
    for example in 0..<problem.batch.exampleCount { other.batch.dense[example * 3 + 1] += 5 }
    #expect(other.logits(&scratch) == before)
    let (rowGradients, denseGradients) = problem.gradients()
    #expect(rowGradients[0].allSatisfy { $0 == 0 })
    for (tensor, gradient) in zip(model.denseTensors, denseGradients)
    where tensor.name.hasPrefix("user.") && !tensor.name.hasPrefix("user.1.norm") {
      #expect(gradient.allSatisfy { $0 == 0 }, "\(tensor.name)")
    }
    // The others do reach it.
    other = problem
    other.batch.dense[0] += 5
    #expect(other.logits(&scratch)[..<3] != before[..<3])
    other = problem
    other.batch.features[2].rows = problem.batch.features[2].rows.map { 3 - $0 }
    #expect(other.logits(&scratch) != before)
  }

  @Test func `embeddings need the user's features alone, and the logits follow from them`() throws {
    let problem = try Problem(kind: "sum", seed: 23)
    let model = try #require(problem.model as? any UserModel)
    var scratch = Scratch()
    var whole: [Float] = []
    model.embed(problem.batch, rows: problem.rows, dense: problem.dense, scratch: &scratch, embeddings: &whole)
    #expect(whole.count == 5 * 2 * 8)
    var alone = problem.batch
    for feature in [2, 3] {
      alone.features[feature] = FeatureColumn(table: feature - 1, offsets: [0, 0, 0, 0, 0, 0], rows: [])
    }
    for example in 0..<5 { alone.dense[example * 3] = .nan }
    var embeddings: [Float] = []
    model.embed(alone, rows: problem.rows, dense: problem.dense, scratch: &scratch, embeddings: &embeddings)
    #expect(embeddings == whole)
    alone.features[0].rows[0] = 3 - alone.features[0].rows[0]
    model.embed(alone, rows: problem.rows, dense: problem.dense, scratch: &scratch, embeddings: &embeddings)
    #expect(embeddings[..<16] != whole[..<16])
    #expect(embeddings[16...] == whole[16...])
  }

  @Test func `what does not fit is told by its key`() throws {
    var options = ModelOptions(
      kind: "sum", features: [ModelFeature(name: "user", table: 0), ModelFeature(name: "item", table: 1)],
      tasks: [ModelTask(name: "click")])
    options.userModel.features = ["usr"]
    options.userModel.embeddingDimension = 12
    options.userModel.mixTokens = []
    options.userModel.extractors = [.mlp, .mlp]
    #expect(
      options.problems() == [
        "model.users.features names 'usr', which the model does not read; use some of its features",
        "model.users.features names no feature of the user; name those that say who somebody is or what they did",
        "model.users.embeddingDimension is 12; use a multiple of model.dimension up to 4096",
        "model.users.mixTokens is empty; name at least one number of tokens",
        "model.users.extractors is empty or names one twice; use some of: mlp, attention, dcn, mixer",
      ])
    options.userModel = UserModelOptions()
    options.userModel.features = ["user", "item"]
    #expect(
      options.problems() == [
        "model.users.features names every feature; leave the mix tower at least one, such as the item"
      ])
    options.userModel.features = ["user"]
    #expect(try makeModel(options).denseTensors.count > 40)
  }
}
