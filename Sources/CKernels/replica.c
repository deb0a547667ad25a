// Open addressing with linear probing. An id's hash gives a 32-bit tag; the tag's top bits are its home slot, so a
// larger index is filled in one sequential pass over the smaller one, without touching a row. A slot is one atomic word.
//
// A row is never changed while readers can reach it: an update writes a row nobody uses and then swings the slot to it.
// The old row is used again only when every reader that might still look at it has left its read section. So readers
// take no lock, never retry and never see a torn row. A row begins with its id, which settles equal tags.
#include "CKernels.h"

#include <string.h>

#define TOMBSTONE 0xFFFFFFFFu
#define BLOCK 16  // ids whose memory is fetched together

static inline uint64_t mix(uint64_t word) {
  uint64_t z = word + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static inline uint32_t tag_of(const guira_replica *table, uint64_t id) {
  return (uint32_t)(mix(id ^ table->secret) >> 32);
}

static inline uint64_t home_of(const guira_replica *table, uint32_t tag) { return tag >> (32 - table->bits); }

static inline uint64_t load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void publish(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

static inline uint64_t *row_at(const guira_replica *table, uint32_t row) {
  uint64_t *slab = table->slabs[row >> table->slab_bits];
  return slab + (size_t)(row & ((1u << table->slab_bits) - 1)) * table->stride;
}

static inline int is_row(uint64_t word) { return word != 0 && (uint32_t)word != TOMBSTONE; }

// float16 in rows ------------------------------------------------------------------------------------------------------

static inline void read_weights(const guira_replica *table, const uint64_t *row, float *out) {
  if (table->half) guira_from_half((const uint16_t *)(row + 2), table->dimension, out);
  else memcpy(out, row + 2, table->dimension * sizeof(float));
}

static inline void write_row(
  const guira_replica *table, uint64_t *row, uint64_t id, uint64_t stamp, const float *weights) {
  row[0] = id;
  row[1] = stamp;
  if (table->half) guira_to_half(weights, table->dimension, (uint16_t *)(row + 2));
  else memcpy(row + 2, weights, table->dimension * sizeof(float));
}

// Look-up --------------------------------------------------------------------------------------------------------------

// The first slot at or after `slot` that holds `tag`, or that is free.
static inline uint64_t probe(const guira_replica *table, uint32_t tag, uint64_t slot, uint64_t *word) {
  uint64_t mask = ((uint64_t)1 << table->bits) - 1;
  for (;; slot = (slot + 1) & mask) {
    *word = load(table->words + slot);
    if (*word == 0 || (is_row(*word) && (uint32_t)(*word >> 32) == tag)) return slot;
  }
}

// Fetches what BLOCK look-ups need: first the words, then, where a tag matches, the row. The rest of a look-up then
// finds its memory in the cache.
static inline void fetch(
  const guira_replica *table, const uint64_t *ids, size_t count, uint32_t *tags, uint64_t *slots, uint64_t *words) {
  for (size_t i = 0; i < count; i++) {
    tags[i] = tag_of(table, ids[i]);
    slots[i] = home_of(table, tags[i]);
    __builtin_prefetch(table->words + slots[i]);
  }
  for (size_t i = 0; i < count; i++) {
    slots[i] = probe(table, tags[i], slots[i], &words[i]);
    if (words[i] == 0) continue;
    const char *row = (const char *)row_at(table, (uint32_t)words[i] - 1);
    size_t bytes = table->stride * 8 < 512 ? table->stride * 8 : 512;  // the hardware fetches on by itself
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
  }
}

size_t guira_replica_read(
  const guira_replica *table, const uint64_t *ids, size_t count, const float *fallback, float *out, uint8_t *found) {
  uint32_t tags[BLOCK];
  uint64_t slots[BLOCK], words[BLOCK], mask = ((uint64_t)1 << table->bits) - 1;
  size_t hits = 0, dimension = table->dimension;
  for (size_t begin = 0; begin < count; begin += BLOCK) {
    size_t block = count - begin < BLOCK ? count - begin : BLOCK;
    fetch(table, ids + begin, block, tags, slots, words);
    for (size_t i = 0; i < block; i++) {
      const uint64_t *row = NULL;
      uint64_t word = words[i], slot = slots[i];
      while (word != 0) {
        row = row_at(table, (uint32_t)word - 1);
        if (row[0] == ids[begin + i]) break;
        row = NULL;
        slot = probe(table, tags[i], (slot + 1) & mask, &word);
      }
      float *to = out + (begin + i) * dimension;
      if (row) read_weights(table, row, to);
      else memcpy(to, fallback, dimension * sizeof(float));
      found[begin + i] = row != NULL;
      hits += row != NULL;
    }
  }
  return hits;
}

// Writer ---------------------------------------------------------------------------------------------------------------

// The slot of `id`, with its word; or, with word 0, the slot where the id should go: the first tombstone or free slot.
static inline uint64_t find(const guira_replica *table, uint64_t id, uint32_t tag, uint64_t *word, int *tombstone) {
  uint64_t mask = ((uint64_t)1 << table->bits) - 1, slot = home_of(table, tag), empty = 0;
  *tombstone = 0;
  for (;; slot = (slot + 1) & mask) {
    *word = load(table->words + slot);
    if (*word == 0) return *tombstone ? empty : slot;
    if ((uint32_t)*word == TOMBSTONE) {
      if (!*tombstone) empty = slot;
      *tombstone = 1;
    } else if ((uint32_t)(*word >> 32) == tag && row_at(table, (uint32_t)*word - 1)[0] == id) {
      return slot;
    }
  }
}

size_t guira_replica_apply(
  const guira_replica *table, const uint64_t *ids, const float *weights, size_t count, uint64_t stamp,
  const uint32_t *fresh, int64_t *replaced, size_t *reused) {
  uint32_t tags[BLOCK];
  uint64_t slots[BLOCK], words[BLOCK];
  size_t inserted = 0;
  for (size_t begin = 0; begin < count; begin += BLOCK) {
    size_t block = count - begin < BLOCK ? count - begin : BLOCK;
    for (size_t i = 0; i < block; i++) {
      const char *row = (const char *)row_at(table, fresh[begin + i]);
      size_t bytes = table->stride * 8 < 512 ? table->stride * 8 : 512;
      for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 1);
    }
    for (size_t i = 0; i < block; i++) {
      tags[i] = tag_of(table, ids[begin + i]);
      slots[i] = home_of(table, tags[i]);
      __builtin_prefetch(table->words + slots[i], 1);
    }
    for (size_t i = 0; i < block; i++) {
      probe(table, tags[i], slots[i], &words[i]);
      if (words[i] != 0) __builtin_prefetch(row_at(table, (uint32_t)words[i] - 1));  // only its id will be read
    }
    for (size_t i = begin; i < begin + block; i++) {
      write_row(table, row_at(table, fresh[i]), ids[i], stamp, weights + i * table->dimension);
      uint64_t word;
      int tombstone;
      uint64_t slot = find(table, ids[i], tags[i - begin], &word, &tombstone);
      replaced[i] = word != 0 ? (int64_t)((uint32_t)word - 1) : -1;
      if (word == 0) {
        inserted++;
        *reused += tombstone;
      }
      publish(table->words + slot, (uint64_t)tags[i - begin] << 32 | (fresh[i] + 1));
    }
  }
  return inserted;
}

void guira_replica_stamps(const guira_replica *table, const uint64_t *ids, size_t count, uint64_t *stamps) {
  for (size_t i = 0; i < count; i++) {
    uint64_t word;
    int tombstone;
    find(table, ids[i], tag_of(table, ids[i]), &word, &tombstone);
    stamps[i] = word != 0 ? row_at(table, (uint32_t)word - 1)[1] : 0;
  }
}

size_t guira_replica_remove(const guira_replica *table, const uint64_t *ids, size_t count, int64_t *replaced) {
  size_t removed = 0;
  for (size_t i = 0; i < count; i++) {
    uint64_t word;
    int tombstone;
    uint64_t slot = find(table, ids[i], tag_of(table, ids[i]), &word, &tombstone);
    replaced[i] = word != 0 ? (int64_t)((uint32_t)word - 1) : -1;
    if (word == 0) continue;
    publish(table->words + slot, TOMBSTONE);
    removed++;
  }
  return removed;
}

void guira_replica_rebuild(const guira_replica *from, const guira_replica *to) {
  uint64_t mask = ((uint64_t)1 << to->bits) - 1;
  for (uint64_t old = 0; old < (uint64_t)1 << from->bits; old++) {
    uint64_t word = from->words[old];
    if (!is_row(word)) continue;
    uint64_t slot = home_of(to, (uint32_t)(word >> 32));
    while (to->words[slot] != 0) slot = (slot + 1) & mask;
    to->words[slot] = word;
  }
}

int guira_replica_slot(const guira_replica *table, uint64_t slot, uint64_t *id, float *weights) {
  uint64_t word = table->words[slot];
  if (!is_row(word)) return 0;
  const uint64_t *row = row_at(table, (uint32_t)word - 1);
  *id = row[0];
  read_weights(table, row, weights);
  return 1;
}
