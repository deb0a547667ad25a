// The schemas of the datasets Guira knows.

extension EventSchema {
  /// KuaiRand with field set B: seven ids, eight tasks, closed by `view_end` or after 15 minutes.
  public static let kuairand = EventSchema(
    features: ["user_id", "video_id", "author_id", "tag", "duration_bucket", "tab", "hour"].map {
      FeatureSpec(name: $0)
    },
    tasks: [
      "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "is_profile_enter",
    ].map { TaskSpec(name: $0) })

  /// The synthetic traffic of `TrafficGenerator`: four ids, two tasks, closed by `view_end` or after 5 minutes.
  public static let synthetic = EventSchema(
    features: ["user_id", "item_id", "category", "hour"].map { FeatureSpec(name: $0) },
    tasks: ["click", "like"].map { TaskSpec(name: $0, windowMilliseconds: 5 * 60 * 1000) })
}
