#include "optimizer.h"

GUIRA_CLONES
void guira_sgd(float *const *rows, const float *const *gradients, size_t count, const guira_step *step) {
  const guira_step s = *step;
  for (size_t row = 0; row < count; row++) {
    float *restrict w = rows[row] + s.weights;
    const float *restrict gradient = gradients[row] + s.weights;
    float scale = guira_norm_scale(gradient, &s);
    for (size_t i = 0; i < s.width; i++) {
      float g = guira_effective(gradient[i], w[i], scale, &s);
      w[i] = w[i] * s.keep - s.rate * g;
    }
  }
}
