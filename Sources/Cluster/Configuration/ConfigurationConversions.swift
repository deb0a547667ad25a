// From what the file says to what the parts want to know.

internal import Base
public import Streams

extension ClusterConfiguration {
  /// The features and tasks of the events, in the order of the file.
  public var eventSchema: EventSchema {
    EventSchema(
      features: features.map { FeatureSpec(name: $0.name, kind: $0.kind) },
      tasks: tasks.map { task in
        TaskSpec(
          name: task.name, positiveActions: task.positive, closingActions: task.closing,
          windowMilliseconds: task.window.milliseconds, delivery: task.delivery, negativeRate: task.negativeRate)
      })
  }
}
