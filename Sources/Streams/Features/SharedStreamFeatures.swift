// Stream features of a process that answers requests: one thread keeps them up with the streams, others read values.

public import Base
internal import Synchronization

/// Stream features behind a lock.
public final class SharedStreamFeatures: Sendable {
  private let features: Mutex<StreamFeatures>

  /// Shares features.
  public init(_ features: StreamFeatures) { self.features = Mutex(features) }

  /// The features of an impression shown at `time` with the values as far as events have been counted.
  ///
  /// Those that are not of the schema come back as they are.
  public func filled(_ block: FeatureBlock, at time: Milliseconds) -> FeatureBlock {
    features.withLock { $0.filled(block, at: time) } ?? block
  }

  /// Lends the features to `body`; readers wait meanwhile.
  public func update<Result>(_ body: (inout StreamFeatures) -> Result) -> Result where Result: Sendable {
    features.withLock { body(&$0) }
  }
}
