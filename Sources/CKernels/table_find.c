// Batched look-up in the cuckoo index. Ids are worked on in chunks, and every chunk passes four stages, each one chunk
// behind the one before, so that the memory system always has work: prefetch the first lines; look there, prefetch the rows
// or the second lines; look in the second lines; use the rows. Within a stage there is nothing to mispredict.
#include <string.h>

#include "CKernels.h"
#include "clones.h"

enum { CHUNK = 32, RING = 4 };

typedef struct {
  const guira_line *first[CHUNK], *second[CHUNK];
  uint8_t missed[CHUNK];  // the places not found in their first line
  unsigned misses;
} chunk_state;

static inline void prefetch_row(const guira_rows *rows, uint32_t row, size_t bytes, int write) {
  const char *at = (const char *)guira_row(rows, row);
  for (size_t done = 0; done < bytes; done += 64) {
    if (write) __builtin_prefetch(at + done, 1, 3);
    else __builtin_prefetch(at + done, 0, 3);
  }
}

static inline void hash_chunk(const guira_index *index, const uint64_t *ids, size_t count, chunk_state *state) {
  for (size_t k = 0; k < count; k++) {
    uint64_t hash = guira_index_hash(index, ids[k]);
    state->first[k] = guira_index_line(index, guira_index_first(index, hash));
    state->second[k] = guira_index_line(index, guira_index_second(index, hash));
    guira_prefetch(state->first[k]);
  }
}

static inline void first_chunk(const guira_rows *rows, const uint64_t *ids, size_t count, size_t bytes, int write, int meta,
                               chunk_state *state, uint32_t *values) {
  unsigned misses = 0;
  for (size_t k = 0; k < count; k++) {
    uint32_t value = guira_line_find(state->first[k], ids[k]);
    values[k] = value;
    state->missed[misses] = (uint8_t)k;
    misses += value == GUIRA_EMPTY;
    // A miss or a waiting id prefetches row 0 or nothing, which costs less than a branch that cannot be predicted.
    uint32_t row = (value & GUIRA_PENDING) != 0 ? 0 : value;
    prefetch_row(rows, row, bytes, write);
    if (meta) __builtin_prefetch(guira_row_meta(rows, row), 1, 3);
  }
  state->misses = misses;
  for (unsigned m = 0; m < misses; m++) guira_prefetch(state->second[state->missed[m]]);
}

static inline void second_chunk(const guira_rows *rows, const uint64_t *ids, size_t bytes, int write, int meta,
                                const chunk_state *state, uint32_t *values) {
  for (unsigned m = 0; m < state->misses; m++) {
    unsigned k = state->missed[m];
    uint32_t value = values[k] = guira_line_find(state->second[k], ids[k]);
    if ((value & GUIRA_PENDING) != 0) continue;
    prefetch_row(rows, value, bytes, write);
    if (meta) __builtin_prefetch(guira_row_meta(rows, value), 1, 3);
  }
}

static inline size_t chunk_count(size_t chunk, size_t count) {
  size_t left = count - chunk * CHUNK;
  return left < CHUNK ? left : CHUNK;
}

void guira_find(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, uint32_t *values) {
  chunk_state ring[RING];
  size_t chunks = (count + CHUNK - 1) / CHUNK, bytes = rows->count == 0 ? 0 : rows->stride * sizeof(float);
  for (size_t c = 0; c < chunks + 2; c++) {
    if (c < chunks) hash_chunk(index, ids + c * CHUNK, chunk_count(c, count), &ring[c % RING]);
    if (c >= 1 && c - 1 < chunks) {
      size_t k = (c - 1) * CHUNK;
      first_chunk(rows, ids + k, chunk_count(c - 1, count), bytes, 1, bytes != 0, &ring[(c - 1) % RING], values + k);
    }
    if (c >= 2) {
      size_t k = (c - 2) * CHUNK;
      second_chunk(rows, ids + k, bytes, 1, bytes != 0, &ring[(c - 2) % RING], values + k);
    }
  }
}

static inline void copy_floats(float *restrict to, const float *restrict from, size_t width) {
  size_t j = 0;
  for (; j + 16 <= width; j += 16) memcpy(to + j, from + j, 64);
  for (; j < width; j++) to[j] = from[j];
}

GUIRA_CLONES
void guira_gather(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, size_t width,
                  uint32_t oldest, uint32_t *values, float *out) {
  chunk_state ring[RING];
  size_t chunks = (count + CHUNK - 1) / CHUNK, bytes = rows->count == 0 ? 0 : width * sizeof(float);
  int meta = oldest != 0 && bytes != 0;
  for (size_t c = 0; c < chunks + 3; c++) {
    if (c < chunks) hash_chunk(index, ids + c * CHUNK, chunk_count(c, count), &ring[c % RING]);
    if (c >= 1 && c - 1 < chunks) {
      size_t k = (c - 1) * CHUNK;
      first_chunk(rows, ids + k, chunk_count(c - 1, count), bytes, 0, meta, &ring[(c - 1) % RING], values + k);
    }
    if (c >= 2 && c - 2 < chunks) {
      size_t k = (c - 2) * CHUNK;
      second_chunk(rows, ids + k, bytes, 0, meta, &ring[(c - 2) % RING], values + k);
    }
    if (c >= 3) {
      size_t start = (c - 3) * CHUNK, end = start + chunk_count(c - 3, count);
      for (size_t k = start; k < end; k++) {
        uint32_t value = values[k];
        if ((value & GUIRA_PENDING) != 0) continue;
        if (meta && guira_row_seen(rows, value) < oldest) {
          values[k] = GUIRA_EMPTY;
          continue;
        }
        copy_floats(out + k * width, guira_row(rows, value), width);
      }
    }
  }
}
