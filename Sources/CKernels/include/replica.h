#pragma once
#include <stddef.h>
#include <stdint.h>

// A hash table of rows with one writer and any number of readers that never wait. See replica.c for how.

// One generation of the table. Its fields never change once readers can see it; what the words and slabs hold does.
typedef struct {
  uint64_t *words;    // 1 << bits slots: 0 is free, else a tag in the upper half, a row number + 1 in the lower one
  uint64_t **slabs;   // rows [n << slab_bits, (n + 1) << slab_bits) are in slabs[n]
  uint64_t secret;    // mixed into ids before hashing, so that no stranger can make ids collide
  uint32_t bits;
  uint32_t slab_bits;
  uint32_t stride;    // 8-byte words per row: the id, the stamp of its last write, then the weights
  uint32_t dimension; // weights per row
  uint32_t half;      // 1 when weights are stored as float16
} guira_replica;

// Reader. Copies the weights of each id to `out` (count * dimension floats), or `fallback` where the id is absent;
// found[i] says which. Returns how many were found. The caller is inside a read section (reader_epochs.h).
size_t guira_replica_read(
  const guira_replica *table, const uint64_t *ids, size_t count, const float *fallback, float *out, uint8_t *found);

// Reader. The stamp of each id's last write; 0 where the id is absent.
void guira_replica_stamps(const guira_replica *table, const uint64_t *ids, size_t count, uint64_t *stamps);

// Writer. Writes each id's weights, with a stamp, into the unused row fresh[i] and then makes that row the id's. replaced[i] becomes
// the row the id had before, or -1. There must be a free slot for every id. Returns how many ids are new; *reused is
// raised by the tombstones that new ids took.
size_t guira_replica_apply(
  const guira_replica *table, const uint64_t *ids, const float *weights, size_t count, uint64_t stamp,
  const uint32_t *fresh, int64_t *replaced, size_t *reused);

// Writer. Leaves a tombstone for each id that is there; replaced[i] becomes the row it had, or -1. Returns how many were.
size_t guira_replica_remove(const guira_replica *table, const uint64_t *ids, size_t count, int64_t *replaced);

// Writer. Puts every id of `from` into the empty words of `to`, which shares its slabs and secret.
void guira_replica_rebuild(const guira_replica *from, const guira_replica *to);

// Writer. Reads slot `slot`: 0 when it holds no row, else 1 with the row's id and its weights as float32.
int guira_replica_slot(const guira_replica *table, uint64_t slot, uint64_t *id, float *weights);
