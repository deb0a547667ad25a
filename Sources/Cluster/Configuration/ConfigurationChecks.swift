// What no single key can tell: names that must exist, be unique, or fit together.

internal import Base
internal import Wire

extension ClusterConfiguration {
  func check(_ binding: Binding) {
    if features.isEmpty { binding.report("features", "names no feature", "list at least one: '- name: user_id'") }
    if tasks.isEmpty { binding.report("tasks", "names no task", "list at least one: '- name: click'") }
    if models.isEmpty { binding.report("models", "names no model", "list at least one: '- name: main'") }
    checkUnique(features.map(\.name), "features", binding)
    checkUnique(tasks.map(\.name), "tasks", binding)
    checkUnique(models.map(\.name), "models", binding)
    checkModels(binding)
    checkTables(binding)
    checkStreamFeatures(binding)
    checkShapes(binding)
    checkTimes(binding)
    checkAddresses(binding)
    checkSoap(binding)
  }

  private func checkUnique(_ names: [String], _ key: String, _ binding: Binding) {
    var seen: Set<String> = []
    for name in names where !name.isEmpty && !seen.insert(name).inserted {
      binding.report("\(key).\(name)", "is named twice", "give every entry a name of its own")
    }
  }

  private func checkModels(_ binding: Binding) {
    for model in models where !model.name.isEmpty {
      let path = "models.\(model.name)"
      checkKnown(model.features, among: features.map(\.name), "\(path).features", "feature", binding)
      checkKnown(model.tasks, among: tasks.map(\.name), "\(path).tasks", "task", binding)
    }
  }

  private func checkKnown(_ names: [String], among all: [String], _ path: String, _ what: String, _ binding: Binding) {
    let known = Array(Set(all.filter { !$0.isEmpty })).sorted()
    var seen: Set<String> = []
    for name in names {
      if !known.contains(name) {
        let guess = nearest(to: name, among: known).map { "did you mean '\($0)'?" }
        binding.report(
          path, "names '\(name)', which is not a \(what)", guess ?? "use some of: \(known.joined(separator: ", "))")
      }
      if !seen.insert(name).inserted { binding.report(path, "names '\(name)' twice", "name it once") }
    }
  }

  private func checkTables(_ binding: Binding) {
    let names = features.compactMap(\.tableName)
    for name in tables.overrides.keys.sorted() where !names.contains(name) {
      let guess = nearest(to: name, among: names).map { "did you mean '\($0)'?" }
      binding.report(
        "tables.overrides.\(name)", "is not a table",
        guess ?? "use some of: \(Set(names).sorted().joined(separator: ", "))"
      )
    }
    for feature in features where !feature.name.isEmpty {
      guard let table = feature.table, table != feature.name, features.contains(where: { $0.name == table }) else {
        continue
      }
      if features.first(where: { $0.name == table })?.tableName != table {
        binding.report(
          "features.\(feature.name).table", "is '\(table)', a feature without a table of that name",
          "name the table itself")
      }
    }
  }

  private func checkTimes(_ binding: Binding) {
    if sync.sparseEvery < shards.epoch {
      binding.report(
        "sync.sparseEvery", "is shorter than shards.epoch",
        "use at least the length of an epoch: nothing changes within")
    }
    if replicas.staleAfter <= sync.sparseEvery {
      binding.report(
        "replicas.staleAfter", "is not longer than sync.sparseEvery",
        "use several times that interval, or replicas are never ready")
    }
    if sync.versionBytes != nil, replicas.visibility == .consistent {
      binding.report(
        "sync.versionBytes", "cuts versions, and replicas.visibility is consistent",
        "use one of the two: a version that is cut holds no consistent state")
    }
    if streams.impressions.partitions != streams.actions.partitions {
      binding.report(
        "streams.actions.partitions", "is not the same as streams.impressions.partitions",
        "use the same number: both are partitioned by impression and joined pairwise")
    }
    if trainers.count > streams.examples.partitions {
      binding.report(
        "trainers.count", "is \(trainers.count), more than streams.examples.partitions",
        "use at most \(streams.examples.partitions), or more partitions: each is read by one trainer")
    }
  }

  private func checkIngest(_ binding: Binding) {
    guard let port = ingest.zeromqPort else { return }
    if ingest.port == nil {
      binding.report(
        "ingest.zeromqPort", "is given without ingest.port", "give both: health and metrics are at ingest.port")
    }
    if port == ingest.port {
      binding.report("ingest.zeromqPort", "is ingest.port", "use another: HTTP and ZeroMQ cannot share one")
    }
    if security.mode == .none && !LinkSecurity.isLoopback(host: ingest.host) {
      binding.report(
        "ingest.zeromqPort", "is at '\(ingest.host)', which strangers may reach, and security.mode is none",
        "set security.mode to curve, make ingest.host a loopback address, or leave zeromqPort out")
    }
  }

  private func checkAddresses(_ binding: Binding) {
    if replicas.port + replicas.count - 1 > 65_535 {
      binding.report("replicas.port", "is too high for \(replicas.count) replicas", "use at most 65000")
    }
    checkIngest(binding)
    if cluster.transport == .inproc {
      if trainers.count > 1 {
        binding.report(
          "trainers.count", "is \(trainers.count), and cluster.transport inproc has one trainer with the shards",
          "use 1 and more trainers.threads, or transport ipc")
      }
      if security.mode == .curve {
        binding.report(
          "security.mode", "is curve, which does not reach within a process (cluster.transport is inproc)",
          "use none: sockets are then files that only this machine reaches, or transport ipc")
      }
    }
    guard cluster.transport == .tcp else { return }
    if security.mode == .none && !LinkSecurity.isLoopback(host: cluster.host) {
      binding.report(
        "cluster.host", "is '\(cluster.host)', which strangers may reach, and security.mode is none",
        "set security.mode to curve and make keys with `guira keys create`, or use a loopback address such as 127.0.0.1"
      )
    }
    let listeners = Endpoints.portCount(of: self)
    let ports = cluster.basePort..<(cluster.basePort + listeners)
    if ports.upperBound > 65_536 {
      binding.report("cluster.basePort", "is too high for \(listeners) ports", "use at most \(65_536 - listeners)")
    }
    if ports.overlaps(replicas.port..<(replicas.port + replicas.count)) {
      binding.report(
        "cluster.basePort",
        "takes the ports \(ports.lowerBound) to \(ports.upperBound - 1), and replicas.port some of them",
        "move one of the two")
    }
  }
}
