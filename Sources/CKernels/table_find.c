// Batched look-up in the cuckoo index. Ids are worked on in chunks, and every chunk passes four stages, each some
// chunks behind the one before, so that the memory system always has work: prefetch the first lines; look there,
// prefetch the rows or the second lines; look in the second lines; use the rows. Within a stage there is nothing to
// mispredict.
#include <string.h>

#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
// Ids in a chunk, chunks between stages, and a power of two above three delays.
enum { CHUNK = 16, DELAY = 2, RING = 8 };

#define WIDE 0
#define NAME(x) x##_scalar
#include "table_find_stages.h"
#undef WIDE
#undef NAME

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt"))), apply_to = function)
#define WIDE 1
#define NAME(x) x##_avx2
#include "table_find_stages.h"
#pragma clang attribute pop
#endif

void guira_gather_scalar(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count,
                         size_t width, uint32_t oldest, uint32_t *values, float *out) {
  gather_scalar(index, rows, ids, count, width, oldest, values, out);
}

void guira_gather(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, size_t width,
                  uint32_t oldest, uint32_t *values, float *out) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    gather_avx2(index, rows, ids, count, width, oldest, values, out);
    return;
  }
#endif
  gather_scalar(index, rows, ids, count, width, oldest, values, out);
}

void guira_find(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, uint32_t *values) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    find_avx2(index, rows, ids, count, values);
    return;
  }
#endif
  find_scalar(index, rows, ids, count, values);
}
