import Base
import Foundation
import Streams
import Testing
import Wire

@testable import Serving
@testable import UserModeling

/// The platform with two downstream models that wait for versions, and one that does not.
@Suite("Versions served to models") struct ServingToModelsTests {
  private static let consumer = Hashing.xxh3("feed")

  private func soap(
    _ fixture: Fixture, store: any FeatureStore = MemoryStore(), file: ServedFile? = nil,
    examples: UInt64 = 3, now: Milliseconds = 10_000, _ adjust: (inout SoapOptions) -> Void = { _ in }
  ) throws -> Soap {
    try fixture.soap(
      store: store, servedFile: file,
      {
        $0.downstream = ["feed", "ads", "other"]
        $0.seen = SeenOptions(
          models: ["feed", "ads"].map { DownstreamModel(name: $0, windowMilliseconds: 1000) }, examples: examples,
          share: 0.2)
        adjust(&$0)
      }, now: now)
  }

  private func users(_ soap: Soap, early: Bool) -> [UInt64] {
    (0..<99 as Range<UInt64>).filter { user in soap.seen.withLock { $0?.isEarly(user) } == early }
  }

  /// Loads a version and works some users out with it.
  private func work(
    _ soap: Soap, _ fixture: Fixture, _ version: UInt64, _ users: [UInt64], at time: Milliseconds, store: UInt64 = 77
  ) throws {
    soap.versionComes(version, of: store)
    for model in ["feed", "ads"] {
      soap.modelProgressed(consumer: Hashing.xxh3(model), examples: 0, watermark: .min)
    }
    try fixture.load(version: version, seed: version)
    soap.offer(users.map { Fixture.request($0, at: time) })
    while soap.workOnce() {}
  }

  @Test func `early users read a version first, others once the model was trained on enough of their answers`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture)
    let (early, late) = (users(soap, early: true), users(soap, early: false)[0])
    try work(soap, fixture, 3, early + [late], at: 5000)
    let feed = try soap.audience(["feed"])
    #expect(try soap.vectors(of: early, for: feed).allSatisfy { $0.source == .current && $0.version == 3 })
    let withheld = try soap.vectors(of: [late, 500], for: feed)
    #expect(withheld.map(\.source) == [.default, .default] && withheld.map(\.isWithheld) == [true, false])
    // Nobody in particular, and a model that does not wait, are answered with the newest.
    #expect(try soap.vectors(of: [late])[0].version == 3)
    #expect(try soap.vectors(of: [late], for: soap.audience(["other"]))[0].version == 3)
    #expect(soap.status.withheldReads == 1)

    // The answers were of the time of the clock here, 10,000, and wait for its examples.
    soap.modelProgressed(consumer: Self.consumer, examples: 100, watermark: 11_000)
    #expect(try soap.vectors(of: [late], for: feed)[0].isWithheld)
    soap.modelProgressed(consumer: Self.consumer, examples: 100, watermark: 11_100)
    #expect(try soap.vectors(of: [late], for: feed)[0].source == .current)
    #expect(try soap.vectors(of: [late], for: soap.audience(["ads"]))[0].isWithheld)
    #expect(try soap.vectors(of: [late], for: soap.audience(["ads", "feed"]))[0].isWithheld)
    #expect(try soap.vectors(of: [late], for: soap.audience(["other", "feed", "feed"]))[0].version == 3)
    #expect(soap.status.seen.map(\.served) == [3, 0])
  }

  @Test func `one answer fewer than are needed serves nothing`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture, examples: 8)
    let early = users(soap, early: true)[0]
    try work(soap, fixture, 3, [early], at: 5000)
    let feed = try soap.audience(["feed"])
    func count() { soap.modelProgressed(consumer: Self.consumer, examples: 100, watermark: 50_000) }
    _ = try soap.vectors(of: [UInt64](repeating: early, count: 7), for: feed)
    // What was at an earlier time, and what is for nobody in particular, is shown to no model.
    _ = try soap.vectors(of: [early], asOf: 9_999, for: feed)
    _ = try soap.vectors(of: [early])
    count()
    #expect(soap.status.seen[0].served == 0 && soap.status.seen[0].examples == 7)
    _ = try soap.vectors(for: [Fixture.request(early, at: 4000)], audience: feed)
    count()
    #expect(soap.status.seen[0].served == 3)
  }

  @Test func `no entry of a version that is not served goes into a pooled answer`() throws {
    let fixture = try Fixture()
    let store = MemoryStore()
    let soap = try soap(fixture, store: store, examples: 1)
    let (early, late) = (users(soap, early: true)[0], users(soap, early: false)[0])
    let feed = try soap.audience(["feed"])
    var expected: [Milliseconds: [Float]] = [:]
    for version in 1...12 as ClosedRange<UInt64> {
      let time = Int64(version) * 100
      try work(soap, fixture, version, [early, late], at: time)
      expected[time] = try #require(store.entries(of: [late], asOf: nil)[0].first).values
      // Versions 1, 4, 8 are seen; of the last one a user of the store's four entries would have none left.
      if [1, 4, 8].contains(version) {
        _ = try soap.vectors(for: [Fixture.request(early, at: time)], audience: feed)
        soap.modelProgressed(consumer: Self.consumer, examples: version * 10, watermark: 50_000)
      }
      let served = try #require([8, 4, 1].first { $0 <= version })
      let answer = try soap.vectors(of: [late], for: feed)[0]
      #expect(answer.version == served)
      let pooled = (1...served).suffix(answer.source == .current ? 3 : 2).compactMap { expected[Int64($0) * 100] }
      #expect(answer.pooled == pooled.count)
      for place in answer.values.indices {
        let mean = pooled.reduce(0) { $0 + $1[place] } / Float(pooled.count)
        #expect(abs(answer.values[place] - mean) < 1e-5)
      }
    }
  }

  @Test func `what is served does not go back with a restart, nor when another store begins`() throws {
    let fixture = try Fixture()
    let store = MemoryStore()
    let path = try Fixture.directory() + "/served.json"
    let (early, late): (UInt64, UInt64)
    do {
      let soap = try soap(fixture, store: store, file: ServedFile(path), examples: 1)
      (early, late) = (users(soap, early: true)[0], users(soap, early: false)[0])
      try work(soap, fixture, 3, [early, late], at: 5000)
      let feed = try soap.audience(["feed"])
      _ = try soap.vectors(of: [early], for: feed)
      soap.modelProgressed(consumer: Self.consumer, examples: 10, watermark: 50_000)
      try work(soap, fixture, 4, [early, late], at: 5001)
      #expect(try soap.vectors(of: [late], for: feed)[0].version == 3)
    }
    do {
      let soap = try soap(fixture, store: store, file: ServedFile(path), examples: 1, now: 20_000)
      let feed = try soap.audience(["feed"])
      soap.versionComes(4, of: 77)
      #expect(try soap.vectors(of: [late], for: feed)[0].version == 3)
      #expect(try soap.vectors(of: [early], for: feed)[0].version == 4)
      // Sync begins anew: what is made from now on has smaller numbers and is not seen.
      try work(soap, fixture, 1, [early, late], at: 5002, store: 78)
      #expect(try soap.vectors(of: [late], for: feed)[0].version == 3)
    }
    let soap = try soap(fixture, store: store, file: ServedFile(path), examples: 1, now: 30_000)
    soap.versionComes(2, of: 78)
    #expect(try soap.vectors(of: [late], for: soap.audience(["feed"]))[0].version == 3)
    #expect(soap.status.seen[0].served == 0)
  }

  @Test func `what was made before the setting was turned on is served`() throws {
    let fixture = try Fixture()
    let store = MemoryStore()
    store.write([EmbeddingWrite(user: 7, entry: Fixture.entry(1, at: 1, version: 50, madeAt: 9_999))])
    let soap = try soap(fixture, store: store)
    soap.versionComes(51, of: 77)
    #expect(try soap.vectors(of: [7], for: soap.audience(["ads", "feed"]))[0].version == 50)
  }

  @Test func `a file that says nothing usable is refused by its path`() throws {
    let fixture = try Fixture()
    let path = try Fixture.directory() + "/served.json"
    for text in [
      "", "[]", "{\"format\":2,\"models\":{}}", "{\"format\":1,\"models\":{\"feed\":{\"numberings\":[]}}}",
      "{\"format\":1,\"models\":{\"feed\":{\"numberings\":[{\"from\":5,\"store\":1,\"version\":1},"
        + "{\"from\":4,\"store\":1,\"version\":1}]}}}",
    ] {
      try Files.replace(path, with: Array(text.utf8))
      let error = #expect(throws: SoapError.self) { try soap(fixture, file: ServedFile(path)) }
      #expect("\(try #require(error))".hasPrefix("\(path): is not what guira soap writes"), "\(text)")
    }
  }

  @Test func `what cannot be written down is not served, and is tried again`() throws {
    let fixture = try Fixture()
    let directory = try Fixture.directory() + "/soap"
    try Files.makeDirectory(directory)
    let soap = try soap(fixture, file: ServedFile(directory + "/served.json"), examples: 1)
    let early = users(soap, early: true)[0]
    try work(soap, fixture, 3, [early], at: 5000)
    _ = try soap.vectors(of: [early], for: soap.audience(["feed"]))
    try Files.remove(directory)
    soap.modelProgressed(consumer: Self.consumer, examples: 10, watermark: 50_000)
    #expect(soap.status.seen[0].served == 0 && soap.status.problem.contains("served.json"))
    try Files.makeDirectory(directory)
    soap.modelProgressed(consumer: Self.consumer, examples: 10, watermark: 50_000)
    #expect(soap.status.seen[0].served == 3 && soap.status.problem == "")
  }

  @Test func `a frozen user whose entry is withheld is not worked out again`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture) { $0.mode = .frozen }
    let late = users(soap, early: false)[0]
    try work(soap, fixture, 3, [late], at: 5000)
    _ = try soap.vectors(for: [Fixture.request(late, at: 6000)], audience: soap.audience(["feed"]))
    #expect(!soap.workOnce())
  }

  @Test func `over HTTP a request says which models an answer is for, and unknown ones are refused by name`() throws {
    let fixture = try Fixture()
    let soap = try soap(fixture)
    let late = users(soap, early: false)[0]
    try work(soap, fixture, 3, [late], at: 5000)
    let service = SoapService(soap: soap, stalenessLimit: nil)
    func embed(_ readers: String) throws -> String {
      let body = Array(#"{"users":[\#(late)],"for":\#(readers)}"#.utf8)
      return String(decoding: try service.embed(model: "users", body: body.span.bytes).body, as: UTF8.self)
    }
    #expect(try embed("\"feed\"").contains("\"withheld\":true"))
    #expect(try embed("[\"other\"]").contains("\"version\":3"))
    #expect(try embed("[]").contains("\"version\":3"))
    let one = try service.user(model: "users", name: "\(late)", readers: ["ads", "other"])
    #expect(String(decoding: one.body, as: UTF8.self).contains("\"source\":\"default\""))
    for (readers, message) in [
      "\"news\"": "'for': there is no downstream model 'news'; use: feed, ads, other",
      "7": "'for' is an integer; expected a model's name or a list of at most 4096",
      "[7]": "for[0] is an integer; expected a model's name",
    ] {
      #expect(throws: RequestError(status: 400, message: message)) { try embed(readers) }
    }
    #expect(throws: RequestError.self) { try service.user(model: "users", name: "7", readers: ["users"]) }
    let status = String(decoding: service.statusReply().body, as: UTF8.self)
    #expect(status.contains(#""withheld":2"#), "\(status)")
    #expect(status.contains(#"{"model":"feed","served":0,"examples":0,"waiting":0,"needed":3}"#), "\(status)")
    #expect(service.exposition().contains("guira_soap_served_version{model=\"ads\"} 0\n"))
    #expect(service.exposition().contains("guira_soap_withheld_total 2\n"))
  }

  @Test func `over ZeroMQ the models come last, and who names none sends what was sent before`() throws {
    let plain = EmbedRequest.encoded(model: "users", users: [7], features: [[1, 2]], request: 9)
    let named = EmbedRequest.encoded(
      model: "users", users: [7], features: [[1, 2]], for: ["feed", "ads"], request: 9)
    #expect(Array(named.array.prefix(plain.count)) == plain.array)
    for (bytes, models) in [(plain, []), (named, ["feed", "ads"])] {
      var reader = ByteReader(bytes)
      _ = try MessageHeader(decoding: &reader)
      #expect(try EmbedRequest(decoding: &reader).models == models)
    }
    for length in plain.count + 1..<named.count {
      var cut = ByteReader(Blob(slicing: named, 16..<length))
      #expect(throws: DecodeError.self) { try EmbedRequest(decoding: &cut) }
    }
  }
}
