// What comes before and after a matrix product, row by row or number by number: biases, the rectifier, and their way back.
// A NaN stays one everywhere, so that it is seen in the end.
#include "CKernels.h"
#include "clones.h"

GUIRA_CLONES
void guira_add_bias(const float *restrict bias, size_t width, float *restrict y, size_t rows) {
  for (size_t row = 0; row < rows; row++, y += width)
    for (size_t i = 0; i < width; i++) y[i] += bias[i];
}

GUIRA_CLONES
void guira_add_bias_rectifying(const float *restrict bias, size_t width, float *restrict y, size_t rows) {
  for (size_t row = 0; row < rows; row++, y += width)
    for (size_t i = 0; i < width; i++) {
      float value = y[i] + bias[i];
      y[i] = value < 0 ? 0 : value;
    }
}

GUIRA_CLONES
void guira_rectify_backward(float *restrict dy, const float *restrict y, float scale, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float value = dy[i] * scale;
    dy[i] = y[i] <= 0 ? 0 : value;
  }
}

GUIRA_CLONES
void guira_add_rows(const float *restrict x, size_t width, size_t rows, float *restrict sums) {
  for (size_t row = 0; row < rows; row++, x += width)
    for (size_t i = 0; i < width; i++) sums[i] += x[i];
}
