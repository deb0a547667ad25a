// Half precision and back, with the CPU's own instructions where it has them.
#include <string.h>

#include "CKernels.h"

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

void guira_from_half_scalar(const uint16_t *values, size_t count, float *out) {
  for (size_t i = 0; i < count; i++) {
    uint32_t sign = (uint32_t)(values[i] & 0x8000u) << 16, exponent = values[i] >> 10 & 0x1Fu, bits;
    uint32_t fraction = values[i] & 0x3FFu;
    if (exponent == 0) {
      float scaled = (float)fraction * 0x1p-24f;  // subnormal, or zero: exact
      memcpy(&bits, &scaled, 4);
    } else if (exponent == 31) {
      bits = 0x7F800000u | fraction << 13 | (fraction != 0 ? 0x400000u : 0);  // a NaN becomes quiet, as in hardware
    } else {
      bits = (exponent + 112) << 23 | fraction << 13;
    }
    bits |= sign;
    memcpy(out + i, &bits, 4);
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

__attribute__((target("avx,f16c"))) static void from_half_f16c(const uint16_t *values, size_t count, float *out) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(values + i))));
  guira_from_half_scalar(values + i, count - i, out + i);
}

void guira_from_half(const uint16_t *values, size_t count, float *out) {
  if (__builtin_cpu_supports("f16c")) from_half_f16c(values, count, out);
  else guira_from_half_scalar(values, count, out);
}

void guira_to_half(const float *values, size_t count, uint16_t *out) {
  if (__builtin_cpu_supports("f16c")) to_half_f16c(values, count, out);
  else guira_to_half_scalar(values, count, out);
}
#else
void guira_to_half(const float *values, size_t count, uint16_t *out) { guira_to_half_scalar(values, count, out); }
void guira_from_half(const uint16_t *values, size_t count, float *out) { guira_from_half_scalar(values, count, out); }
#endif
