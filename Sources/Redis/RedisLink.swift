// A connection that is made when it is needed and made anew after it broke. Belongs to whoever holds the value.

internal import Base

/// Asks one server again and again, over as many connections as that takes.
public struct RedisLink: Sendable {
  /// The server.
  public let address: RedisAddress
  private let patience: Duration
  private var connection: RedisConnection?
  /// Why the last attempt to connect failed, and when the next one is due: a server that is down is not stormed.
  private var failure: (error: RedisError, nextAttempt: Int64)?
  private static let pause: Int64 = 50_000_000

  /// A link to a server; nothing is sent before the first question.
  /// - Parameter patience: how long connecting, and each answer, may take.
  public init(_ address: RedisAddress, patience: Duration = .seconds(5)) {
    self.address = address
    self.patience = patience
  }

  /// Sends all commands at once and gives their replies, in order.
  ///
  /// - Throws: when there is no answer; whether the commands were carried out is then unknown, and the next call connects
  ///   again.
  public mutating func ask(_ commands: [[[UInt8]]]) throws(RedisError) -> [RedisReply] {
    let connection = try connected()
    do throws(RedisError) {
      return try connection.ask(commands)
    } catch {
      self.connection = nil
      throw error
    }
  }

  private mutating func connected() throws(RedisError) -> RedisConnection {
    if let connection { return connection }
    if let failure, Clocks.monotonic() < failure.nextAttempt { throw failure.error }
    do throws(RedisError) {
      let made = try RedisConnection(address, patience: patience)
      connection = made
      failure = nil
      return made
    } catch {
      failure = (error, Clocks.monotonic() + Self.pause)
      throw error
    }
  }
}
