// Arithmetic over rows that is no optimizer: the guard on gradients, initial values.
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
