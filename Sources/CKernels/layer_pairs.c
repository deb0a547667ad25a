// The products of all pairs of an example's vectors, and their way back. Matrices of some twenty rows are too small for a
// call of sgemm, and every one of their numbers is used twenty times: what counts is to hold sums in registers. Unlike the
// kernels of tables these may fuse multiply and add, as the matrix products beside them do.
#include <string.h>

#include "CKernels.h"
#include "clones.h"
#include "lanes.h"
#pragma STDC FP_CONTRACT ON

GUIRA_CLONES
void guira_dot_pairs(const float *z, size_t examples, size_t vectors, size_t dimension, float *columns, float *out,
                     size_t stride) {
  size_t padded = (vectors + 2 * LANES - 1) / (2 * LANES) * (2 * LANES), pairs = vectors * (vectors - 1) / 2;
  memset(columns, 0, dimension * padded * sizeof(float));
  for (size_t example = 0; example < examples; example++, z += vectors * dimension, out += stride) {
    for (size_t i = 0; i < vectors; i++)
      for (size_t k = 0; k < dimension; k++) columns[k * padded + i] = z[i * dimension + k];
    for (size_t i = 1, place = 0; i < vectors; place += i, i++)
      for (size_t j = 0; j < i; j += 2 * LANES) {
        const float *row = z + i * dimension, *column = columns + j;
        lanes first = {0}, second = {0}, third = {0}, fourth = {0};
        size_t k = 0;
        for (; k + 2 <= dimension; k += 2, column += 2 * padded) {
          first += row[k] * AT(column);
          second += row[k] * AT(column + LANES);
          third += row[k + 1] * AT(column + padded);
          fourth += row[k + 1] * AT(column + padded + LANES);
        }
        if (k < dimension) {
          first += row[k] * AT(column);
          second += row[k] * AT(column + LANES);
        }
        first += third;
        second += fourth;
        float *to = out + place + j;
        size_t left = pairs - place - j, count = i - j;
        // What is written beyond a row's end belongs to the next row, which comes later.
        if (left >= 2 * LANES) {
          PUT(to) = first;
          if (count > LANES) PUT(to + LANES) = second;
        } else {
          memcpy(to, &first, (count < LANES ? count : LANES) * sizeof(float));
          if (count > LANES) memcpy(to + LANES, &second, (count < 2 * LANES ? count - LANES : LANES) * sizeof(float));
        }
      }
  }
}

GUIRA_CLONES
void guira_dot_pairs_backward(const float *gradient, size_t stride, const float *z, size_t examples, size_t vectors,
                              size_t dimension, float *square, float *dz) {
  size_t padded = (vectors + LANES - 1) / LANES * LANES;
  memset(square, 0, padded * padded * sizeof(float));
  for (size_t example = 0; example < examples; example++) {
    const float *pair = gradient + example * stride;
    for (size_t i = 1; i < vectors; i++)
      for (size_t j = 0; j < i; j++, pair++) square[i * padded + j] = square[j * padded + i] = *pair;
    for (size_t i = 0; i < vectors; i += LANES) {
      size_t rows = vectors - i < LANES ? vectors - i : LANES, k = 0;
      for (; k + LANES <= dimension; k += LANES) {
        lanes sums[LANES] = {{0}};
        for (size_t j = 0; j < vectors; j++) {
          lanes value = AT(z + j * dimension + k);
          const float *factor = square + j * padded + i;
          for (size_t row = 0; row < LANES; row++) sums[row] += factor[row] * value;
        }
        for (size_t row = 0; row < rows; row++) PUT(dz + (i + row) * dimension + k) += sums[row];
      }
      for (; k < dimension; k++)
        for (size_t row = 0; row < rows; row++) {
          float sum = 0;
          for (size_t j = 0; j < vectors; j++) sum += square[j * padded + i + row] * z[j * dimension + k];
          dz[(i + row) * dimension + k] += sum;
        }
    }
    z += vectors * dimension;
    dz += vectors * dimension;
  }
}
