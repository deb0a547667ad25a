// Batched look-up in the cuckoo index. Every id passes four stages, each some ids behind the one before, so that the
// memory system always has work: prefetch the first line; look there, prefetch the row or the second line; look in the
// second line; use the row.
#include <string.h>

#include "CKernels.h"
#include "clones.h"

enum { AHEAD = 14, RING = 64 };

static inline uint32_t value_in(const guira_line *line, uint64_t id) {
  uint32_t slot = guira_line_slot(line, id);
  return slot == GUIRA_SLOTS ? GUIRA_EMPTY : line->values[slot];
}

static inline void prefetch_bytes(const float *row, size_t bytes, int write) {
  const char *at = (const char *)row;
  for (size_t done = 0; done < bytes; done += 64) {
    if (write) __builtin_prefetch(at + done, 1, 3);
    else __builtin_prefetch(at + done, 0, 3);
  }
}

void guira_find(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, uint32_t *values) {
  const guira_line *first[RING], *second[RING];
  size_t bytes = rows->stride * sizeof(float);
  for (size_t i = 0; i < count + 2 * AHEAD; i++) {
    if (i < count) {
      uint64_t hash = guira_index_hash(index, ids[i]);
      first[i % RING] = guira_index_line(index, guira_index_first(index, hash));
      second[i % RING] = guira_index_line(index, guira_index_second(index, hash));
      guira_prefetch(first[i % RING]);
    }
    if (i >= AHEAD && i < count + AHEAD) {
      size_t k = i - AHEAD;
      uint32_t value = values[k] = value_in(first[k % RING], ids[k]);
      if (value == GUIRA_EMPTY) guira_prefetch(second[k % RING]);
    }
    if (i >= 2 * AHEAD) {
      size_t k = i - 2 * AHEAD;
      uint32_t value = values[k];
      if (value == GUIRA_EMPTY) value = values[k] = value_in(second[k % RING], ids[k]);
      if ((value & GUIRA_PENDING) == 0) {
        __builtin_prefetch(guira_row_meta(rows, value), 1, 3);
        prefetch_bytes(guira_row(rows, value), bytes, 1);
      }
    }
  }
}

GUIRA_CLONES
void guira_gather(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, size_t width,
                  uint32_t oldest, uint32_t *values, float *out) {
  const guira_line *first[RING], *second[RING];
  size_t bytes = width * sizeof(float);
  for (size_t i = 0; i < count + 3 * AHEAD; i++) {
    if (i < count) {
      uint64_t hash = guira_index_hash(index, ids[i]);
      first[i % RING] = guira_index_line(index, guira_index_first(index, hash));
      second[i % RING] = guira_index_line(index, guira_index_second(index, hash));
      guira_prefetch(first[i % RING]);
    }
    if (i >= AHEAD && i < count + AHEAD) {
      size_t k = i - AHEAD;
      uint32_t value = values[k] = value_in(first[k % RING], ids[k]);
      if (value == GUIRA_EMPTY) guira_prefetch(second[k % RING]);
      else if ((value & GUIRA_PENDING) == 0) {
        prefetch_bytes(guira_row(rows, value), bytes, 0);
        if (oldest != 0) guira_prefetch(guira_row_meta(rows, value));
      }
    }
    if (i >= 2 * AHEAD && i < count + 2 * AHEAD) {
      size_t k = i - 2 * AHEAD;
      if (values[k] == GUIRA_EMPTY) {
        uint32_t value = values[k] = value_in(second[k % RING], ids[k]);
        if ((value & GUIRA_PENDING) == 0) {
          prefetch_bytes(guira_row(rows, value), bytes, 0);
          if (oldest != 0) guira_prefetch(guira_row_meta(rows, value));
        }
      }
    }
    if (i >= 3 * AHEAD) {
      size_t k = i - 3 * AHEAD;
      uint32_t value = values[k];
      if ((value & GUIRA_PENDING) != 0) continue;
      if (oldest != 0 && guira_row_seen(rows, value) < oldest) {
        values[k] = GUIRA_EMPTY;
        continue;
      }
      const float *row = guira_row(rows, value);
      float *to = out + k * width;
      for (size_t j = 0; j < width; j++) to[j] = row[j];
    }
  }
}
