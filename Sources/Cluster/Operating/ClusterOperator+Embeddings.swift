// Forgetting reaches the user-modelling platform at once: versions tell it too, but not of a user who has a row again
// before the next one is made.

internal import Base
internal import Wire

extension ClusterOperator {
  /// Erases users' embeddings, when the table is that of the upstream model's users.
  ///
  /// - Throws: when a process of `guira soap` does not answer; the shards have erased the ids by then.
  func forgetEmbeddings(table: String, ids: [UInt64]) throws {
    guard table == plan.userTable else { return }
    for index in plan.configuration.soapCount.indices {
      do {
        var asker = try Asker(endpoint: endpoints.soap(index), context: context)
        _ = try asker.ask(timeout: .seconds(30)) { IDsRequest(table: table, ids: ids).encoded(.forget, request: $0) }
      } catch {
        throw StateError(
          "the shards have erased the ids, but soap \(index) keeps their embeddings still: \(error); it drops those of "
            + "users without a row when it is back, and all of them when you repeat the command")
      }
    }
  }
}
