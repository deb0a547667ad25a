// Following sync: what replicas, the user-modelling platform and the teachers of trainers do alike. A teacher is a replica of
// its model alone in the trainer's process, on a thread `teach-<model>`; the trainer's thread reads it.

internal import Base
internal import Serving
internal import Synchronization
internal import Syncing

extension RoleProcess {
  /// Follows sync until the link is stopped; the log says when versions are refused.
  ///
  /// - Parameter onStatus: called about twice a second.
  func follow(
    _ link: ReplicaLink, into target: any VersionTarget, of store: ReplicaStore,
    onStatus: (ReplicaFollower) -> Void = { _ in }
  ) throws {
    let nextStatus = Mutex<Int64>(0)
    try link.run(target: target) { follower in
      if store.refusal != follower.refusal {
        store.refusal = follower.refusal
        if let refusal = follower.refusal { logger.error("refuses the versions", metadata: ["reason": "\(refusal)"]) }
      }
      let now = Clocks.monotonic()
      let isDue = nextStatus.withLock { next in
        defer { if now >= next { next = now + 500_000_000 } }
        return now >= next
      }
      if isDue { onStatus(follower) }
    }
  }

  /// The teacher of a model, whose lessons are there as soon as `follow` has brought a base.
  func teacher(of model: ClusterPlan.PlannedModel, number: Int) throws -> FollowingTeacher {
    let alone = plan.alone(model)
    let store = try ReplicaStore(tables: alone.tables, models: [alone.model])
    let predictor = try Predictor(store: store, schema: plan.configuration.eventSchema)
    guard let teacher = VersionTeacher(predictor, model: model.settings.name) else {
      throw StateError("model \(model.settings.name) has no user embeddings to keep steady; use kind sum")
    }
    return FollowingTeacher(
      model: model.settings.name, teacher: teacher, store: store,
      target: ReplicaTarget(plan, store: store, tables: alone.tables.map(\.name)),
      link: ReplicaLink(
        endpoint: syncEndpoint, replica: plan.teacher(instance.index, of: number), security: security))
  }

  /// Starts the thread that keeps a teacher at the newest version until its link is stopped.
  func follow(_ teacher: FollowingTeacher, onFailure: @escaping @Sendable (any Error) -> Void) -> OwnedThread {
    OwnedThread(named: "teach-\(teacher.model)") {
      do { try follow(teacher.link, into: teacher.target, of: teacher.store) } catch { onFailure(error) }
    }
  }
}

/// A teacher and what keeps it at the newest version.
struct FollowingTeacher: Sendable {
  let model: String
  let teacher: VersionTeacher
  let store: ReplicaStore
  let target: ReplicaTarget
  let link: ReplicaLink
}
