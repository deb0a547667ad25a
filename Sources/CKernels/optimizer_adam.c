#include "optimizer.h"

// The same as torch.optim.Adam, and AdamW with decoupled decay; steps are counted per row. The count is a float after
// the moments and stops at 2^24, where both corrections have long been 1. Kingma and Ba 2015.
GUIRA_CLONES
void guira_adam(float *const *rows, const float *const *gradients, size_t count, const guira_step *step) {
  const guira_step s = *step;
  for (size_t row = 0; row < count; row++) {
    float *restrict w = rows[row] + s.weights;
    float *restrict m = rows[row] + s.state;
    float *restrict v = m + s.width;
    const float *restrict gradient = gradients[row] + s.weights;
    float scale = guira_norm_scale(gradient, &s);
    if (v[s.width] < 0x1p24f) v[s.width] += 1;
    // By repeated squaring and not pow(), so that every C library gives the same bits. A count from a damaged file
    // may be anything; it only has to end.
    double steps = v[s.width];
    uint32_t left = steps >= 1 && steps <= 0x1p24 ? (uint32_t)steps : 1;
    double power1 = 1, power2 = 1, square1 = s.a, square2 = s.b;
    for (; left > 0; left >>= 1, square1 *= square1, square2 *= square2)
      if (left & 1) power1 *= square1, power2 *= square2;
    float rate = (float)(s.rate / (1 - power1));
    float correction = (float)sqrt(1 - power2);
    for (size_t i = 0; i < s.width; i++) {
      float g = guira_effective(gradient[i], w[i], scale, &s);
      m[i] = m[i] + (1 - s.a) * (g - m[i]);
      v[i] = s.b * v[i] + (1 - s.b) * g * g;
      w[i] = w[i] * s.keep - rate * m[i] / (guira_sqrt(v[i]) / correction + s.c);
    }
  }
}
