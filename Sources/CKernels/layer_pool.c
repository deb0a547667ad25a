// Rows of a table added up per example, and the way back. A batch has some hundred thousand short rows, so what can be
// checked once for a column is not checked for each of them.
#include "CKernels.h"
#include "clones.h"
#include "lanes.h"

GUIRA_CLONES
int guira_column_fits(const int32_t *offsets, size_t examples, const int32_t *numbers, size_t count, size_t rows) {
  int32_t last = offsets[0];
  uint32_t bad = last != 0;
  for (size_t example = 0; example < examples; example++) bad |= offsets[example] > offsets[example + 1];
  for (size_t i = 0; i < count; i++) bad |= (uint32_t)numbers[i] >= rows;
  return bad == 0 && (size_t)offsets[examples] == count;
}

static inline void add_scaled(float scale, const float *from, size_t width, float *to) {
  size_t i = 0;
  for (; i + LANES <= width; i += LANES) PUT(to + i) += scale * AT(from + i);
  for (; i < width; i++) to[i] += scale * from[i];
}

GUIRA_CLONES
void guira_pool_rows(const float *rows, size_t row_width, size_t width, const int32_t *offsets, const int32_t *numbers,
                     size_t examples, int is_mean, float *x, size_t stride) {
  for (size_t example = 0; example < examples; example++, x += stride) {
    int32_t at = offsets[example], end = offsets[example + 1];
    float scale = is_mean && end > at ? 1.0f / (float)(end - at) : 1;
    for (; at < end; at++) add_scaled(scale, rows + (size_t)numbers[at] * row_width, width, x);
  }
}

GUIRA_CLONES
void guira_pool_rows_backward(const float *dx, size_t stride, size_t width, const int32_t *offsets,
                              const int32_t *numbers, size_t examples, int is_mean, float *rows, size_t row_width) {
  for (size_t example = 0; example < examples; example++, dx += stride) {
    int32_t at = offsets[example], end = offsets[example + 1];
    float scale = is_mean && end > at ? 1.0f / (float)(end - at) : 1;
    for (; at < end; at++) add_scaled(scale, dx, width, rows + (size_t)numbers[at] * row_width);
  }
}
