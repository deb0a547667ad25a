#include "CKernels.h"
#include "clones.h"

GUIRA_CLONES
void guira_gather_limit(const float *base, size_t width, const uint32_t *rows, size_t count, float *out) {
  enum { AHEAD = 16 };
  for (size_t i = 0; i < count; i++) {
    if (i + AHEAD < count) {
      const char *row = (const char *)(base + rows[i + AHEAD] * width);
      for (size_t at = 0; at < width * sizeof(float); at += 64) guira_prefetch(row + at);
    }
    const float *from = base + rows[i] * width;
    for (size_t j = 0; j < width; j++) out[i * width + j] = from[j];
  }
}
