// XXH3 from libxxhash-dev, inlined: no library to link. The wrappers exist because XXH128_hash_t is returned by value
// from an inline namespace that Swift's importer renames.
#pragma once
#define XXH_INLINE_ALL
#include <xxhash.h>

static inline uint64_t guira_xxh3_64(const void *bytes, size_t count, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes, count, seed);
}

static inline void guira_xxh3_128(const void *bytes, size_t count, uint64_t *high, uint64_t *low) {
  XXH128_hash_t hash = XXH3_128bits(bytes, count);
  *high = hash.high64;
  *low = hash.low64;
}
