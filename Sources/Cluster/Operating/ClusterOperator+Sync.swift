// What operators ask of sync: which versions there are, back to one of them, and on again.

internal import Base
public import Syncing
internal import Wire

extension ClusterOperator {
  /// How sync is.
  public func syncStatus() throws -> SyncStatus {
    let text = try askSync { PlainMessage.empty(.status, request: $0) }
    guard let status = SyncStatus(json: text) else { throw StateError("sync answered: \(text)") }
    return status
  }

  /// Every version that is kept, as JSON.
  public func versions() throws -> String { try askSync { VersionsRequest().encoded(request: $0) } }

  /// What is in a version, as JSON.
  public func version(_ number: UInt64) throws -> String {
    try askSync { VersionsRequest(number: number).encoded(request: $0) }
  }

  /// Returns replicas to a version and keeps them there; 0 keeps them where they are.
  public func pin(to version: UInt64) throws -> PinReply {
    try order { PinRequest(version: version).encoded(request: $0) }
  }

  /// Lets replicas follow the shards again.
  public func resume() throws -> PinReply { try order { PlainMessage.empty(.resume, request: $0) } }

  private func order(_ message: (UInt64) -> Blob) throws -> PinReply {
    // Reading an earlier state takes as long as reading the versions since from the disk.
    let text = try askSync(timeout: .seconds(600), message)
    guard let reply = PinReply(json: text) else { throw StateError("sync answered: \(text)") }
    return reply
  }

  private func askSync(timeout: Duration = .seconds(5), _ message: (UInt64) -> Blob) throws -> String {
    var asker = try Asker(endpoint: endpoints.sync, context: context)
    // So that a sync that is not there is told in seconds.
    _ = try asker.ask { PlainMessage.empty(.status, request: $0) }
    var reader = try asker.ask(timeout: timeout, message)
    return try PlainMessage.text(decoding: &reader)
  }
}
