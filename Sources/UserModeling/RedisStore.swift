// The feature store in a Redis server: one hash per user, a field for each entry, named by shape and event time, and a field
// `row` when one of them was made with a row of the user's. Readers share one connection and the writer has another, so that
// a large write does not hold up a read. The server itself drops the hash of a user whose newest entry is too old.

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
  /// States of what is served, as the script reads them.
  private let served = Mutex(Array("[]".utf8))
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

  /// Puts an entry in and takes those of its shape that are too many out, in one step: a reader never sees more, or half.
  private static let put = Array(
    """
    redis.call('HSET', KEYS[1], ARGV[1] .. ARGV[2], ARGV[3])
    local times = {}
    for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
      if string.sub(field, 1, #ARGV[1]) == ARGV[1] then times[#times + 1] = tonumber(string.sub(field, #ARGV[1] + 1)) end
    end
    table.sort(times)
    local limit, served, isKept = tonumber(ARGV[4]), cjson.decode(ARGV[7]), {}
    local function field(i) return ARGV[1] .. string.format('%.0f', times[i]) end
    for i = 1, #times do isKept[i] = #times - i < limit end
    if #served > 0 and #times > limit then
      local version, madeAt, last, counts, oldest = {}, {}, 0, {}, {}
      for i = 1, #times do
        local entry = redis.call('HGET', KEYS[1], field(i))
        version[i], madeAt[i] = struct.unpack('<I8', entry, 17), struct.unpack('<i8', entry, 33)
        last = math.max(last, madeAt[i])
      end
      for i = #times, 1, -1 do
        local isServedToAll = true
        for n, numberings in ipairs(served) do
          local newest = -1
          for _, numbering in ipairs(numberings) do if numbering[1] <= madeAt[i] then newest = numbering[2] end end
          if version[i] > newest then
            isServedToAll = false
          elseif (counts[n] or 0) < tonumber(ARGV[8]) then
            counts[n] = (counts[n] or 0) + 1
            isKept[i] = true
          end
        end
        if not isServedToAll and #times - i >= limit then
          local span, age = 0, math.floor((last - madeAt[i]) / tonumber(ARGV[9]))
          while age > 0 do span, age = span + 1, math.floor(age / 2) end
          oldest[span] = i
        end
      end
      for _, i in pairs(oldest) do isKept[i] = true end
    end
    for i = 1, #times do if not isKept[i] then redis.call('HDEL', KEYS[1], field(i)) end end
    if ARGV[6] == '1' then redis.call('HSET', KEYS[1], 'row', '1') end
    if ARGV[5] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
    return #times
    """.utf8)

  private static let row = Array("row".utf8)

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
        guard pairs[place - 1] != .bytes(Self.row) else { continue }
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
    let served = served.withLock { $0 }
    let milliseconds = options.timeToLive.map { max(1, $0.milliseconds) } ?? 0
    let replies = try ask(
      writing,
      writes.map { write in
        [
          Array("EVAL".utf8), Self.put, [UInt8(ascii: "1")], key(write.user),
          Array("\(write.entry.shape.count)x\(write.entry.shape.dimension):".utf8),
          Array("\(write.entry.eventTime)".utf8), EntryBytes.encode(write.entry, half: options.halfPrecision),
          Array("\(options.entriesPerUser)".utf8), Array("\(milliseconds)".utf8),
          [UInt8(ascii: write.entry.hadRow ? "1" : "0")], served, Array("\(ServedVersions.keptEntries)".utf8),
          Array("\(ServedVersions.firstSpan)".utf8),
        ]
      })
    for reply in replies { guard case .integer = reply else { throw unexpected(reply) } }
  }

  /// Also keeps entries of these states of what is served.
  public func keep(_ served: [ServedVersions]) {
    let states = served.map { state in
      "[" + state.numberings.map { "[\($0.from),\($0.version)]" }.joined(separator: ",") + "]"
    }
    self.served.withLock { $0 = Array("[\(states.joined(separator: ","))]".utf8) }
  }

  /// Forgets users.
  public func remove(_ users: [UInt64]) throws(FeatureStoreError) {
    for start in stride(from: 0, to: users.count, by: 10_000) {
      let some = users[start..<min(users.count, start + 10_000)]
      for reply in try ask(writing, some.map { [Array("DEL".utf8), key($0)] }) {
        guard case .integer = reply else { throw unexpected(reply) }
      }
    }
  }

  /// Users of whom an entry was made with a row of theirs; goes through all keys of the server.
  public func learnedUsers(_ body: ([UInt64]) -> Void) throws(FeatureStoreError) {
    var cursor = Array("0".utf8)
    repeat {
      let pattern = Array("\(prefix):*".utf8)
      let reply = try ask(
        writing,
        [[Array("SCAN".utf8), cursor, Array("MATCH".utf8), pattern, Array("COUNT".utf8), Array("1000".utf8)]])[0]
      guard case .list(let parts) = reply, parts.count == 2, case .bytes(let next) = parts[0],
        case .list(let keys) = parts[1]
      else { throw unexpected(reply) }
      cursor = next
      let users = keys.compactMap { key -> UInt64? in
        guard case .bytes(let bytes) = key else { return nil }
        return UInt64(String(decoding: bytes.dropFirst(prefix.utf8.count + 1), as: UTF8.self))
      }
      let replies = try ask(writing, users.map { [Array("HEXISTS".utf8), self.key($0), Self.row] })
      body(zip(users, replies).filter { $1 == .integer(1) }.map(\.0))
    } while cursor != Array("0".utf8)
  }

  /// Asks whether the server is there; its own configuration says when it writes to its disk.
  public func sync() throws(FeatureStoreError) { _ = try ask(writing, [[Array("PING".utf8)]]) }

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
