// Reading: `pull` answers rows and changes nothing.

public import Base
internal import CKernels

extension Table {
  /// Answers the weights of ids: of their row; the initial ones when this sighting would admit the id; else the
  /// default.
  ///
  /// - Parameters:
  ///   - ids: any ids, repeated ones too.
  ///   - sightings: how often each occurs in the batch, or empty for once each.
  ///   - eventTime: the newest event time of the batch.
  ///   - weights: `[ids.count × weightCount]`, overwritten.
  public func pull(
    ids: Span<UInt64>, sightings: Span<UInt32>, eventTime: Milliseconds, into weights: inout MutableSpan<Float>
  ) {
    precondition(
      weights.count == ids.count * weightCount, "\(weights.count) floats for \(ids.count) rows of \(weightCount)")
    precondition(sightings.isEmpty || sightings.count == ids.count, "\(sightings.count) sightings for \(ids.count) ids")
    guard !ids.isEmpty else { return }
    let now = clock.now(eventTime)
    let oldest = clock.oldest(at: now)
    let width = weightCount
    let chunk = 1024
    unsafe withUnsafeTemporaryAllocation(of: UInt32.self, capacity: chunk) { values in
      unsafe ids.withUnsafeBufferPointer { ids in
        unsafe weights.withUnsafeMutableBufferPointer { out in
          for start in stride(from: 0, to: ids.count, by: chunk) {
            let count = min(chunk, ids.count - start)
            unsafe guira_gather(
              index.view, rows.view, ids.baseAddress! + start, count, width, oldest, values.baseAddress!,
              out.baseAddress! + start * width)
            for place in 0..<count where unsafe values[place] & CuckooIndex.pending != 0 {
              let sightings = sightings.isEmpty ? 1 : Int(sightings[start + place])
              unsafe answerAbsent(
                ids[start + place], value: values[place], sightings: sightings, now: now, oldest: oldest,
                out.baseAddress! + (start + place) * width)
            }
          }
        }
      }
    }
  }

  private func answerAbsent(
    _ id: UInt64, value: UInt32, sightings: Int, now: Milliseconds, oldest: UInt32,
    _ weights: UnsafeMutablePointer<Float>
  ) {
    let value = value == CuckooIndex.empty ? index.findStashed(id) : value
    if value & CuckooIndex.pending == 0, rows.seen(value) >= oldest {
      unsafe weights.update(from: rows.floats(value), count: weightCount)
    } else if sighted(id, value: value, times: sightings, now: now).isAdmitted, hasRoom() {
      unsafe fillInitial(id, weights)
    } else {
      unsafe weights.update(repeating: options.defaultWeight, count: weightCount)
    }
  }

  /// What some sightings of an id without a row come to: its count then, and whether that admits it.
  func sighted(_ id: UInt64, value: UInt32, times: Int, now: Milliseconds) -> (count: Int, isAdmitted: Bool) {
    switch options.admission {
    case .always: return (1, true)
    case .probability(let share):
      let draw = Double(Hashing.mix(Hashing.mix(id) &+ seed) >> 11) * 0x1p-53
      return (1, draw < share)
    case .count:
      var before = 0
      if value != CuckooIndex.empty, !clock.isPast(stamp: value >> 16 & 0x7FFF, at: now) {
        before = Int(value & 0xFFFF)
      }
      return (before + times, before + times >= threshold)
    case .sketch:
      let before = sketch.estimate(id, generation: TableClock.generation(now, ageing: ageing))
      return (before + times, before + times >= threshold)
    }
  }
}
