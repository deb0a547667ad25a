#include "optimizer.h"

// n += mean(g²), one number for the whole segment; w -= rate g / (sqrt(n) + 1e-10). As in FBGEMM and DLRM.
GUIRA_CLONES
void guira_row_wise_adagrad(float *const *rows, const float *const *gradients, size_t count, const guira_step *step) {
  const guira_step s = *step;
  for (size_t row = 0; row < count; row++) {
    float *restrict w = rows[row] + s.weights;
    float *restrict n = rows[row] + s.state;
    const float *restrict gradient = gradients[row] + s.weights;
    float scale = guira_norm_scale(gradient, &s);
    float lanes[16] = {0};
    for (size_t i = 0; i < s.width; i++) {
      float g = guira_effective(gradient[i], w[i], scale, &s);
      lanes[i % 16] += g * g;
    }
    for (size_t half = 8; half > 0; half /= 2)
      for (size_t lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    n[0] += lanes[0] / (float)s.width;
    float rate = s.rate / (guira_sqrt(n[0]) + 1e-10f);
    for (size_t i = 0; i < s.width; i++) {
      float g = guira_effective(gradient[i], w[i], scale, &s);
      w[i] = w[i] * s.keep - rate * g;
    }
  }
}
