import Base
import Joining
import Streams
import Testing

@Suite("Join") struct JoinTests {
  @Test func `a window closes a negative, and the label leaves only after the watermark has passed its due time`() {
    var join = Scenario(task("click"))
    join.shown(impression(1, at: 1000))
    #expect(join.pass(1100).isEmpty)
    let examples = join.pass(1101)
    #expect(examples.map(\.brief) == ["1@1000 due 1100 [-]"])
    #expect(examples.map(\.arrival) == [0])
    #expect(examples.map(\.ordinal) == [Position(low: 1)])
    #expect(examples.map(\.rates) == [[1]])
    #expect(examples.map(\.predictions) == [[1]])
    #expect(examples.map(\.features.bytes) == [[0, 1]])
  }

  @Test func `a closing action closes before the window, for positive and negative alike`() {
    var join = Scenario(task("click"), task("like"))
    join.shown(impression(1, at: 1000))
    join.done(action("click", 1, at: 1010, arrival: 5))
    join.done(action("end", 1, at: 1020, arrival: 4))
    let examples = join.pass(1021)
    #expect(examples.map(\.brief) == ["1@1000 due 1020 [+ -]"])
    #expect(examples.map(\.arrival) == [5], "the newest arrival among label and closing")
  }

  @Test func `an action after the close does not count, one at the very close does`() {
    var join = Scenario(task("click"), task("like"))
    join.shown(impression(1, at: 1000))
    join.done(action("click", 1, at: 1020))
    join.done(action("end", 1, at: 1020))
    join.done(action("like", 1, at: 1021))
    #expect(join.pass(2000).map(\.brief) == ["1@1000 due 1020 [+ -]"])
  }

  @Test func `a closing action after the window closes nothing`() {
    var join = Scenario(task("click"))
    join.shown(impression(1, at: 1000))
    join.done(action("end", 1, at: 1101, arrival: 9))
    let examples = join.pass(2000)
    #expect(examples.map(\.brief) == ["1@1000 due 1100 [-]"])
    #expect(examples.map(\.arrival) == [0])
  }

  @Test func `an eager positive leaves at its action, an eager negative at the close`() {
    var join = Scenario(task("click", delivery: .eager), task("like", delivery: .eager))
    join.shown(impression(1, at: 1000))
    join.done(action("click", 1, at: 1010, arrival: 5))
    join.done(action("end", 1, at: 1050, arrival: 6))
    #expect(join.pass(1011).map(\.brief) == ["1@1000 due 1010 [+ .]"])
    let later = join.pass(1051)
    #expect(later.map(\.brief) == ["1@1000 due 1050 [. -]"])
    #expect(later.map(\.arrival) == [6])
  }

  @Test func `labels due at once travel together, others apart in the order of their due times`() {
    var join = Scenario(
      task("a", window: 50), task("b", window: 200, closing: []), task("c", window: 50),
      task("d", window: 20, delivery: .eager))
    join.shown(impression(1, at: 1000))
    join.done(action("d", 1, at: 1010))
    join.done(action("c", 1, at: 1020))
    #expect(
      join.pass(5000).map(\.brief) == [
        "1@1000 due 1010 [. . . +]", "1@1000 due 1050 [- . + .]", "1@1000 due 1200 [. - . .]",
      ])
    #expect(join.core.counters.labels.map(\.emitted) == [1, 1, 1, 1])
    #expect(join.core.counters.labels.map(\.positive) == [0, 0, 1, 1])
    #expect(join.core.counters.examples == 3)
  }

  @Test func `actions wait for their impression, and expire when it does not come`() {
    var join = Scenario(task("click"), grace: 50)
    join.done(action("click", 1, at: 1000))
    join.done(action("end", 1, at: 1010))
    join.done(action("click", 2, at: 1010))
    #expect(join.core.waitingActions == 3)
    join.shown(impression(1, at: 990))
    #expect(join.core.waitingActions == 1)
    #expect(join.pass(1160).map(\.brief) == ["1@990 due 1010 [+]"])
    #expect(join.core.counters.expiredActions == 0)
    _ = join.pass(1161)
    #expect(join.core.counters.expiredActions == 1)
    #expect(join.core.counters.hit == 2)
    #expect(join.core.waitingActions == 0)
  }

  @Test func `late is behind one's own partition, whatever the others do`() {
    var join = Scenario(
      JoinRules(tasks: [task("click")], impressionPartitions: 1, actionPartitions: 2, graceMilliseconds: 1000))
    join.shown(impression(1, at: 1000))
    join.shown(.watermark(time: 9000))
    join.done(.watermark(time: 1011), partition: 0)
    join.done(action("click", 1, at: 1010), partition: 0)
    #expect(join.core.counters.lateActions == 1)
    join.done(action("click", 1, at: 1010), partition: 1)
    #expect(join.core.counters.lateActions == 1)
    #expect(join.pass(9000).map(\.brief) == ["1@1000 due 1100 [+]"])
  }

  @Test func `the newest event moves a partition's watermark, less the allowed lateness`() {
    var join = Scenario(task("click"), lateness: 20)
    join.shown(impression(1, at: 1000))
    join.done(action("click", 9, at: 1080))
    join.done(action("click", 1, at: 1060))
    join.done(action("click", 1, at: 1059))
    #expect(join.core.counters.lateActions == 1)
    join.shown(impression(2, at: 1120))
    #expect(join.core.watermark == 1060)
    join.done(action("click", 9, at: 1120))
    #expect(join.core.takeExamples().isEmpty)
    #expect(join.pass(1101).map(\.brief) == ["1@1000 due 1100 [+]"])
  }

  @Test func `late actions are handed over when the rules want them`() {
    var rules = JoinRules(tasks: [task("click")])
    rules.emitsLateActions = true
    var join = Scenario(rules)
    join.done(.watermark(time: 2000))
    join.done(action("click", 4, at: 1000, arrival: 3))
    #expect(
      join.core.takeLateActions()
        == [Action(impression: ImpressionID(4), name: "click", time: 1000, arrival: 3)])
    #expect(join.core.takeLateActions().isEmpty)
  }

  @Test func `a late impression still joins, one beyond the memory is refused`() {
    var join = Scenario(task("click"), grace: 1000)
    join.done(action("click", 1, at: 1010))
    join.shown(.watermark(time: 2100))
    join.shown(impression(1, at: 1000))
    join.shown(impression(2, at: 999))
    #expect(join.core.counters.lateImpressions == 1)
    #expect(join.core.counters.refusedImpressions == 1)
    #expect(join.pass(2100).map(\.brief) == ["1@1000 due 1100 [+]"])
  }

  @Test(arguments: [false, true])
  func `an action that could have expired before its late impression never counts`(actionFirst: Bool) {
    for (time, label) in [(949, "-"), (950, "+")] as [(Milliseconds, String)] {
      var join = Scenario(task("click"), grace: 1000)  // ids and actions are kept for 1100 ms
      if actionFirst { join.done(action("click", 1, at: time)) }
      join.shown(.watermark(time: 2050))
      join.shown(impression(1, at: 1000))
      if !actionFirst { join.done(action("click", 1, at: time)) }
      #expect(join.pass(2100).map(\.brief) == ["1@1000 due 1100 [\(label)]"])
      #expect(join.core.counters.expiredActions == (label == "-" ? 1 : 0))
      #expect(join.core.counters.hit == (label == "-" ? 0 : 1))
    }
  }

  @Test func `repeated impressions and actions change nothing and are counted`() {
    var join = Scenario(task("click"))
    join.shown(impression(1, at: 1000, feature: 1))
    join.shown(impression(1, at: 1000, feature: 2))
    join.done(action("click", 1, at: 1010, arrival: 9))
    join.done(action("click", 1, at: 1010, arrival: 4))
    let examples = join.pass(1101)
    #expect(examples.map(\.features.bytes) == [[1, 1]])
    #expect(examples.map(\.arrival) == [4], "of repeated actions the one that arrived first")
    join.shown(impression(1, at: 1000, feature: 3))
    #expect(join.pass(1500).isEmpty)
    #expect(join.core.counters.duplicateImpressions == 2)
    #expect(join.core.counters.duplicateActions == 1)
  }

  @Test func `an id is remembered for window and grace, then forgotten`() {
    var join = Scenario(task("click"), grace: 1000)
    join.shown(impression(1, at: 1000))
    _ = join.pass(1101)
    #expect(join.core.rememberedImpressions == 1)
    _ = join.pass(200_000)
    #expect(join.core.rememberedImpressions == 0)
  }

  @Test func `an unknown action is counted and a record read twice is skipped`() {
    var join = Scenario(task("click"))
    join.done(action("hover", 1, at: 1000))
    join.core.take(action("hover", 1, at: 1000), from: JoinInput(.actions, 0), at: Position(low: 1))
    join.core.skip(from: JoinInput(.actions, 0), at: Position(low: 2))
    #expect(join.core.counters.unusedActions == 1)
    #expect(join.core.counters.actions == 1)
    #expect(join.core.counters.malformed == 1)
    #expect(join.core.position(of: JoinInput(.actions, 0)) == Position(low: 2))
  }

  @Test func `sampling drops negatives by the impression id and never positives`() {
    var join = Scenario(task("click", rate: 0.25), task("like", rate: 0.25))
    var random = SeededRandom(seed: 5)
    let count = 4000
    for id in 0..<UInt64(count) {
      join.shown(impression(id, at: 1000))
      if random.uniform() < 0.5 { join.done(action("click", id, at: 1000)) }
    }
    let examples = join.pass(5000)
    let counts = join.core.counters
    for (index, labels) in counts.labels.enumerated() {
      let negatives = examples.count { $0.labels[index] == .negative }
      #expect(UInt64(examples.count { $0.labels[index] == .positive }) == labels.positive)
      #expect(UInt64(negatives) == labels.emitted - labels.positive)
      #expect(labels.emitted + labels.sampled == UInt64(count))
      let share = Double(negatives) / Double(UInt64(negatives) + labels.sampled)
      #expect(abs(share - 0.25) < 0.03)
    }
    #expect(counts.labels[0].positive > 1900)
    #expect(examples.allSatisfy { $0.labels != [.masked, .masked] })
    #expect(examples.allSatisfy { $0.rates == [0.25, 0.25] })
    let bothNegative = examples.count { $0.labels[0] == .negative && $0.labels[1] == .negative }
    #expect(bothNegative < 250, "tasks are sampled independently")
  }

  @Test func `examples go to the partition of their impression's hash`() {
    var rules = JoinRules(tasks: [task("click")])
    rules.outputPartitions = 3
    var join = Scenario(rules)
    for id in 0..<50 as Range<UInt64> { join.shown(impression(id, at: 1000)) }
    join.shown(.watermark(time: 2000))
    join.done(.watermark(time: 2000))
    let joined = join.core.takeExamples()
    #expect(joined.count == 50)
    for each in joined { #expect(each.partition == Int(each.example.impression.hash64 % 3)) }
    #expect(Set(joined.map(\.partition)).count == 3)
  }

  @Test func `absurd times neither trap nor hold up the rest`() {
    var join = Scenario(task("click"), task("like", delivery: .eager))
    join.shown(impression(1, at: .min))
    join.done(action("click", 1, at: .min))
    join.shown(impression(2, at: .max))
    join.done(action("end", 2, at: .max))
    #expect(join.pass(.max).map(\.impression) == [ImpressionID(1)])
  }

  @Test func `rules that cannot work are told in words`() {
    let rules = JoinRules(tasks: [task("click", window: -1, rate: 0), task("click")], outputPartitions: 0)
    #expect(
      rules.problems() == [
        "the window of click is -1 ms; use 0 ... 315360000000",
        "the negative rate of click is 0.0; use a number above 0, up to 1", "the task click is given twice",
        "the example stream has 0 partitions; use 1 ... 65536",
      ])
  }
}
