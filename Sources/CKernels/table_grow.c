// How the index makes room. A full pair of lines: ids move to their other lines along the shortest path (breadth first).
// A full index grows in place, a few lines per new id: hashes are spread evenly over n lines (hash · n / 2^32), so the
// lines of a larger size are the old ones pulled apart in the same order; taking them from the last to the first, what
// a line pulled apart needs is always free already. Shrinking is the same, backwards.
#include "CKernels.h"

// Lines a search for room looks at, ids it moves, and lines looked ahead while pulling apart.
enum { NODES = 256, DEPTH = 6, AHEAD = 6 };

// A line reached from `parent` by moving what is in `slot` there.
typedef struct {
  uint32_t line;
  int16_t parent;
  uint8_t slot, depth;
} node;

static inline int is_waiting(uint32_t value) { return (value & GUIRA_PENDING) != 0; }

static inline void note_move(guira_moves *moves, uint64_t id, uint32_t value) {
  if (is_waiting(value)) moves->moved_ids[moves->moved++] = id;
}

static inline uint32_t other_line(const guira_index *index, uint64_t id, uint32_t line) {
  uint64_t hash = guira_index_hash(index, id);
  uint32_t first = guira_index_first(index, hash), second = guira_index_second(index, hash);
  return first == line ? second : first;
}

// Frees a slot in one of two full lines and answers that line, UINT32_MAX when there is no way.
static uint32_t make_room(const guira_index *index, uint32_t first, uint32_t second, guira_moves *moves) {
  node nodes[NODES];
  nodes[0] = (node){first, -1, 0, 0};
  nodes[1] = (node){second, -1, 0, 0};
  int end = 2;
  for (int next = 0; next < end; next++) {
    const guira_line *here = guira_index_line(index, nodes[next].line);
    uint32_t room = guira_line_room(here);
    if (room < GUIRA_SLOTS) {
      int at = next;
      for (; nodes[at].parent >= 0; at = nodes[at].parent) {
        uint32_t source = nodes[nodes[at].parent].line, slot = nodes[at].slot;
        guira_line *from = guira_index_line(index, source);
        uint32_t value = from->values[slot];
        guira_line_set(guira_index_line(index, nodes[at].line), room, from->ids[slot], value);
        from->values[slot] = GUIRA_EMPTY;
        if (nodes[at].line < source) note_move(moves, from->ids[slot], value);
        room = slot;
      }
      return nodes[at].line;
    }
    if (nodes[next].depth == DEPTH) continue;
    for (uint32_t slot = 0; slot < GUIRA_SLOTS && end < NODES; slot++) {
      uint32_t other = other_line(index, here->ids[slot], nodes[next].line);
      if (other == nodes[next].line) continue;
      guira_prefetch(guira_index_line(index, other));
      nodes[end++] = (node){other, (int16_t)next, (uint8_t)slot, (uint8_t)(nodes[next].depth + 1)};
    }
  }
  return UINT32_MAX;
}

// Answers the line, UINT32_MAX when there is no way.
static inline uint32_t put(const guira_index *index, uint64_t id, uint32_t value, guira_moves *moves) {
  uint64_t hash = guira_index_hash(index, id);
  uint32_t first = guira_index_first(index, hash), second = guira_index_second(index, hash);
  uint32_t target = first;
  uint32_t room = guira_line_room(guira_index_line(index, target));
  if (room == GUIRA_SLOTS) {
    target = second;
    room = guira_line_room(guira_index_line(index, target));
  }
  if (room == GUIRA_SLOTS) {
    target = make_room(index, first, second, moves);
    if (target == UINT32_MAX) return target;
    room = guira_line_room(guira_index_line(index, target));
  }
  guira_line_set(guira_index_line(index, target), room, id, value);
  return target;
}

int guira_index_put(const guira_index *index, uint64_t id, uint32_t value, guira_moves *moves) {
  return put(index, id, value, moves) != UINT32_MAX;
}

// Takes the ids out of a line, all of them or those that do not belong there; says how many.
static inline uint32_t take(const guira_index *index, uint32_t number, int all, guira_entry *out) {
  guira_line *line = guira_index_line(index, number);
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < GUIRA_SLOTS; slot++) {
    out[count] = (guira_entry){line->ids[slot], line->values[slot]};
    if (out[count].value == GUIRA_EMPTY) continue;
    if (!all) {
      uint64_t hash = guira_index_hash(index, out[count].id);
      if (guira_index_first(index, hash) == number || guira_index_second(index, hash) == number) continue;
    }
    line->values[slot] = GUIRA_EMPTY;
    count++;
  }
  return count;
}

static inline void put_back(const guira_index *index, const guira_entry *taken, uint32_t count, uint32_t source,
                            guira_moves *moves) {
  for (uint32_t k = 0; k < count; k++) {
    uint32_t line = put(index, taken[k].id, taken[k].value, moves);
    if (line == UINT32_MAX) {
      moves->spilled_ids[moves->spilled++] = taken[k];
    } else if (line < source) {
      note_move(moves, taken[k].id, taken[k].value);
    }
  }
}

// The bound when `lines` of the smaller size are in use.
static inline uint64_t bound_at(const guira_index *index, uint32_t lines) {
  return (((uint64_t)lines << 32) + index->low - 1) / index->low;
}

void guira_index_pull_apart(guira_index *index, guira_moves *moves) {
  uint32_t source = index->low_used - 1, end = guira_index_high_start(index);
  if (source >= 2 * AHEAD) {
    guira_prefetch(guira_index_line(index, source - 2 * AHEAD));
    // Where these ids would rather be, for when their turn comes.
    const guira_line *later = guira_index_line(index, source - AHEAD);
    for (uint32_t slot = 0; slot < GUIRA_SLOTS; slot++)
      guira_prefetch(guira_index_line(index, guira_index_first(index, guira_index_hash(index, later->ids[slot]))));
  }
  guira_entry taken[GUIRA_SLOTS];
  uint32_t count = take(index, source, 1, taken);
  index->low_used = source;
  index->bound = bound_at(index, source);
  for (uint32_t line = guira_index_high_start(index); line < end; line++) guira_line_clear(guira_index_line(index, line));
  put_back(index, taken, count, source, moves);
}

void guira_index_pull_together(guira_index *index, guira_moves *moves) {
  uint32_t start = guira_index_high_start(index), target = index->low_used;
  index->low_used = target + 1;
  index->bound = bound_at(index, index->low_used);
  uint32_t last = guira_index_high_start(index);
  if (last == index->high) last--;
  guira_entry taken[3 * GUIRA_SLOTS];
  uint32_t count = 0;
  for (uint32_t line = start; line <= last; line++) count += take(index, line, line == target, taken + count);
  if (target < start) guira_line_clear(guira_index_line(index, target));
  put_back(index, taken, count, UINT32_MAX, moves);
}
