// Copying an epoch out: rows and their metadata from all over a large table. What costs is that the processor must look
// up where their pages are. In the order of addresses neighbours share the lines of the page tables.
#include <string.h>

#include "CKernels.h"

// Rows looked ahead; 12 to 64 are about as good.
enum { GROUPS = 4096, META_AHEAD = 24, FLOATS_AHEAD = 24 };

void guira_group_rows(const uint32_t *rows, size_t count, uint32_t *out) {
  uint32_t lowest = UINT32_MAX, highest = 0;
  for (size_t i = 0; i < count; i++) {
    if (rows[i] < lowest) lowest = rows[i];
    if (rows[i] > highest) highest = rows[i];
  }
  uint32_t shift = 0;
  while (count > 0 && (highest - lowest) >> shift >= GROUPS) shift++;
  uint32_t starts[GROUPS + 1] = {0};
  for (size_t i = 0; i < count; i++) starts[((rows[i] - lowest) >> shift) + 1]++;
  for (size_t group = 0; group < GROUPS; group++) starts[group + 1] += starts[group];
  for (size_t i = 0; i < count; i++) out[starts[(rows[i] - lowest) >> shift]++] = rows[i];
}

size_t guira_take_rows(const guira_rows *rows, const uint32_t *numbers, size_t count, uint32_t touched,
                       uint32_t *taken, uint64_t *ids, uint32_t *seen, size_t length) {
  for (size_t i = 0; i < count; i++) {
    if (i + META_AHEAD < count && numbers[i + META_AHEAD] < rows->count)
      guira_prefetch(guira_row_meta(rows, numbers[i + META_AHEAD]));
    if (numbers[i] >= rows->count) continue;
    guira_meta *meta = guira_row_meta(rows, numbers[i]);
    uint32_t place = numbers[i] % GUIRA_SLOTS, flags = meta->flags >> 3 * place;
    if ((flags & touched) == 0) continue;
    meta->flags &= ~(touched << 3 * place);
    taken[length] = numbers[i];
    ids[length] = meta->ids[place];
    seen[length] = meta->seen[place];
    length += flags & 1;
  }
  return length;
}

void guira_copy_rows(const guira_rows *rows, const uint32_t *numbers, size_t count, size_t width, float *out) {
  for (size_t i = 0; i < count; i++) {
    if (i + FLOATS_AHEAD < count) {
      const char *ahead = (const char *)guira_row(rows, numbers[i + FLOATS_AHEAD]);
      for (size_t at = 0; at < width * sizeof(float); at += 64) guira_prefetch(ahead + at);
    }
    const float *restrict from = guira_row(rows, numbers[i]);
    float *restrict to = out + i * width;
    size_t j = 0;
    for (; j + 16 <= width; j += 16) memcpy(to + j, from + j, 64);
    for (; j < width; j++) to[j] = from[j];
  }
}
