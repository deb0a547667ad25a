#include "CKernels.h"

#include <string.h>

uint32_t guira_crc32c_scalar(uint32_t crc, const void *bytes, size_t count) {
  const uint8_t *at = bytes;
  crc = ~crc;
  for (size_t i = 0; i < count; i++) {
    crc ^= at[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
  }
  return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *bytes, size_t count) {
  const uint8_t *at = bytes;
  uint64_t wide = (uint32_t)~crc;
  for (; count >= 8; at += 8, count -= 8) {
    uint64_t word;
    memcpy(&word, at, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  uint32_t narrow = (uint32_t)wide;
  for (; count > 0; at++, count--) narrow = _mm_crc32_u8(narrow, *at);
  return ~narrow;
}

uint32_t guira_crc32c(uint32_t crc, const void *bytes, size_t count) {
  if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42(crc, bytes, count);
  return guira_crc32c_scalar(crc, bytes, count);
}
#else
uint32_t guira_crc32c(uint32_t crc, const void *bytes, size_t count) {
  return guira_crc32c_scalar(crc, bytes, count);
}
#endif
