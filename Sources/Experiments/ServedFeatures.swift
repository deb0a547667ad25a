// Stream features under data time, as a replica keeps them up: the events in time, and a frontier that follows the
// watermark and never passes the clock (StreamFeatureFollower is the same over streams). Belongs to one thread.

internal import Base
internal import Joining
internal import Streams

/// What a replica knows of the stream at a moment of data time.
struct ServedFeatures {
  /// What the predictor puts into candidates.
  let shared: SharedStreamFeatures
  private let delay: Int64
  private let lateness: Int64
  private var watermark = Milliseconds.min
  /// All events before it, less the delay, count.
  private(set) var frontier = Milliseconds.min

  /// Features that have seen nothing; nil when none are computed from the stream.
  ///
  /// - Parameter lateness: how far a record may lie behind a later one.
  init?(_ rules: StreamFeatureRules?, lateness: Int64) {
    guard let rules else { return nil }
    shared = SharedStreamFeatures(StreamFeatures(rules))
    delay = rules.delayMilliseconds
    self.lateness = lateness
  }

  /// Counts all that a replica has counted at a moment.
  mutating func advance(to moment: Milliseconds) {
    watermark = max(watermark, moment.earlier(by: lateness))
    frontier = min(watermark.later(by: delay), moment)
    shared.update { $0.advance(to: frontier) }
  }

  /// Takes an event, unless it is late.
  func take(_ event: Event) {
    guard event.time >= watermark else { return }
    shared.update { _ = $0.take(event) }
  }

  /// The features that every impression of a recording is served with.
  static func all(_ recording: Recording, _ rules: StreamFeatureRules?) -> [FeatureBlock] {
    guard var features = ServedFeatures(rules, lateness: recording.latenessMilliseconds) else {
      return recording.features
    }
    var now = Milliseconds.min
    var blocks: [FeatureBlock] = []
    blocks.reserveCapacity(recording.impressions)
    for event in recording.events {
      if event.time > now {
        now = event.time
        features.advance(to: now)
      }
      if case .impression(let impression) = event {
        blocks.append(features.shared.filled(impression.features, at: impression.time))
      }
      features.take(event)
    }
    return blocks
  }
}
