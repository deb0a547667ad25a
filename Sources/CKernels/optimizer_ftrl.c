#include "optimizer.h"

// FTRL-proximal, per coordinate. McMahan et al., "Ad Click Prediction: a View from the Trenches", 2013, algorithm 1.
GUIRA_CLONES
void guira_ftrl(float *const *rows, const float *const *gradients, size_t count, const guira_step *step) {
  const guira_step s = *step;
  for (size_t row = 0; row < count; row++) {
    float *restrict w = rows[row] + s.weights;
    float *restrict z = rows[row] + s.state;
    float *restrict n = z + s.width;
    const float *restrict gradient = gradients[row] + s.weights;
    float scale = guira_norm_scale(gradient, &s);
    for (size_t i = 0; i < s.width; i++) {
      float g = guira_effective(gradient[i], w[i], scale, &s);
      float grown = n[i] + g * g;
      float sigma = (guira_sqrt(grown) - guira_sqrt(n[i])) / s.a;
      z[i] += g - sigma * w[i];
      n[i] = grown;
      float shrunk = z[i] > s.c ? z[i] - s.c : (z[i] < -s.c ? z[i] + s.c : 0);
      w[i] = -shrunk / ((s.b + guira_sqrt(grown)) / s.a + s.d) * s.keep;
    }
  }
}
