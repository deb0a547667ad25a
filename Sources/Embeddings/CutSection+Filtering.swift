// A part of a section: the rows of the ids that somebody else owns now.

public import Base

extension CutSection {
  /// The section with the rows and counts of some ids alone.
  ///
  /// Tombstones are left out, and sketch lines too: they count ids together and cannot be taken apart.
  /// - Parameter countsExactly: whether the table it is for counts ids that wait as sections do; else counts are left out.
  public func filtered(countsExactly: Bool = true, _ isKept: (UInt64) -> Bool) -> Blob {
    let all = ids.array
    let kept = all.indices.filter { isKept(all[$0]) }
    let counted = countedIDs.array
    let keptCounts = countKind != .exact || !countsExactly ? [] : counted.indices.filter { isKept(counted[$0]) }
    var header = SectionHeader(
      weightCount: weightCount, floatCount: floatCount, rows: kept.count, counted: keptCounts.count,
      countKind: countKind, hasFrequencies: frequencies.count > 0, watermark: watermark)
    if all.isEmpty { header.hasFrequencies = false }
    var writer = ByteWriter(capacity: 256 + kept.count * (floatCount * 4 + 16))
    header.write(into: &writer)
    for place in keptCounts { writer.append(counted[place]) }
    for place in keptCounts { writer.append(countedValues[place]) }
    writer.align()
    for row in kept { writer.append(all[row]) }
    for row in kept { writer.append(seen[row]) }
    writer.align()
    if header.hasFrequencies {
      for row in kept { writer.append(frequencies[row]) }
      writer.align()
    }
    let values = floats.span
    for row in kept { writer.append(span: values.extracting(row * floatCount..<(row + 1) * floatCount)) }
    writer.align()
    return writer.finish()
  }
}
