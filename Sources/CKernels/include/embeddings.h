#pragma once
#include <stddef.h>
#include <stdint.h>

// The memory of an embedding table as its kernels see it: index lines, row metadata and rows, each in pieces that never
// move. Swift owns the memory and the policy; what is here is layout, arithmetic on one line, and batched reading.

// No row: the value of an unused slot.
#define GUIRA_EMPTY 0xFFFFFFFFu
// Set in a slot's value when the id is only counted, not yet a row; never set in a row number.
#define GUIRA_PENDING 0x80000000u
#define GUIRA_SLOTS 5u
#define GUIRA_LINE_SHIFT 15u  // 2^15 lines of 64 bytes in a piece of 2 MiB

// One cache line of the cuckoo index: five ids and what they stand for.
typedef struct {
  uint64_t ids[GUIRA_SLOTS];
  uint32_t values[GUIRA_SLOTS];
  uint32_t none;  // GUIRA_EMPTY: what the slot after the last one holds
} guira_line;

// The metadata of five rows in one cache line. Three flag bits per row: live, touched in even and in odd epochs.
typedef struct {
  uint64_t ids[GUIRA_SLOTS];
  uint32_t seen[GUIRA_SLOTS];  // seconds
  uint32_t flags;
} guira_meta;

typedef struct {
  void **pieces;
  uint64_t salt;
  uint64_t bound;      // halves of a hash below this are spread over `low` lines, the others over `high`
  uint32_t low, high;  // low <= high; between two sizes, the bound moves from 2^32 down to 0 as the index grows
  uint32_t low_used;   // lines of the smaller size that are in use: the bound as a line
} guira_index;

typedef struct {
  uint64_t id;
  uint32_t value;
} guira_entry;

// What came of moving ids about in the index. A put moves at most 6 others, and no step puts more than 15.
typedef struct {
  uint32_t moved, spilled;
  uint64_t moved_ids[128];  // waiting ids that went to a lower line: a scan under way may have missed them
  guira_entry spilled_ids[16];  // ids that no line can take, which are in the index no more
} guira_moves;

typedef struct {
  void **pieces;  // of floats
  void **meta;    // of guira_meta
  uint32_t shift;  // rows per piece, as a power of two
  uint32_t stride;  // floats from a row to the next
  uint32_t count;  // rows that have memory
} guira_rows;

static inline void guira_prefetch(const void *at) { __builtin_prefetch(at, 0, 3); }

static inline uint64_t guira_index_hash(const guira_index *index, uint64_t id) {
  uint64_t z = id ^ index->salt;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The line a 32-bit half of the hash stands for.
static inline uint32_t guira_index_place(const guira_index *index, uint32_t half) {
  uint64_t lines = half < index->bound ? index->low : index->high;
  return (uint32_t)(half * lines >> 32);
}
static inline uint32_t guira_index_first(const guira_index *index, uint64_t hash) {
  return guira_index_place(index, (uint32_t)hash);
}
static inline uint32_t guira_index_second(const guira_index *index, uint64_t hash) {
  return guira_index_place(index, (uint32_t)(hash >> 32));
}

// The first line in use of the larger size.
static inline uint32_t guira_index_high_start(const guira_index *index) {
  return (uint32_t)(index->bound * index->high >> 32);
}

static inline guira_line *guira_index_line(const guira_index *index, uint32_t line) {
  guira_line *piece = (guira_line *)index->pieces[line >> GUIRA_LINE_SHIFT];
  return piece + (line & ((1u << GUIRA_LINE_SHIFT) - 1));
}

// The slot of `id` in a line, GUIRA_SLOTS when it is not there. Unused slots keep old ids, hence the loop.
static inline uint32_t guira_line_slot(const guira_line *line, uint64_t id) {
  uint32_t match = (uint32_t)(line->ids[0] == id) | (uint32_t)(line->ids[1] == id) << 1 |
                   (uint32_t)(line->ids[2] == id) << 2 | (uint32_t)(line->ids[3] == id) << 3 |
                   (uint32_t)(line->ids[4] == id) << 4;
  while (match != 0) {
    uint32_t slot = (uint32_t)__builtin_ctz(match);
    if (line->values[slot] != GUIRA_EMPTY) return slot;
    match &= match - 1;
  }
  return GUIRA_SLOTS;
}

// An unused slot of a line, GUIRA_SLOTS when there is none.
static inline uint32_t guira_line_room(const guira_line *line) {
  uint32_t unused = 1u << GUIRA_SLOTS;
  for (uint32_t slot = 0; slot < GUIRA_SLOTS; slot++)
    unused |= (uint32_t)(line->values[slot] == GUIRA_EMPTY) << slot;
  return (uint32_t)__builtin_ctz(unused);
}

static inline uint64_t guira_line_id(const guira_line *line, uint32_t slot) { return line->ids[slot]; }
static inline uint32_t guira_line_value(const guira_line *line, uint32_t slot) { return line->values[slot]; }
static inline void guira_line_clear(guira_line *line) {
  for (uint32_t slot = 0; slot < GUIRA_SLOTS; slot++) {
    line->ids[slot] = 0;
    line->values[slot] = GUIRA_EMPTY;
  }
  line->none = GUIRA_EMPTY;
}
static inline void guira_line_set(guira_line *line, uint32_t slot, uint64_t id, uint32_t value) {
  line->ids[slot] = id;
  line->values[slot] = value;
}

static inline float *guira_row(const guira_rows *rows, uint32_t row) {
  float *piece = (float *)rows->pieces[row >> rows->shift];
  return piece + (size_t)(row & ((1u << rows->shift) - 1)) * rows->stride;
}

static inline guira_meta *guira_row_meta(const guira_rows *rows, uint32_t row) {
  uint32_t line = row / GUIRA_SLOTS;
  guira_meta *piece = (guira_meta *)rows->meta[line >> GUIRA_LINE_SHIFT];
  return piece + (line & ((1u << GUIRA_LINE_SHIFT) - 1));
}
static inline uint64_t guira_row_id(const guira_rows *rows, uint32_t row) {
  return guira_row_meta(rows, row)->ids[row % GUIRA_SLOTS];
}
static inline void guira_row_set_id(const guira_rows *rows, uint32_t row, uint64_t id) {
  guira_row_meta(rows, row)->ids[row % GUIRA_SLOTS] = id;
}
static inline uint32_t guira_row_seen(const guira_rows *rows, uint32_t row) {
  return guira_row_meta(rows, row)->seen[row % GUIRA_SLOTS];
}
static inline void guira_row_set_seen(const guira_rows *rows, uint32_t row, uint32_t seen) {
  guira_row_meta(rows, row)->seen[row % GUIRA_SLOTS] = seen;
}
static inline uint32_t guira_row_flags(const guira_rows *rows, uint32_t row) {
  return guira_row_meta(rows, row)->flags >> 3 * (row % GUIRA_SLOTS) & 7u;
}
static inline void guira_row_set_flags(const guira_rows *rows, uint32_t row, uint32_t flags) {
  uint32_t shift = 3 * (row % GUIRA_SLOTS);
  guira_meta *meta = guira_row_meta(rows, row);
  meta->flags = (meta->flags & ~(7u << shift)) | flags << shift;
}

// Whether a row is live, of this id and last seen at `oldest` or later. A number beyond all rows is none.
static inline int guira_row_is(const guira_rows *rows, uint32_t row, uint64_t id, uint32_t oldest) {
  if (row >= rows->count) return 0;
  const guira_meta *meta = guira_row_meta(rows, row);
  uint32_t place = row % GUIRA_SLOTS;
  return (meta->flags >> 3 * place & 1) != 0 && meta->ids[place] == id && meta->seen[place] >= oldest;
}
static inline void guira_row_see(const guira_rows *rows, uint32_t row, uint32_t seen) {
  uint32_t *at = &guira_row_meta(rows, row)->seen[row % GUIRA_SLOTS];
  if (*at < seen) *at = seen;
}

// The values of `count` ids, GUIRA_EMPTY where there is none. Prefetches the rows found and their metadata for writing.
void guira_find(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, uint32_t *values);

// Like guira_find, and copies the first `width` floats of every row found to `out`, `width` floats apart. A row last
// seen before `oldest` (seconds; 0 to take all) is not copied and answers GUIRA_EMPTY.
void guira_gather(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count, size_t width,
                  uint32_t oldest, uint32_t *values, float *out);
void guira_gather_scalar(const guira_index *index, const guira_rows *rows, const uint64_t *ids, size_t count,
                         size_t width, uint32_t oldest, uint32_t *values, float *out);

// Puts an id that is not here into one of its two lines, moving others along the shortest path if it must. Answers 0
// when there is no way.
int guira_index_put(const guira_index *index, uint64_t id, uint32_t value, guira_moves *moves);
// Between two sizes: moves the bound down, or up, by one line of the smaller size, and what is there to where it belongs.
void guira_index_pull_apart(guira_index *index, guira_moves *moves);
void guira_index_pull_together(guira_index *index, guira_moves *moves);

// Brings row numbers into the order of 4,096 groups of neighbours.
void guira_group_rows(const uint32_t *rows, size_t count, uint32_t *out);
// Takes the flag `touched` from those of `count` rows that have it, and appends the live ones of them to the arrays,
// which have `length` elements; answers how many they have then. Rows that have no memory any more are left out.
size_t guira_take_rows(const guira_rows *rows, const uint32_t *numbers, size_t count, uint32_t touched,
                       uint32_t *taken, uint64_t *ids, uint32_t *seen, size_t length);
// Copies the first `width` floats of rows, one after the other.
void guira_copy_rows(const guira_rows *rows, const uint32_t *numbers, size_t count, size_t width, float *out);

// Writes 1 for every gradient row that may be applied: all finite, and small enough that their squares are.
void guira_check_gradients(const float *gradients, size_t count, size_t width, uint8_t *good);

// One segment's part of an optimizer step over a batch of rows. Offsets are in floats from the start of a row; the
// gradient of a weight lies at the weight's own offset.
typedef struct {
  uint32_t weights, state, width;
  float rate;
  float l2;         // adds l2 * weight to the gradient
  float keep;       // 1 - rate * decoupled weight decay
  float clip_value;  // infinity when there is none
  float clip_norm;   // infinity when there is none
  float a, b, c, d;  // the rule's own numbers
} guira_step;

typedef void guira_rule(float *const *rows, const float *const *gradients, size_t count, const guira_step *step);
guira_rule guira_sgd;               // no state
guira_rule guira_momentum;          // state: velocity; a = beta
guira_rule guira_adagrad;           // state: sums of squares
guira_rule guira_row_wise_adagrad;  // state: one sum of mean squares
guira_rule guira_adam;              // state: first moments, second moments, step count; a = beta1, b = beta2, c = epsilon
guira_rule guira_ftrl;              // state: z, n; a = alpha, b = beta, c = l1, d = l2

// Fills `count` floats with numbers uniform in ±bound that depend on `seed` and the place only, not on the CPU.
void guira_fill_uniform(float *out, size_t count, uint64_t seed, float bound);
// The same, normal with the given deviation: twelve uniform 16-bit numbers added (Irwin-Hall), so within ±6 deviations.
void guira_fill_normal(float *out, size_t count, uint64_t seed, float deviation);

// Rounds to IEEE half precision, to nearest even; NaN stays NaN.
void guira_to_half(const float *values, size_t count, uint16_t *out);
void guira_to_half_scalar(const float *values, size_t count, uint16_t *out);

// Widens IEEE half precision; exact.
void guira_from_half(const uint16_t *values, size_t count, float *out);
void guira_from_half_scalar(const uint16_t *values, size_t count, float *out);
