// Why one line of events is refused. The texts go to users: they name the field, what was found and what was expected.

public import Base

/// One refused line: where, and why.
///
/// The lines around it are not concerned.
public struct EventFault: Error, Equatable, Sendable, CustomStringConvertible {
  /// The line, counted from 1.
  public let line: Int
  /// What is wrong with it.
  public let reason: Reason

  /// A fault from its parts.
  public init(line: Int, reason: Reason) {
    self.line = line
    self.reason = reason
  }

  /// "line 7: unknown feature 'x'; …".
  public var description: String { "line \(line): \(reason)" }

  /// What is wrong with a line.
  public enum Reason: Equatable, Sendable {
    /// Not a JSON text; in the parser's words.
    case notJSON(String)
    /// Not UTF-8.
    case notUTF8
    /// Longer than the limit.
    case oversized(bytes: Int, limit: Int)
    /// A field is absent.
    case missing(field: String, of: String)
    /// A field that events of this type do not have.
    case unknownField(String, of: String, known: [String])
    /// A field is there twice.
    case repeated(field: String)
    /// A field holds another kind of value.
    case wrongType(field: String, found: String, expected: String)
    /// A `type` that is none of the three.
    case unknownType(String)
    /// A time that cannot be meant.
    case absurdTime(Milliseconds, allowed: ClosedRange<Milliseconds>)
    /// A feature that the schema does not have.
    case unknownFeature(String, known: [String])
    /// More ids than the feature may have.
    case tooManyIDs(feature: String, count: Int, limit: Int)
    /// Another count of numbers than the feature has.
    case wrongWidth(feature: String, count: Int, width: Int)
    /// A number that no float32 can hold.
    case notFinite(feature: String)
    /// All features together are above the limit.
    case featuresTooLarge(bytes: Int, limit: Int)
    /// A prediction for a task that the schema does not have.
    case unknownTask(String, known: [String])
    /// A prediction outside 0…1.
    case notAProbability(task: String, value: Double)
    /// An action without a name, or with one that is too long.
    case badActionName(bytes: Int, limit: Int)
  }
}

extension EventFault.Reason: CustomStringConvertible {
  /// A short stable name to count faults by.
  public var code: String {
    switch self {
    case .notJSON: "not_json"
    case .notUTF8: "not_utf8"
    case .oversized, .featuresTooLarge: "oversized"
    case .missing: "missing_field"
    case .unknownField, .repeated: "unknown_field"
    case .wrongType, .wrongWidth, .notFinite, .notAProbability, .badActionName: "wrong_type"
    case .unknownType: "unknown_type"
    case .absurdTime: "absurd_time"
    case .unknownFeature: "unknown_feature"
    case .tooManyIDs: "too_many_ids"
    case .unknownTask: "unknown_task"
    }
  }

  /// What is wrong and what was expected.
  public var description: String {
    switch self {
    case .notJSON(let problem): "not a JSON object: \(problem)"
    case .notUTF8: "not UTF-8"
    case .oversized(let bytes, let limit): "the line has \(bytes) bytes or more; the limit is \(limit)"
    case .missing(let field, let event): "\(event) has no '\(field)'"
    case .unknownField(let field, let event, let known): "\(event) has no field '\(field)'; \(Self.list(known))"
    case .repeated(let field): "'\(field)' is there twice"
    case .wrongType(let field, let found, let expected): "'\(field)' is \(found); expected \(expected)"
    case .unknownType(let type): "type is '\(type)'; expected 'impression', 'action' or 'watermark'"
    case .absurdTime(let time, let allowed):
      "time is \(time); expected UTC milliseconds in \(allowed.lowerBound)...\(allowed.upperBound)"
        + (allowed.contains(time.multipliedReportingOverflow(by: 1000).partialValue) ? "; this looks like seconds" : "")
    case .unknownFeature(let name, let known): "unknown feature '\(name)'; the schema \(Self.list(known))"
    case .tooManyIDs(let feature, let count, let limit): "feature '\(feature)' has \(count) ids; the limit is \(limit)"
    case .wrongWidth(let feature, let count, let width): "feature '\(feature)' has \(count) numbers; expected \(width)"
    case .notFinite(let feature): "feature '\(feature)' has a number outside the range of float32"
    case .featuresTooLarge(let bytes, let limit): "the features take \(bytes) bytes; the limit is \(limit)"
    case .unknownTask(let name, let known): "unknown task '\(name)' in the prediction; the schema \(Self.list(known))"
    case .notAProbability(let task, let value): "the prediction of '\(task)' is \(value); expected 0...1"
    case .badActionName(let bytes, let limit): "the action's name has \(bytes) bytes; expected 1...\(limit)"
    }
  }

  private static func list(_ names: [String]) -> String {
    guard !names.isEmpty else { return "has none" }
    return "has " + names.prefix(20).joined(separator: ", ") + (names.count > 20 ? ", …" : "")
  }
}
