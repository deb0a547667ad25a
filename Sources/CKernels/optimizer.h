// What the optimizer kernels share: the gradient after clipping and L2, and reductions in a fixed order.
#pragma once
#include <math.h>

#include "CKernels.h"
#include "clones.h"

// Not sqrtf, which may set errno and so is not vectorized.
static inline float guira_sqrt(float value) {
#if __has_builtin(__builtin_elementwise_sqrt)
  return __builtin_elementwise_sqrt(value);
#else
  return sqrtf(value);
#endif
}

static inline float guira_clip(float value, float bound) {
  return value > bound ? bound : (value < -bound ? -bound : value);
}

// Sum of the squares of the clipped gradient, in sixteen lanes, so that every CPU adds in the same order.
static inline float guira_sum_of_squares(const float *gradient, size_t width, float clip_value) {
  float lanes[16] = {0};
  size_t at = 0;
  for (; at + 16 <= width; at += 16)
    for (size_t lane = 0; lane < 16; lane++) {
      float g = guira_clip(gradient[at + lane], clip_value);
      lanes[lane] += g * g;
    }
  for (size_t lane = 0; at < width; at++, lane++) {
    float g = guira_clip(gradient[at], clip_value);
    lanes[lane] += g * g;
  }
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// What a row's gradient is multiplied by so that its norm stays within the bound.
static inline float guira_norm_scale(const float *gradient, const guira_step *step) {
  if (step->clip_norm == INFINITY) return 1;
  float norm = guira_sqrt(guira_sum_of_squares(gradient, step->width, step->clip_value));
  return norm > step->clip_norm ? step->clip_norm / norm : 1;
}

static inline float guira_effective(float gradient, float weight, float scale, const guira_step *step) {
  return guira_clip(gradient, step->clip_value) * scale + step->l2 * weight;
}
