// The stages of table_find.c, included once for every kind of CPU: NAME(x) is x for that kind, WIDE says whether it
// has AVX2.

typedef struct {
  const guira_line *first[CHUNK], *second[CHUNK];
  uint8_t missed[CHUNK + 1];  // the places not found in their first line
  unsigned misses;
} NAME(chunk_state);

// Which slots hold this id, one bit each.
INLINE uint32_t NAME(match)(const guira_line *line, uint64_t id) {
#if WIDE
  __m256i same = _mm256_cmpeq_epi64(_mm256_set1_epi64x((long long)id), _mm256_loadu_si256((const void *)line->ids));
  return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(same)) | (uint32_t)(line->ids[4] == id) << 4;
#else
  return (uint32_t)(line->ids[0] == id) | (uint32_t)(line->ids[1] == id) << 1 | (uint32_t)(line->ids[2] == id) << 2 |
         (uint32_t)(line->ids[3] == id) << 3 | (uint32_t)(line->ids[4] == id) << 4;
#endif
}

// The value of an id in a line, GUIRA_EMPTY when it is not there: then the slot after the last one is read, which holds
// just that. Several matches, one of them live, are rare: unused slots keep old ids.
INLINE uint32_t NAME(value_in)(const guira_line *line, uint64_t id) {
  uint32_t matches = NAME(match)(line, id);
  uint32_t slot = (uint32_t)__builtin_ctz(matches | 1u << GUIRA_SLOTS);
  uint32_t value;
  memcpy(&value, (const char *)line + offsetof(guira_line, values) + slot * sizeof value, sizeof value);
  if (__builtin_expect((matches & (matches - 1)) != 0, 0)) {
    slot = guira_line_slot(line, id);
    value = slot == GUIRA_SLOTS ? GUIRA_EMPTY : line->values[slot];
  }
  return value;
}

INLINE void NAME(prefetch_row)(const guira_rows *rows, uint32_t row, size_t bytes) {
  const char *at = (const char *)guira_row(rows, row);
  for (size_t done = 0; done < bytes; done += 64) __builtin_prefetch(at + done, 0, 3);
}

INLINE void NAME(hash_chunk)(const guira_index *index, const uint64_t *ids, size_t count, NAME(chunk_state) *state) {
  for (size_t k = 0; k < count; k++) {
    uint64_t hash = guira_index_hash(index, ids[k]);
    state->first[k] = guira_index_line(index, guira_index_first(index, hash));
    state->second[k] = guira_index_line(index, guira_index_second(index, hash));
    guira_prefetch(state->first[k]);
  }
}

INLINE void NAME(first_chunk)(const guira_rows *rows, const uint64_t *ids, size_t count, size_t bytes, int meta,
                        NAME(chunk_state) *state, uint32_t *values) {
  unsigned misses = 0;
  for (size_t k = 0; k < count; k++) {
    uint32_t value = NAME(value_in)(state->first[k], ids[k]);
    values[k] = value;
    state->missed[misses] = (uint8_t)k;
    misses += value == GUIRA_EMPTY;
    // For a miss or a waiting id this prefetches row 0, which costs less than a branch that cannot be predicted.
    uint32_t row = (value & GUIRA_PENDING) != 0 ? 0 : value;
    NAME(prefetch_row)(rows, row, bytes);
    if (meta) guira_prefetch(guira_row_meta(rows, row));
  }
  state->misses = misses;
  for (unsigned m = 0; m < misses; m++) guira_prefetch(state->second[state->missed[m]]);
}

INLINE void NAME(second_chunk)(const guira_rows *rows, const uint64_t *ids, size_t bytes, int meta,
                         const NAME(chunk_state) *state, uint32_t *values) {
  for (unsigned m = 0; m < state->misses; m++) {
    unsigned k = state->missed[m];
    uint32_t value = values[k] = NAME(value_in)(state->second[k], ids[k]);
    uint32_t row = (value & GUIRA_PENDING) != 0 ? 0 : value;
    NAME(prefetch_row)(rows, row, bytes);
    if (meta) guira_prefetch(guira_row_meta(rows, row));
  }
}

INLINE void NAME(copy_chunk)(const guira_rows *rows, size_t count, size_t width, uint32_t oldest, uint32_t *values, float *out) {
  for (size_t k = 0; k < count; k++) {
    uint32_t value = values[k];
    if ((value & GUIRA_PENDING) != 0) continue;
    if (oldest != 0 && guira_row_seen(rows, value) < oldest) {
      values[k] = GUIRA_EMPTY;
      continue;
    }
    const float *restrict from = guira_row(rows, value);
    float *restrict to = out + k * width;
    size_t j = 0;
    for (; j + 16 <= width; j += 16) memcpy(to + j, from + j, 64);
    for (; j < width; j++) to[j] = from[j];
  }
}

INLINE size_t NAME(chunk_count)(size_t chunk, size_t count) {
  size_t left = count - chunk * CHUNK;
  return left < CHUNK ? left : CHUNK;
}

// All stages. Without `out` the rows are left to be used by the caller. `bytes` are those to prefetch of each row.
INLINE void NAME(run)(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, size_t bytes,
                size_t width, uint32_t oldest, int meta, uint32_t *values, float *out) {
  NAME(chunk_state) ring[RING];
  const guira_index i = *index;
  const guira_rows r = *rows;
  size_t chunks = (count + CHUNK - 1) / CHUNK;
  for (size_t c = 0; c < chunks + 3 * DELAY; c++) {
    if (c < chunks) NAME(hash_chunk)(&i, ids + c * CHUNK, NAME(chunk_count)(c, count), &ring[c % RING]);
    if (c >= DELAY && c - DELAY < chunks) {
      size_t n = c - DELAY, k = n * CHUNK;
      NAME(first_chunk)(&r, ids + k, NAME(chunk_count)(n, count), bytes, meta, &ring[n % RING], values + k);
    }
    if (c >= 2 * DELAY && c - 2 * DELAY < chunks) {
      size_t n = c - 2 * DELAY, k = n * CHUNK;
      NAME(second_chunk)(&r, ids + k, bytes, meta, &ring[n % RING], values + k);
    }
    if (c >= 3 * DELAY && out != NULL) {
      size_t n = c - 3 * DELAY, k = n * CHUNK;
      NAME(copy_chunk)(&r, NAME(chunk_count)(n, count), width, oldest, values + k, out + k * width);
    }
  }
}

static void NAME(gather)(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, size_t width,
                   uint32_t oldest, uint32_t *values, float *out) {
  // A table without rows has nothing to prefetch, not even row 0. Usual widths are compiled as constants.
  if (rows->count == 0) NAME(run)(index, rows, ids, count, 0, width, 0, 0, values, out);
  else if (oldest != 0) NAME(run)(index, rows, ids, count, width * 4, width, oldest, 1, values, out);
  else if (width == 16) NAME(run)(index, rows, ids, count, 64, 16, 0, 0, values, out);
  else if (width == 32) NAME(run)(index, rows, ids, count, 128, 32, 0, 0, values, out);
  else NAME(run)(index, rows, ids, count, width * 4, width, 0, 0, values, out);
}

static void NAME(find)(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, uint32_t *values) {
  if (rows->count == 0) NAME(run)(index, rows, ids, count, 0, 0, 0, 0, values, NULL);
  else NAME(run)(index, rows, ids, count, rows->stride * 4, 0, 0, 1, values, NULL);
}
