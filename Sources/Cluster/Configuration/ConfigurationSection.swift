// One mapping of the configuration file. Each settings type describes its keys once, in `bind`; the same description
// reads a file (collecting problems and the line of every key), writes one, and lists the keys there are.

internal import Yams

/// A group of settings that is one mapping in the file.
protocol Settings {
  /// The defaults.
  init()
  /// Names every key once, with its notation and limits.
  mutating func bind(_ section: Section)
}

/// What all sections of one reading or writing share.
final class Binding {
  /// Reading when false.
  let isWriting: Bool
  /// The name of the file, as the user gave it.
  let file: String
  /// Values that `--set` put in: key path to the argument.
  let overrides: [String: String]
  private(set) var problems: [(line: Int, problem: ConfigurationProblem)] = []
  private var lines: [String: Int] = [:]
  /// Every key path that was named, without element names: `features.kind`.
  private(set) var patterns: [String] = []

  init(file: String = "", overrides: [String: String] = [:], isWriting: Bool = false) {
    self.file = file
    self.overrides = overrides
    self.isWriting = isWriting
  }

  func remember(_ path: String, at mark: Mark?) {
    if let mark { lines[path] = mark.line }
  }

  func name(_ pattern: String) {
    if !patterns.contains(pattern) { patterns.append(pattern) }
  }

  /// Whether a problem was reported at one of these paths, or below it.
  func hasProblem(under paths: [String]) -> Bool {
    problems.contains { found in
      paths.contains { found.problem.path == $0 || found.problem.path.hasPrefix("\($0).") }
    }
  }

  /// Adds a problem; its line is that of the key, or of the nearest key above it.
  func report(_ path: String, _ fault: String, _ advice: String, at mark: Mark? = nil) {
    var line = mark?.line
    // A key that only `--set` gives has no line, nor have those below it.
    let above = lines[path] == nil ? overrides.keys.sorted().first { $0.hasPrefix("\(path).") } : nil
    var place = line == nil ? above.flatMap { overrides[$0] }.map { "--set \($0)" } : nil
    var nearest = path[...]
    while line == nil, place == nil {
      line = lines[String(nearest)]
      place = overrides[String(nearest)].map { "--set \($0)" }
      guard let dot = nearest.lastIndex(of: ".") else { break }
      nearest = nearest[..<dot]
    }
    let problem = ConfigurationProblem(
      place: place ?? line.map { "\(file):\($0)" } ?? file, path: path, fault: fault, advice: advice)
    problems.append((line ?? 0, problem))
  }
}

/// One mapping being read or written.
final class Section {
  let binding: Binding
  /// The mapping's key path; empty at the top.
  let path: String
  private let pattern: String
  private let mapping: Node.Mapping?
  private(set) var written: [(Node, Node)] = []
  private var known: [String] = []

  init(_ binding: Binding, path: String = "", pattern: String = "", mapping: Node.Mapping?) {
    self.binding = binding
    self.path = path
    self.pattern = pattern
    self.mapping = mapping
  }

  /// The full path of a key of this mapping.
  func path(of key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  private func pattern(of key: String) -> String { pattern.isEmpty ? key : "\(pattern).\(key)" }

  /// Adds a problem about a key of this mapping.
  func report(_ key: String, _ fault: String, _ advice: String) { binding.report(path(of: key), fault, advice) }

  /// Whether the file gives the key.
  func isGiven(_ key: String) -> Bool { mapping?[key] != nil }

  /// Names a key and gives what the file says about it; nil when it says nothing, or when writing.
  private func node(_ key: String) -> Node? {
    known.append(key)
    binding.name(pattern(of: key))
    guard let mapping, let index = mapping.firstIndex(where: { $0.key.string == key }) else { return nil }
    let node = mapping[index].value
    binding.remember(path(of: key), at: node.mark == nil ? nil : mapping[index].key.mark ?? node.mark)
    return node
  }

  private func write(_ key: String, _ node: Node) { written.append((Node(key), node)) }

  /// A single value.
  func value<Value>(_ key: String, _ value: inout Value, _ scalar: Scalar<Value>) {
    let node = node(key)
    if binding.isWriting { return write(key, Node(scalar.write(value))) }
    if let node, let read = read(node, scalar, path(of: key)) { value = read }
  }

  /// A single value that takes the place of the alternatives beside it; absent when nil.
  func optional<Value>(_ key: String, _ value: inout Value?, _ scalar: Scalar<Value>) {
    let node = node(key)
    if binding.isWriting {
      if let value { write(key, Node(scalar.write(value))) }
      return
    }
    if let node, let read = read(node, scalar, path(of: key)) { value = read }
  }

  /// A list of single values.
  ///
  /// `all`: the word that the file may use for the empty list.
  func values<Value>(
    _ key: String, _ values: inout [Value], _ scalar: Scalar<Value>, atMost limit: Int, all: String? = nil
  ) {
    let node = node(key)
    if binding.isWriting {
      let items = values.map { Node(scalar.write($0)) }
      if let all, values.isEmpty { return write(key, Node(all)) }
      return write(key, Node(items, .implicit, .flow))
    }
    guard let node else { return }
    if let all, node.scalar?.string == all { return values = [] }
    guard let sequence = node.sequence else {
      let instead = all.map { ", or '\($0)'" } ?? ""
      return report(key, "is \(describe(node))", "use a list such as [a, b]\(instead)")
    }
    if all != nil && sequence.isEmpty { return report(key, "is an empty list", "name at least one, or leave it out") }
    guard sequence.count <= limit else { return report(key, "has \(sequence.count) entries", "use at most \(limit)") }
    values = sequence.enumerated().compactMap { read($1, scalar, "\(path(of: key)).\($0)") }
  }

  /// A mapping of its own.
  func section<S: Settings>(_ key: String, _ value: inout S) {
    let node = node(key)
    if binding.isWriting { return write(key, Self.write(value, binding, pattern: pattern(of: key))) }
    guard let node else { return }
    read(node, path: path(of: key), pattern: pattern(of: key), into: &value)
  }

  /// A mapping of its own that may be left out; absent when nil.
  func optionalSection<S: Settings>(_ key: String, _ value: inout S?) {
    if binding.isWriting ? value == nil : !isGiven(key) {
      known.append(key)
      return binding.name(pattern(of: key))
    }
    var inner = value ?? S()
    section(key, &inner)
    value = inner
  }

  /// A list of mappings; elements with a `name` are called by it in key paths.
  func list<S: Settings>(_ key: String, _ values: inout [S], atMost limit: Int) {
    let node = node(key)
    if binding.isWriting {
      let items = values.map { Self.write($0, binding, pattern: pattern(of: key)) }
      return write(key, Node(items))
    }
    guard let node else { return }
    guard let sequence = node.sequence else {
      return report(key, "is \(describe(node))", "use a list: one '- name: …' for each")
    }
    guard sequence.count <= limit else { return report(key, "has \(sequence.count) entries", "use at most \(limit)") }
    values = sequence.enumerated().map { index, element in
      let name = Self.elementName(element) ?? "\(index)"
      binding.remember("\(path(of: key)).\(name)", at: element.mark)
      var value = S()
      read(element, path: "\(path(of: key)).\(name)", pattern: pattern(of: key), into: &value)
      return value
    }
  }

  /// A mapping from names to mappings, each beginning as a copy of `initial`.
  func map<S: Settings>(_ key: String, _ values: inout [String: S], from initial: S, atMost limit: Int) {
    let node = node(key)
    if binding.isWriting {
      let pairs = values.sorted { $0.key < $1.key }.map {
        (Node($0.key), Self.write($0.value, binding, pattern: pattern(of: key)))
      }
      return write(key, Node(pairs, .implicit, pairs.isEmpty ? .flow : .any))
    }
    guard let node, !isNull(node) else { return }
    guard let mapping = node.mapping else {
      return report(key, "is \(describe(node))", "use a mapping from names to settings")
    }
    guard mapping.count <= limit else { return report(key, "has \(mapping.count) entries", "use at most \(limit)") }
    for (name, element) in mapping {
      let name = name.string ?? "?"
      binding.remember("\(path(of: key)).\(name)", at: element.mark)
      var value = initial
      read(element, path: "\(path(of: key)).\(name)", pattern: pattern(of: key), into: &value)
      values[name] = value
    }
  }

  /// A word, or a mapping with a single key: `always`, or `{count: 3}`.
  ///
  /// - Parameters:
  ///   - word: the value when the file has just the word; nil when it is not one of `words`.
  ///   - pairs: reads the number beside each key.
  ///   - write: the value as word, or as key and number.
  func variant<Value>(
    _ key: String, _ value: inout Value, word: (String) -> Value?, words: [String],
    pairs: [(key: String, scalar: Scalar<Value>)], write: (Value) -> (key: String, text: String?)
  ) {
    let node = node(key)
    for pair in pairs { binding.name("\(pattern(of: key)).\(pair.key)") }
    if binding.isWriting {
      let (name, text) = write(value)
      return self.write(key, text.map { Node([(Node(name), Node($0))], .implicit, .flow) } ?? Node(name))
    }
    guard let node else { return }
    let choices = (words + pairs.map { "{\($0.key): …}" }).joined(separator: ", ")
    if let text = node.scalar?.string, let read = word(text) { return value = read }
    guard let mapping = node.mapping, mapping.count == 1, let name = mapping.first?.key.string,
      let pair = pairs.first(where: { $0.key == name }), let inner = mapping.first?.value
    else { return report(key, "is \(describe(node))", "use one of: \(choices)") }
    if let read = read(inner, pair.scalar, "\(path(of: key)).\(name)") { value = read }
  }

  /// Reports keys that nobody named.
  ///
  /// Called once, after `bind`.
  func finish() {
    guard let mapping, !binding.isWriting else { return }
    for (key, _) in mapping {
      guard let name = key.string else {
        binding.report(
          path, "has a key that is not a word", "use one of: \(known.joined(separator: ", "))", at: key.mark)
        continue
      }
      if known.contains(name) { continue }
      let advice = nearest(to: name, among: known).map { "did you mean '\($0)'?" }
      let choices = "the keys here are: \(known.joined(separator: ", "))"
      binding.report(path(of: name), "is not a known key", advice ?? choices, at: key.mark)
    }
  }

  private func read<Value>(_ node: Node, _ scalar: Scalar<Value>, _ path: String) -> Value? {
    guard let text = node.scalar?.string, !isNull(node) else {
      let expected: Refusal
      do throws(Refusal) {
        _ = try scalar.read("")
        expected = Refusal(fault: "", advice: "use a single value")
      } catch { expected = error }
      binding.report(path, "is \(describe(node))", expected.advice, at: node.mark)
      return nil
    }
    do throws(Refusal) { return try scalar.read(text) } catch {
      binding.report(path, error.fault, error.advice, at: node.mark)
      return nil
    }
  }

  private func read<S: Settings>(_ node: Node, path: String, pattern: String, into value: inout S) {
    guard node.mapping != nil || isNull(node) else {
      return binding.report(path, "is \(describe(node))", "use a mapping: one 'key: value' a line", at: node.mark)
    }
    let section = Section(binding, path: path, pattern: pattern, mapping: node.mapping)
    value.bind(section)
    section.finish()
  }

  private static func write<S: Settings>(_ value: S, _ binding: Binding, pattern: String) -> Node {
    let section = Section(binding, pattern: pattern, mapping: nil)
    var copy = value
    copy.bind(section)
    return Node(section.written)
  }

  /// What an element of a list is called in key paths.
  static func elementName(_ node: Node) -> String? {
    guard let name = node.mapping?["name"]?.scalar?.string, !name.isEmpty, !name.contains(".") else { return nil }
    return name
  }
}

private func isNull(_ node: Node) -> Bool {
  guard let scalar = node.scalar, scalar.style == .plain || scalar.style == .any else { return false }
  return ["", "~", "null"].contains(scalar.string)
}

private func describe(_ node: Node) -> String {
  if isNull(node) { return "empty" }
  if let text = node.scalar?.string { return "'\(text.prefix(80))'" }
  return node.sequence != nil ? "a list" : "a mapping"
}
