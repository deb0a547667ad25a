// From text to configuration and back. A text is parsed once, `--set` values are put into its tree, then every section
// reads its keys and the whole is checked; whatever was wrong comes out together.

internal import Base
internal import Yams

extension ClusterConfiguration {
  /// The most bytes a configuration file may have.
  public static let textLimit = 1 << 20

  /// Reads a configuration file.
  /// - Parameter overrides: `key.path=value` each, put in before anything is checked.
  /// - Throws: `ConfigurationError` with everything that is wrong.
  public init(file: String, overrides: [String] = []) throws(ConfigurationError) {
    let text = try readText(file, advice: "give the path of a cluster.yaml; deploy/cluster.yaml is a sample")
    try self.init(text: text, file: file, overrides: overrides)
  }

  /// Reads a configuration from the text of a file.
  /// - Parameters:
  ///   - file: what problems call the text.
  ///   - overrides: `key.path=value` each, put in before anything is checked.
  /// - Throws: `ConfigurationError` with everything that is wrong.
  public init(text: String, file: String, overrides: [String] = []) throws(ConfigurationError) {
    self = try readSettings(text: text, file: file, overrides: overrides)
  }

  /// The configuration as a file that reads back equal: every key, in order, without comments.
  public var text: String {
    let top = Section(Binding(isWriting: true), mapping: nil)
    var copy = self
    copy.bind(top)
    do { return try Yams.serialize(node: Node(top.written), allowUnicode: true) } catch {
      preconditionFailure("a configuration that cannot be written: \(error)")
    }
  }

  /// A word that changes when anything in the configuration does.
  public var fingerprint: String { String(Hashing.xxh3(text), radix: 16) }

  /// Every key there is, from the top, without the names of list elements: `features.kind`.
  public static var keyPaths: [String] {
    var sample = sample
    sample.tables.overrides = ["user_id": TableSettings()]
    sample.features[0].stream = .complete
    let binding = Binding(isWriting: true)
    sample.bind(Section(binding, mapping: nil))
    return binding.patterns
  }
}

/// Settings that are checked as a whole once all keys are read.
protocol CheckedSettings: Settings {
  /// Reports what does not fit together.
  func check(_ binding: Binding)
}

extension ClusterConfiguration: CheckedSettings {}

/// The text of a file of settings.
private func readText(_ file: String, advice: String) throws(ConfigurationError) -> String {
  func refuse(_ fault: String, _ advice: String) -> ConfigurationError {
    ConfigurationError([ConfigurationProblem(place: file, path: "", fault: fault, advice: advice)])
  }
  let bytes: [UInt8]
  do throws(FileError) { bytes = try Files.read(file) } catch { throw refuse("\(error)", advice) }
  guard bytes.count <= ClusterConfiguration.textLimit else {
    throw refuse("the file has \(bytes.count) bytes", "use at most \(ClusterConfiguration.textLimit)")
  }
  guard let text = String(validating: bytes, as: UTF8.self) else {
    throw refuse("the file is not UTF-8 text", "is it a YAML file?")
  }
  return text
}

/// Reads settings from a file; `advice` is what to do when it cannot be opened.
func readSettings<S: Settings>(file: String, advice: String) throws(ConfigurationError) -> S {
  try readSettings(text: try readText(file, advice: advice), file: file)
}

/// Reads settings from a text that problems call `file`, with `key.path=value` put in before anything is checked.
func readSettings<S: Settings>(
  text: String, file: String, overrides: [String] = []
) throws(ConfigurationError) -> S {
  var root: Node
  do { root = try Yams.compose(yaml: text) ?? Node([(Node, Node)]()) } catch {
    throw ConfigurationError([syntaxProblem(error, file: file)])
  }
  if root.scalar?.string.isEmpty == true { root = Node([(Node, Node)]()) }
  var origins: [String: String] = [:]
  var problems: [ConfigurationProblem] = []
  for override in overrides {
    do throws(Refusal) { origins[try root.apply(override: override)] = override } catch {
      problems.append(
        ConfigurationProblem(place: "--set \(override)", path: "", fault: error.fault, advice: error.advice))
    }
  }
  let binding = Binding(file: file, overrides: origins)
  var settings = S()
  if let mapping = root.mapping {
    let top = Section(binding, mapping: mapping)
    settings.bind(top)
    top.finish()
    (settings as? any CheckedSettings)?.check(binding)
  } else {
    binding.report("", "the file is not a mapping", "begin with 'cluster:' and 'features:'")
  }
  let sorted = binding.problems.enumerated().sorted {
    ($0.element.line, $0.offset) < ($1.element.line, $1.offset)
  }
  problems += sorted.map(\.element.problem)
  if !problems.isEmpty { throw ConfigurationError(problems) }
  return settings
}

/// What the YAML parser could not read.
///
/// Nothing else can be said about such a file.
private func syntaxProblem(_ error: any Error, file: String) -> ConfigurationProblem {
  func problem(_ mark: Mark?, _ fault: String, _ advice: String) -> ConfigurationProblem {
    ConfigurationProblem(place: mark.map { "\(file):\($0.line)" } ?? file, path: "", fault: fault, advice: advice)
  }
  switch error as? YamlError {
  case .scanner(_, let fault, let mark, _), .parser(_, let fault, let mark, _), .composer(_, let fault, let mark, _):
    return problem(mark, "this is not YAML: \(fault)", "check indentation, colons and quotes here and one line above")
  case .duplicatedKeysInMapping(let keys, let context):
    return problem(context.mark, "'\(keys.joined(separator: "', '"))' is given twice", "keep one of them")
  case .reader(let fault, _, _, _):
    return problem(nil, "this is not YAML: \(fault)", "is it a text file in UTF-8?")
  default:
    return problem(nil, "this is not YAML: \(error)", "is it a cluster.yaml?")
  }
}

extension Node {
  /// Puts `key.path=value` into the tree; list elements are called by name or number.
  /// - Returns: the key path as problems call it.
  mutating func apply(override: String) throws(Refusal) -> String {
    guard let equals = override.firstIndex(of: "="), equals != override.startIndex else {
      throw Refusal(fault: "is not of the form key.path=value", advice: "write it like shards.count=4")
    }
    let keys = override[..<equals].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard keys.allSatisfy({ !$0.isEmpty }), keys.count <= 16 else {
      throw Refusal(fault: "has an empty or too long key path", advice: "write it like shards.count=4")
    }
    let value: Node
    do { value = try Yams.compose(yaml: String(override[override.index(after: equals)...])) ?? Node("") } catch {
      throw Refusal(fault: "has a value that is not YAML", advice: "write it like features=[a, b]")
    }
    return try set(value.withoutMarks, at: keys[...]).joined(separator: ".")
  }

  private mutating func set(_ value: Node, at keys: ArraySlice<String>) throws(Refusal) -> [String] {
    guard let key = keys.first else {
      self = value
      return []
    }
    if var sequence = sequence {
      let names = sequence.enumerated().map { Section.elementName($1) ?? "\($0)" }
      guard let index = names.firstIndex(of: key) ?? Int(key).flatMap({ sequence.indices.contains($0) ? $0 : nil })
      else {
        throw Refusal(
          fault: "names '\(key)', which is not in the list", advice: "there are: \(names.joined(separator: ", "))")
      }
      var element = sequence[index]
      let rest = try element.set(value, at: keys.dropFirst())
      sequence[index] = element
      self = .sequence(sequence)
      return [names[index]] + rest
    }
    var mapping = self.mapping ?? Node.Mapping([])
    guard self.mapping != nil || self.scalar?.string.isEmpty ?? true || keys.count > 0 && self.isReplaceable else {
      throw Refusal(fault: "reaches into '\(key)', but there is a single value above it", advice: "check the key path")
    }
    var element = mapping[key] ?? Node("")
    let rest = try element.set(value, at: keys.dropFirst())
    mapping[key] = element
    self = .mapping(mapping)
    return [key] + rest
  }

  /// A word that a mapping may take the place of, such as `admission: always`.
  private var isReplaceable: Bool { scalar?.string == "always" }

  /// The same values without places in a text: problems with them name the `--set` argument.
  private var withoutMarks: Node {
    switch self {
    case .scalar(let scalar): Node(scalar.string, .implicit, scalar.style)
    case .sequence(let sequence): Node(sequence.map(\.withoutMarks))
    case .mapping(let mapping): Node(mapping.map { ($0.key.withoutMarks, $0.value.withoutMarks) })
    case .alias: self
    }
  }
}
