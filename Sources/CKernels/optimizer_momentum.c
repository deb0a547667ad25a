#include "optimizer.h"

// v = beta v + g; w -= rate v. The same as torch.optim.SGD(momentum=beta).
GUIRA_CLONES
void guira_momentum(float *const *rows, const float *const *gradients, size_t count, const guira_step *step) {
  const guira_step s = *step;
  for (size_t row = 0; row < count; row++) {
    float *restrict w = rows[row] + s.weights;
    float *restrict velocity = rows[row] + s.state;
    const float *restrict gradient = gradients[row] + s.weights;
    float scale = guira_norm_scale(gradient, &s);
    for (size_t i = 0; i < s.width; i++) {
      float g = guira_effective(gradient[i], w[i], scale, &s);
      velocity[i] = s.a * velocity[i] + g;
      w[i] = w[i] * s.keep - s.rate * velocity[i];
    }
  }
}
