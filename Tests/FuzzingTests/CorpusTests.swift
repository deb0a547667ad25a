// A short run of what `make fuzz` does at length.

import Base
import Foundation
import Testing

@testable import Fuzzing

/// One after the other: decoders of files share a place.
@Suite("Corpus", .serialized) struct CorpusTests {
  private static let corpus = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "Corpus").path(percentEncoded: false)

  @Test(arguments: try! allDecoders().map(\.name))
  func `mutated inputs are refused or taken, never a trap, and take no more memory than declared`(name: String) throws {
    let decoder = try #require(try allDecoders().first { $0.name == name })
    let seeds = try Corpus.read(decoder, from: Self.corpus)
    let outcome = try Campaign.run(decoder, corpus: seeds, inputs: 0..<1000, seed: 1)
    #expect(outcome.overLimit == [])
    #expect(outcome.inputs == 1000)
    // Were no input ever taken, only the first check of the decoder would be tried.
    #expect(outcome.accepted > 0)
  }

  @Test(arguments: try! allDecoders().map(\.name))
  func `the seeds in the corpus are read`(name: String) throws {
    let decoder = try #require(try allDecoders().first { $0.name == name })
    let decode = try decoder.make()
    for seed in try Corpus.read(decoder, from: Self.corpus) {
      let isTaken = decode(Blob(seed))
      #expect(isTaken || decoder.isConversation, "\(seed.count) bytes")
    }
  }
}
