// The feature store in a Redis server: one hash per user, a field for each entry, named by shape and event time. Readers share
// one connection and the writer has another, so that a large write does not hold up a read.

public import Base
internal import Redis
internal import Synchronization

/// Keeps entries in Redis.
public final class RedisStore: FeatureStore {
  /// Where it is.
  private let host: String
  private let port: Int
  private let prefix: String
  private let options: FeatureStoreOptions
  private let patience: Duration
  private let reading = Mutex<RedisConnection?>(nil)
  private let writing = Mutex<RedisConnection?>(nil)

  /// A store in the server at an address; it is reached with the first request.
  ///
  /// - Parameters:
  ///   - prefix: what all keys begin with.
  ///   - patience: how long connecting, and each answer, may take.
  public init(
    host: String, port: Int, prefix: String, options: FeatureStoreOptions = FeatureStoreOptions(),
    patience: Duration = .seconds(1)
  ) {
    self.host = host
    self.port = port
    self.prefix = prefix
    self.options = options
    self.patience = patience
  }

  /// Puts an entry in and takes the oldest of its shape out, in one step: a reader never sees more, or half.
  private static let put = Array(
    """
    redis.call('HSET', KEYS[1], ARGV[1] .. ARGV[2], ARGV[3])
    local times = {}
    for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
      if string.sub(field, 1, #ARGV[1]) == ARGV[1] then times[#times + 1] = tonumber(string.sub(field, #ARGV[1] + 1)) end
    end
    table.sort(times)
    for i = 1, #times - tonumber(ARGV[4]) do
      redis.call('HDEL', KEYS[1], ARGV[1] .. string.format('%.0f', times[i]))
    end
    return #times
    """.utf8)

  private func key(_ user: UInt64) -> [UInt8] { Array("\(prefix):\(user)".utf8) }

  /// The entries of some users.
  public func entries(of users: [UInt64], asOf: Milliseconds?) throws(FeatureStoreError) -> [[EmbeddingEntry]] {
    let replies = try ask(reading, users.map { [Array("HGETALL".utf8), key($0)] })
    var all: [[EmbeddingEntry]] = []
    all.reserveCapacity(users.count)
    for reply in replies {
      guard case .list(let pairs) = reply else { throw unexpected(reply) }
      var entries: [EmbeddingEntry] = []
      for place in stride(from: 1, to: pairs.count, by: 2) {
        guard case .bytes(let bytes) = pairs[place] else { throw unexpected(pairs[place]) }
        do throws(DecodeError) {
          let entry = try EntryBytes.decode(bytes)
          if asOf.map({ entry.eventTime <= $0 }) ?? true { entries.append(entry) }
        } catch {
          throw .damaged("\(error)")
        }
      }
      all.append(entries.sorted { $0.eventTime > $1.eventTime })
    }
    return all
  }

  /// Stores entries.
  public func write(_ writes: [EmbeddingWrite]) throws(FeatureStoreError) {
    let replies = try ask(
      writing,
      writes.map { write in
        [
          Array("EVAL".utf8), Self.put, [UInt8(ascii: "1")], key(write.user),
          Array("\(write.entry.shape.count)x\(write.entry.shape.dimension):".utf8),
          Array("\(write.entry.eventTime)".utf8), EntryBytes.encode(write.entry, half: options.halfPrecision),
          Array("\(options.entriesPerUser)".utf8),
        ]
      })
    for reply in replies { guard case .integer = reply else { throw unexpected(reply) } }
  }

  /// Forgets users.
  public func remove(_ users: [UInt64]) throws(FeatureStoreError) {
    for reply in try ask(writing, users.map { [Array("DEL".utf8), key($0)] }) {
      guard case .integer = reply else { throw unexpected(reply) }
    }
  }

  /// Does nothing: the server's own configuration says when it writes to its disk.
  public func sync() {}

  /// Unknown: other keys may lie in the server.
  public var extent: FeatureStoreExtent { FeatureStoreExtent() }

  /// Asks on a connection that is made when there is none, and made anew once when the server has closed it meanwhile.
  private func ask(
    _ connection: borrowing Mutex<RedisConnection?>, _ commands: [[[UInt8]]]
  ) throws(FeatureStoreError) -> [RedisReply] {
    guard !commands.isEmpty else { return [] }
    return try connection.withLock { connection throws(FeatureStoreError) in
      let wasOpen = connection != nil
      do throws(RedisError) {
        return try open(&connection).ask(commands)
      } catch {
        connection = nil
        guard wasOpen else { throw .server(address: error.address, problem: error.problem) }
        // Every command may be repeated: the same entry takes the same place.
        do throws(RedisError) {
          return try open(&connection).ask(commands)
        } catch {
          connection = nil
          throw .server(address: error.address, problem: error.problem)
        }
      }
    }
  }

  private func open(_ connection: inout RedisConnection?) throws(RedisError) -> RedisConnection {
    if let connection { return connection }
    let made = try RedisConnection(RedisAddress(host: host, port: port), patience: patience)
    connection = made
    return made
  }

  private func unexpected(_ reply: RedisReply) -> FeatureStoreError {
    if case .failure(let problem) = reply { return .server(address: "\(host):\(port)", problem: problem) }
    return .server(address: "\(host):\(port)", problem: "an answer of an unexpected kind")
  }
}
