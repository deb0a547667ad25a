// A flipped bit anywhere in a shard's files: found, with the file and the place, or harmless; never another state.

import Base
import Foundation
import Testing

@testable import Journal
@testable import Sharding

@Suite("Shard damage") struct ShardDamageTests {
  /// How many bits are flipped; `GUIRA_FLIPS=10000` is what `make fuzz` asks for.
  static let flips = ProcessInfo.processInfo.environment["GUIRA_FLIPS"].flatMap { Int($0) } ?? 300

  /// What the files of a shard are found to be when all of them are read.
  private struct Finding {
    var damage: [JournalDamage] = []
    var tornTail: JournalDamage?
    var headUnreadable: JournalDamage?
  }

  private static func readAll(_ files: ShardFiles) throws -> Finding {
    var finding = Finding()
    func note(_ body: () throws -> Void) throws {
      do { try body() } catch JournalError.damaged(let damage) { finding.damage.append(damage) }
    }
    for directory in [files.journal, files.forgotten] {
      try note {
        let writer = try JournalWriter(directory: directory)
        finding.tornTail = finding.tornTail ?? writer.recovery.tornTail
        finding.headUnreadable = finding.headUnreadable ?? writer.recovery.headUnreadable
      }
    }
    let listing = try Checkpoints.list(directory: files.checkpoints)
    finding.damage += listing.damaged
    for info in listing.checkpoints {
      try note { try Checkpoints.verify(directory: files.checkpoints, name: info.name) }
    }
    return finding
  }

  @Test func `every flipped bit is found with its file and place, and none makes another shard`() throws {
    let directory = "/model-damage"
    let disk = ModelDisk()
    let knowledge = try DiskLife.live(disk, at: directory)
    #expect(knowledge.failure == nil)
    let paths = disk.paths.filter { !disk.content($0).isEmpty }
    #expect(Set(paths.map { $0.split(separator: ".").last! }).isSuperset(of: ["segment", "data", "checkpoint"]))
    let bits = paths.map { disk.content($0).count * 8 }
    var random = SeededRandom(seed: 31)
    var (found, torn, heads, refused) = (0, 0, 0, 0)
    for _ in 0..<Self.flips {
      var bit = Int.random(in: 0..<bits.reduce(0, +), using: &random)
      var index = 0
      while bit >= bits[index] {
        bit -= bits[index]
        index += 1
      }
      let path = paths[index]
      var content = disk.content(path)
      content[bit / 8] ^= 1 << UInt8(bit % 8)
      let flipped = disk.copy()
      flipped.set(path, content)
      let again = flipped.copy()
      let context = "bit \(bit % 8) of byte \(bit / 8) of \(path)"

      let finding = try DiskLife.with(flipped, at: directory) { try Self.readAll($0) }
      if finding.damage.contains(where: { $0.file == path && $0.fileOffset <= bit / 8 }) {
        found += 1
      } else if let tail = finding.tornTail, tail.file == path, tail.fileOffset <= bit / 8 {
        torn += 1
      } else if finding.headUnreadable?.file == path {
        heads += 1
      } else {
        Issue.record("\(context) was not found: \(finding)")
      }

      try DiskLife.with(again, at: directory) { files in
        do {
          let (_, core, _) = try DiskLife.recover(files)
          let state = try ShardState(&core.core)
          let epoch = core.core.status().durableEpoch
          #expect(state == knowledge.states[epoch], "\(context): another shard")
          // A torn tail is cut: claims find out what was acknowledged and is gone.
          #expect(epoch == knowledge.acknowledged || finding.tornTail != nil, "\(context): epoch \(epoch)")
        } catch let error where error is JournalError || error is RecoveryError {
          refused += 1
          #expect("\(error)".contains(path.split(separator: "/").last!), "\(context): \(error)")
        }
      }
    }
    print(
      "\(Self.flips) flipped bits in \(paths.count) files: \(found) reported with file and offset, \(torn) cut as a "
        + "torn tail, \(heads) heads written anew; \(refused) refused to start")
  }
}
