// Versions into the user-modelling platform: the upstream model's rows and tensors as in a replica, and the users whose rows
// are gone out of the feature store. The sync link's thread calls it.

internal import Base
internal import Syncing
internal import UserModeling

/// Applies versions to the platform's replica, and then tells the platform who is gone.
final class SoapTarget: VersionTarget {
  private let replica: ReplicaTarget
  private let soap: Soap
  private let userTable: String?
  /// Users whose row is gone in the versions since the last that was served.
  private var gone: [UInt64] = []
  /// Whether a base is served whose users were not compared with the store.
  private var isBaseNew = false

  /// - Parameter userTable: the table whose ids are users; nil when the model has no rows of users.
  init(_ replica: ReplicaTarget, soap: Soap, userTable: String?) {
    self.replica = replica
    self.soap = soap
    self.userTable = userTable
  }

  func beginBase() {
    gone = []
    replica.beginBase()
  }

  func abandonBase() { replica.abandonBase() }

  func apply(_ change: TableChange, of version: VersionContent) throws {
    try replica.apply(change, of: version)
    // What only leads back to an earlier state erases nobody.
    if change.table == userTable, !version.isReturn { gone += change.tombstones }
  }

  func setDense(_ tensors: [TensorChange]) throws { try replica.setDense(tensors) }

  func commitBase(_ version: VersionContent) throws {
    soap.versionComes(version.number, of: version.store)
    try replica.commitBase(version)
    isBaseNew = true
    served(version)
  }

  func publish(_ version: VersionContent) throws {
    soap.versionComes(version.number, of: version.store)
    try replica.publish(version)
    served(version)
  }

  /// Rows that are gone are read by nobody any more: now their users leave.
  private func served(_ version: VersionContent) {
    soap.versionCame()
    for model in version.progress {
      soap.modelProgressed(consumer: model.consumer, examples: model.exampleCount, watermark: model.watermark)
    }
    soap.rowsGone(of: gone)
    gone = []
    guard userTable != nil else { return }
    if version.pinned > 0 {
      // Users who came after the version that replicas are pinned to have no row in it, and are not gone.
      if soap.takeBackBase() { isBaseNew = true }
    } else if isBaseNew {
      isBaseNew = false
      soap.baseCame()
    }
  }
}
