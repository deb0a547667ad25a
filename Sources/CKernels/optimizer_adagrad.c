#include "optimizer.h"

// n += g²; w -= rate g / (sqrt(n) + 1e-10). The same as torch.optim.Adagrad. Duchi, Hazan, Singer 2011.
GUIRA_CLONES
void guira_adagrad(float *const *rows, const float *const *gradients, size_t count, const guira_step *step) {
  const guira_step s = *step;
  for (size_t row = 0; row < count; row++) {
    float *restrict w = rows[row] + s.weights;
    float *restrict n = rows[row] + s.state;
    const float *restrict gradient = gradients[row] + s.weights;
    float scale = guira_norm_scale(gradient, &s);
    for (size_t i = 0; i < s.width; i++) {
      float g = guira_effective(gradient[i], w[i], scale, &s);
      n[i] += g * g;
      w[i] = w[i] * s.keep - s.rate * g / (guira_sqrt(n[i]) + 1e-10f);
    }
  }
}
