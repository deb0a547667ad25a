// Arithmetic over rows that is no optimizer: the guard on gradients, initial values, rounding to half precision.
#include <math.h>
#include <string.h>

#include "CKernels.h"
#include "clones.h"

GUIRA_CLONES
void guira_check_gradients(const float *gradients, size_t count, size_t width, uint8_t *good) {
  for (size_t row = 0; row < count; row++) {
    const float *g = gradients + row * width;
    uint32_t bad = 0;
    for (size_t i = 0; i < width; i++) {
      uint32_t bits;
      memcpy(&bits, g + i, 4);
      bad |= (uint32_t)((bits & 0x7FFFFFFFu) >= 0x5F000000u);  // 2^63 and above, infinity, NaN
    }
    good[row] = bad == 0;
  }
}

// Wellons' lowbias32, twice, so that all 64 bits of the seed count. 32-bit arithmetic, because it has vector forms.
static inline uint32_t mix32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ x >> 16;
}
static inline uint32_t word(uint64_t seed, uint32_t place) {
  return mix32(mix32((uint32_t)seed + place * 0x9E3779B9u) ^ (uint32_t)(seed >> 32));
}

GUIRA_CLONES
void guira_fill_uniform(float *out, size_t count, uint64_t seed, float bound) {
  for (size_t i = 0; i < count; i++) {
    int32_t centred = (int32_t)(word(seed, (uint32_t)i) >> 8) - (1 << 23);
    out[i] = ((float)centred + 0.5f) * 0x1p-23f * bound;
  }
}

GUIRA_CLONES
void guira_fill_normal(float *out, size_t count, uint64_t seed, float deviation) {
  for (size_t i = 0; i < count; i++) {
    int32_t sum = 0;
    for (uint32_t k = 0; k < 6; k++) {
      uint32_t pair = word(seed, (uint32_t)i * 6 + k);
      sum += (int32_t)(pair & 0xFFFF) + (int32_t)(pair >> 16);
    }
    out[i] = (float)(sum - 6 * 65535) * 0x1p-16f * deviation;
  }
}

void guira_to_half_scalar(const float *values, size_t count, uint16_t *out) {
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, values + i, 4);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu, half;
    if (magnitude > 0x7F800000u) {
      half = 0x7E00u | (magnitude >> 13 & 0x1FFu);  // quiet, as the hardware does
    } else if (magnitude >= 0x47800000u) {
      half = 0x7C00u;
    } else if (magnitude < 0x38800000u) {
      // Subnormal: the bits that stay are those of magnitude / 2^-24, rounded to nearest even.
      float scaled;
      memcpy(&scaled, &magnitude, 4);
      scaled = scaled + 0.5f;  // aligns 2^-24 with the last bit of the fraction
      uint32_t rounded;
      memcpy(&rounded, &scaled, 4);
      half = rounded - 0x3F000000u;
    } else {
      uint32_t odd = magnitude >> 13 & 1;
      half = (magnitude - 0x38000000u + 0xFFFu + odd) >> 13;
    }
    out[i] = (uint16_t)(sign | half);
  }
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx,f16c"))) static void to_half_f16c(const float *values, size_t count, uint16_t *out) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT));
  guira_to_half_scalar(values + i, count - i, out + i);
}

void guira_to_half(const float *values, size_t count, uint16_t *out) {
  if (__builtin_cpu_supports("f16c")) to_half_f16c(values, count, out);
  else guira_to_half_scalar(values, count, out);
}
#else
void guira_to_half(const float *values, size_t count, uint16_t *out) { guira_to_half_scalar(values, count, out); }
#endif
