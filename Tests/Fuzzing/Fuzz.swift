// `swift run Fuzzing`: mutated inputs for every decoder (docs/testing.md). `make fuzz` builds it with the address
// sanitizer.

import Base
import Foundation
import Glibc

@main enum Fuzz {
  static let usage = """
    usage: Fuzzing [--inputs N] [--from N] [--seed N] [--only NAME] [--corpus DIR] [--write-corpus]
      --inputs N       inputs for each decoder (default 100000)
      --from N         the number of the first input; a crash names it
      --only NAME      decoders whose name begins so
      --write-corpus   write the seeds our encoders make into the corpus, and end

    """

  static func main() {
    do { try run() } catch {
      say("\(error)")
      exit(1)
    }
  }

  private static func run() throws {
    var inputs = 100_000
    var from = 0
    var seed: UInt64 = 1
    var only = ""
    var corpus = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "Corpus").path(percentEncoded: false)
    var writes = false
    var arguments = CommandLine.arguments.dropFirst()
    while let argument = arguments.popFirst() {
      switch argument {
      case "--inputs": inputs = arguments.popFirst().flatMap { Int($0) } ?? inputs
      case "--from": from = arguments.popFirst().flatMap { Int($0) } ?? from
      case "--seed": seed = arguments.popFirst().flatMap { UInt64($0) } ?? seed
      case "--only": only = arguments.popFirst() ?? only
      case "--corpus": corpus = arguments.popFirst() ?? corpus
      case "--write-corpus": writes = true
      default:
        print(usage)
        exit(64)
      }
    }
    let decoders = try allDecoders().filter { $0.name.hasPrefix(only) }
    if writes {
      for decoder in decoders { try Corpus.write(decoder, into: corpus) }
      return
    }
    reportCrashes()
    say("address sanitizer \(Allocation.isCounted ? "on, allocations counted" : "off"), seed \(seed)")
    var isClean = true
    for decoder in decoders {
      // Before it begins, so that it stands before a crash.
      say(decoder.name.padding(toLength: 28, withPad: " ", startingAt: 0), end: "")
      let outcome = try Campaign.run(
        decoder, corpus: Corpus.read(decoder, from: corpus), inputs: from..<from + inputs, seed: seed)
      say(
        "\(outcome.inputs) inputs, \(outcome.accepted) taken, at most \(outcome.largest.allocated) bytes "
          + "allocated for one of \(outcome.largest.input), at most "
          + "\(Int(outcome.slowest.milliseconds.rounded(.up))) ms (input \(outcome.slowest.input)), \(Int(outcome.seconds)) s"
      )
      for problem in outcome.overLimit {
        isClean = false
        say("  OVER THE LIMIT: \(problem)")
      }
    }
    exit(isClean ? 0 : 1)
  }

  /// At once, whoever reads: a campaign takes long.
  private static func say(_ text: String, end: String = "\n") {
    var bytes = Array("\(text)\(end)".utf8)
    _ = write(STDOUT_FILENO, &bytes, bytes.count)
  }

  // MARK: Crashes

  /// Says which input it was before the process dies of it.
  private static func reportCrashes() {
    if let symbol = dlsym(nil, "__sanitizer_set_death_callback") {
      typealias Install = @convention(c) (@convention(c) () -> Void) -> Void
      unsafeBitCast(symbol, to: Install.self)({ Fuzz.sayWhere() })
    }
    for number in [SIGILL, SIGTRAP, SIGFPE, SIGABRT] + (Allocation.isCounted ? [] : [SIGSEGV, SIGBUS]) {
      _ = signal(number) { number in
        Fuzz.sayWhere()
        signal(number, SIG_DFL)
        raise(number)
      }
    }
  }

  private static func sayWhere() {
    let text = "\ncrash at input \(Campaign.current.load(ordering: .relaxed))\n"
    var bytes = Array(text.utf8)
    _ = write(STDERR_FILENO, &bytes, bytes.count)
  }
}

/// The seeds on disk: `NAME.0`, `NAME.1` and so on.
enum Corpus {
  static func read(_ decoder: Decoder, from directory: String) throws -> [[UInt8]] {
    let names = try Files.names(in: directory).filter { $0.prefix { $0 != "." } == decoder.name[...] }
    guard !names.isEmpty else { throw CorpusError(description: "\(directory) has no seeds of \(decoder.name)") }
    return try names.map { try Files.read("\(directory)/\($0)") }
  }

  static func write(_ decoder: Decoder, into directory: String) throws {
    for (number, bytes) in try decoder.seeds().enumerated() {
      try Data(bytes).write(to: URL(filePath: "\(directory)/\(decoder.name).\(number)"))
    }
  }
}

/// A corpus that cannot be used.
struct CorpusError: Error, CustomStringConvertible {
  let description: String
}
