// Writes JSON objects without building them first; on top of Streams' texts and numbers.

package import Base
internal import Streams

/// Appends members and elements with their commas.
package struct JSONBuilder: ~Copyable {
  package init() {}

  private var writer = ByteWriter(capacity: 1024)
  private var needsComma = false

  package consuming func finish() -> [UInt8] { writer.finish().array }

  private mutating func next() {
    if needsComma { writer.append(UInt8(ascii: ",")) }
    needsComma = true
  }

  private mutating func next(_ name: String) {
    next()
    writer.append(quoted: name)
    writer.append(UInt8(ascii: ":"))
  }

  private mutating func nest(_ open: UInt8, _ close: UInt8, _ body: (inout JSONBuilder) -> Void) {
    writer.append(open)
    needsComma = false
    body(&self)
    writer.append(close)
    needsComma = true
  }

  package mutating func object(_ body: (inout JSONBuilder) -> Void) {
    next()
    nest(UInt8(ascii: "{"), UInt8(ascii: "}"), body)
  }

  package mutating func object(_ name: String, _ body: (inout JSONBuilder) -> Void) {
    next(name)
    nest(UInt8(ascii: "{"), UInt8(ascii: "}"), body)
  }

  package mutating func list(_ name: String, _ body: (inout JSONBuilder) -> Void) {
    next(name)
    nest(UInt8(ascii: "["), UInt8(ascii: "]"), body)
  }

  package mutating func element(_ text: String) {
    next()
    writer.append(quoted: text)
  }

  package mutating func element(_ number: Float) {
    next()
    writer.append(number: number)
  }

  package mutating func member(_ name: String, _ text: String) {
    next(name)
    writer.append(quoted: text)
  }

  package mutating func member(_ name: String, _ flag: Bool) {
    next(name)
    writer.append(utf8: flag ? "true" : "false")
  }

  package mutating func member(_ name: String, _ number: Int64) {
    next(name)
    writer.append(decimal: number)
  }

  package mutating func member(_ name: String, _ number: UInt64) {
    next(name)
    writer.append(decimal: number)
  }

  package mutating func member(_ name: String, _ number: Float) {
    next(name)
    writer.append(number: number)
  }

  package mutating func numbers(_ name: String, _ numbers: [Int64]) {
    list(name) { list in
      for number in numbers {
        list.next()
        list.writer.append(decimal: number)
      }
    }
  }

  /// A histogram's count and quantiles as members.
  package mutating func summary(_ histogram: Histogram) {
    member("count", histogram.count)
    member("p50", histogram.quantile(0.5))
    member("p95", histogram.quantile(0.95))
    member("p99", histogram.quantile(0.99))
    member("max", histogram.maximum)
  }
}

extension Reply {
  /// An answer whose body `build` writes.
  package static func json(_ status: Int = 200, _ build: (inout JSONBuilder) -> Void) -> Reply {
    var builder = JSONBuilder()
    build(&builder)
    return Reply(status: status, body: builder.finish())
  }

  /// `{"error": message}`, as both protocols have it.
  package static func error(_ status: Int, _ message: String) -> Reply {
    json(status) { $0.object { $0.member("error", message) } }
  }
}
