// `guira export`: rows and dense tensors as files that other programs read.

public import ArgumentParser
import Base
public import Cluster
import Sharding

extension ModelExport.Format: ExpressibleByArgument {}

struct Export: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes rows and dense tensors for other programs.",
    discussion: """
      Reads the files of the shards, whether the cluster runs or not; what is not yet on their disks is left out. For each
      table there are the arrays TABLE.ids and TABLE.weights, sorted by id, and for each dense tensor one of its name.

      Examples:
        guira export --output model.safetensors
        guira export --format npy --output model/ --checkpoint monday
      """)
  @OptionGroup var state: StateOption
  @Option(help: "safetensors: one file. npy: a directory with a NumPy array each.")
  var format = ModelExport.Format.safetensors
  @Option(name: .shortAndLong, help: "The file or directory to write.") var output: String
  @Option(help: "A checkpoint that every shard has; else the newest state.") var checkpoint: String?

  func run() throws {
    try reporting {
      let cluster = try ShardsOption.cluster(state)
      let shards = (0..<cluster.shardCount).map { shard in
        (options: cluster.options(ofShard: shard), files: cluster.files(ofShard: shard))
      }
      for (number, shard) in shards.enumerated() where checkpoint != nil {
        let names = try ShardAudit.checkpoints(in: shard.files).checkpoints.map(\.manifest.name)
        guard let checkpoint, !names.contains(checkpoint) else { continue }
        throw Failure("shard \(number) has no checkpoint '\(checkpoint)'; it has: \(names.joined(separator: ", "))")
      }
      var export = ModelExport(shards: shards, checkpoint: checkpoint)
      try export.write(format, to: output, progress: progressBar("reading"))
      for (table, rows) in export.summary.rows { write("\(table): \(rows) rows\n") }
      write("\(export.summary.tensors) dense tensors, \(export.summary.bytes) bytes in \(output)\n")
    }
  }
}
