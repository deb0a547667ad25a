#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>

// The id streams of `guira bench table`, here so that the C++ peers in Tests/Peers run on the very same ids, and the
// physical limit they are all held against.

static inline uint64_t guira_stream_mix(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The id of rank `rank`: distinct for distinct ranks.
static inline uint64_t guira_stream_id(uint64_t seed, uint64_t rank) { return guira_stream_mix(rank ^ seed << 40); }

static inline double guira_stream_uniform(uint64_t *state) {
  *state = guira_stream_mix(*state);
  return (double)(*state >> 11) * 0x1p-53;
}

// Ranks 0 ..< count, all alike.
static inline void guira_stream_ranks_uniform(uint64_t seed, uint64_t count, uint32_t *out, size_t length) {
  uint64_t state = seed;
  for (size_t i = 0; i < length; i++) out[i] = (uint32_t)(guira_stream_uniform(&state) * (double)count);
}

// Ranks 0 ..< count, rank r with weight (r + 1)^-exponent, by rejection-inversion. Hörmann and Derflinger 1996.
static inline void guira_stream_ranks_zipf(uint64_t seed, uint64_t count, double exponent, uint32_t *out,
                                           size_t length) {
  uint64_t state = seed;
  double q = 1 - exponent;
#define GUIRA_H(x) (expm1(q * log(x)) / q)
#define GUIRA_H_INVERSE(y) (exp(log1p(q * (y)) / q))
  double first = GUIRA_H(1.5) - 1, last = GUIRA_H((double)count + 0.5);
  double cut = 2 - GUIRA_H_INVERSE(GUIRA_H(2.5) - pow(2, -exponent));
  for (size_t i = 0; i < length; i++)
    for (;;) {
      double u = last + guira_stream_uniform(&state) * (first - last);
      double x = GUIRA_H_INVERSE(u);
      double k = floor(x + 0.5);
      if (k < 1) k = 1;
      if (k > (double)count) k = (double)count;
      if (k - x <= cut || u >= GUIRA_H(k + 0.5) - pow(k, -exponent)) {
        out[i] = (uint32_t)(k - 1);
        break;
      }
    }
#undef GUIRA_H
#undef GUIRA_H_INVERSE
}

// Copies rows of `width` floats by number, prefetching ahead: what no table can beat.
void guira_gather_limit(const float *base, size_t width, const uint32_t *rows, size_t count, float *out);
