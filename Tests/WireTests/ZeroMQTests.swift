import Base
import Wire
import Testing

@Suite("ZeroMQ link") struct ZeroMQTests {
  @Test(arguments: [0, 1, 100, 1 << 20]) func `a message goes to a server and back`(bytes: Int) throws {
    let context = LinkContext()
    let endpoint = "ipc:///tmp/guira-link-\(UInt64.random(in: 0 ... .max)).ipc"
    let server = try Socket(.router, context: context)
    try server.bind(endpoint)
    let clients = try SocketGroup(connecting: [endpoint], context: context)
    let message = Blob((0..<bytes).map { UInt8(truncatingIfNeeded: $0) })
    #expect(clients.send(message, to: 0))
    server.wait(timeout: .seconds(60))
    let (peer, received) = try #require(try server.receive())
    #expect(received.array == message.array)
    let answered = server.send(received, to: peer)
    #expect(answered)
    clients.wait(timeout: .seconds(60))
    #expect(try clients.receive(from: 0)?.array == message.array)
    #expect(try clients.receive(from: 0) == nil)
    let lost = !server.send(message, to: PeerID([1, 2, 3]))
    #expect(lost)
  }
}
