#pragma once
#include <stddef.h>
#include <stdint.h>

// Loops of the layers beside the matrix products. The caller has checked every size.

// out[pair] = <z_i, z_j> for j < i, row by row, for each of `examples` matrices z [vectors, dimension]; the pairs of the
// next example are `stride` floats on. `columns` is working memory: dimension * (vectors rounded up to 16) floats.
void guira_dot_pairs(const float *z, size_t examples, size_t vectors, size_t dimension, float *columns, float *out,
                     size_t stride);

// dz_i += sum over j != i of gradient(i, j) * z_j. `square` is working memory: the square of vectors rounded up to 8.
void guira_dot_pairs_backward(const float *gradient, size_t stride, const float *z, size_t examples, size_t vectors,
                              size_t dimension, float *square, float *dz);

// A column of a batch: example e has the occurrences offsets[e] ..< offsets[e + 1], each the number of a row. Whether the
// offsets rise from 0 to `count` and all numbers are less than `rows`.
int guira_column_fits(const int32_t *offsets, size_t examples, const int32_t *numbers, size_t count, size_t rows);

// x[example] += scale * the sum of the example's rows: `width` floats of each, rows being `row_width` floats apart and
// examples `stride`. The scale is 1, or for a mean 1 / occurrences.
void guira_pool_rows(const float *rows, size_t row_width, size_t width, const int32_t *offsets, const int32_t *numbers,
                     size_t examples, int is_mean, float *x, size_t stride);

// The way back: each row gets scale * dx of every example it occurs in.
void guira_pool_rows_backward(const float *dx, size_t stride, size_t width, const int32_t *offsets,
                              const int32_t *numbers, size_t examples, int is_mean, float *rows, size_t row_width);

// y[row] += bias, and max(..., 0) of it.
void guira_add_bias(const float *bias, size_t width, float *y, size_t rows);
void guira_add_bias_rectifying(const float *bias, size_t width, float *y, size_t rows);

// dy = scale * dy unless the output y is 0.
void guira_rectify_backward(float *dy, const float *y, float scale, size_t count);

// sums += every row of x.
void guira_add_rows(const float *x, size_t width, size_t rows, float *sums);
