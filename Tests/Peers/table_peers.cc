// The hash tables an engineer would pick instead of Guira's, on the same id streams, the same rows and the same work,
// one thread, huge pages for all: absl::flat_hash_map with prefetch, and libcuckoo. `make bench-peers` builds it, with
// our own kernels, so that initial values and AdaGrad steps cost every side the same, and `guira bench table --peers`
// talks to it. Usage: table_peers absl|libcuckoo IDS BATCHES REPEATS SEED, then lines on standard input:
//
//   insert COUNT      the next COUNT ids of the fill; answers CPU seconds, and those outside the kernel
//   uniform NUMBER    a repeat's look-ups and copies; answers CPU seconds; so do zipf and adagrad (steps by id)
//   memory            answers bytes per id, and the median and the longest batch of the fill in CPU milliseconds
//   clear             an empty table again
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <libcuckoo/cuckoohash_map.hh>

extern "C" {
#include "CKernels.h"
}

// Memory as our tables have it: big blocks lie on huge pages.
static void *allocate(size_t bytes) {
  constexpr size_t huge = 2 << 20;
  if (bytes < 2 * huge) return malloc(bytes);
  void *block = nullptr;
  if (posix_memalign(&block, huge, bytes) != 0) return nullptr;
  madvise(block, bytes, MADV_HUGEPAGE);
  return block;
}
void *operator new(size_t bytes) {
  if (void *block = allocate(bytes)) return block;
  throw std::bad_alloc();
}
void operator delete(void *block) noexcept { free(block); }
void operator delete(void *block, size_t) noexcept { free(block); }

namespace {
constexpr size_t kDimension = 32, kBatch = 4096, kAhead = 14;
struct Row {
  float floats[2 * kDimension];  // weights, then AdaGrad sums
};
const guira_step kStep = {0, kDimension, kDimension, 0.05f, 0, 1, INFINITY, INFINITY, 0, 0, 0, 0};

void initialize(uint64_t id, Row &row) {
  guira_fill_uniform(row.floats, kDimension, guira_stream_mix(id), 0.1f);
  std::fill(row.floats + kDimension, row.floats + 2 * kDimension, 0.1f);
}
void step(Row &row, const float *gradient) {
  float *floats = row.floats;
  guira_adagrad(&floats, &gradient, 1, &kStep);
}

struct Absl {
  absl::flat_hash_map<uint64_t, Row> map;
  __attribute__((noinline)) void lookup(const uint64_t *ids, float *out) {
    for (size_t i = 0; i < kBatch; i++) {
      if (i + kAhead < kBatch) map.prefetch(ids[i + kAhead]);
      auto found = map.find(ids[i]);
      if (found != map.end()) memcpy(out + i * kDimension, found->second.floats, kDimension * 4);
    }
  }
  void insert(const uint64_t *ids, size_t count, const float *gradients) {
    for (size_t i = 0; i < count; i++) {
      if (i + kAhead < count) map.prefetch(ids[i + kAhead]);
      auto [at, isNew] = map.try_emplace(ids[i]);
      if (isNew) initialize(ids[i], at->second);
      step(at->second, gradients + i * kDimension);
    }
  }
  size_t size() const { return map.size(); }
};

struct Libcuckoo {
  libcuckoo::cuckoohash_map<uint64_t, Row> map;
  __attribute__((noinline)) void lookup(const uint64_t *ids, float *out) {
    for (size_t i = 0; i < kBatch; i++)
      map.find_fn(ids[i], [&](const Row &row) { memcpy(out + i * kDimension, row.floats, kDimension * 4); });
  }
  void insert(const uint64_t *ids, size_t count, const float *gradients) {
    for (size_t i = 0; i < count; i++) {
      const float *gradient = gradients + i * kDimension;
      if (map.update_fn(ids[i], [&](Row &row) { step(row, gradient); })) continue;
      Row row;
      initialize(ids[i], row);
      step(row, gradient);
      map.insert(ids[i], row);
    }
  }
  size_t size() const { return map.size(); }
};

double now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

double resident(const char *key) {
  FILE *file = fopen("/proc/self/status", "r");
  char line[256];
  long kilobytes = 0;
  while (fgets(line, sizeof line, file))
    if (strncmp(line, key, strlen(key)) == 0) kilobytes = atol(line + strlen(key));
  fclose(file);
  return kilobytes * 1024.0;
}

double user() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec * 1e-6;
}

struct Settings {
  size_t ids, batches, repeats;
  uint64_t seed;
};

// Does what its input asks for until that ends.
template <typename Table>
void serve(const Settings &settings) {
  double before = resident("VmRSS:");
  auto table = std::make_unique<Table>();
  std::vector<uint64_t> batch(kBatch), uniform, zipf;
  std::vector<float> gradients(kBatch * kDimension, 0.01f), out(kBatch * kDimension);
  std::vector<double> times;
  size_t length = kBatch * settings.batches, filled = 0;
  auto draw = [&] {
    size_t all = length * settings.repeats;
    std::vector<uint32_t> ranks(all);
    guira_stream_ranks_uniform(settings.seed, settings.ids, ranks.data(), all);
    for (uint32_t rank : ranks) uniform.push_back(guira_stream_id(settings.seed, rank));
    guira_stream_ranks_zipf(settings.seed, settings.ids, 1.05, ranks.data(), all);
    for (uint32_t rank : ranks) zipf.push_back(guira_stream_id(settings.seed, rank));
  };
  auto time = [&](size_t repeat, auto body) {
    if (uniform.empty()) draw();
    double began = now();
    for (size_t at = repeat * length; at < (repeat + 1) * length; at += kBatch) body(at);
    printf("%.9g\n", now() - began);
  };
  auto lookup = [&](const uint64_t *ids) {
    table->lookup(ids, out.data());
    asm volatile("" : : "r"(out.data()) : "memory");  // the copies are wanted
  };
  char what[16];
  for (size_t number; scanf("%15s", what) == 1; fflush(stdout)) {
    std::string command = what;
    number = 0;
    if (command != "memory" && command != "clear" && scanf("%zu", &number) != 1) return;
    if (command == "insert") {
      double elapsed = 0, outside = 0;
      for (size_t end = filled + number; filled < end;) {
        size_t count = std::min(kBatch, end - filled);
        for (size_t i = 0; i < count; i++) batch[i] = guira_stream_id(settings.seed, filled + i);
        double began = now(), userBegan = user();
        table->insert(batch.data(), count, gradients.data());
        double spent = now() - began;
        outside += user() - userBegan;
        elapsed += spent;
        times.push_back(spent * 1e3);
        filled += count;
      }
      printf("%.9g %.9g\n", elapsed, std::max(outside, 1e-9));
    } else if (command == "memory") {
      std::sort(times.begin(), times.end());
      printf("%.9g %.9g %.9g\n", (resident("VmRSS:") - before) / table->size(), times[times.size() / 2], times.back());
    } else if (command == "clear") {
      table.reset();
      table = std::make_unique<Table>();
      times.clear();
      filled = 0;
      printf("\n");
    } else if (number >= settings.repeats) {
      return;
    } else if (command == "uniform") {
      time(number, [&](size_t at) { lookup(&uniform[at]); });
    } else if (command == "zipf") {
      time(number, [&](size_t at) { lookup(&zipf[at]); });
    } else if (command == "adagrad") {
      time(number, [&](size_t at) { table->insert(&uniform[at], kBatch, gradients.data()); });
    } else {
      return;
    }
  }
}
}  // namespace

int main(int count, char **arguments) {
  std::string name = count == 6 ? arguments[1] : "";
  Settings settings = {};
  if (count == 6)
    settings = {strtoull(arguments[2], nullptr, 10), strtoull(arguments[3], nullptr, 10),
                strtoull(arguments[4], nullptr, 10), strtoull(arguments[5], nullptr, 10)};
  if (settings.ids > 0 && settings.batches > 0 && settings.repeats > 0) {
    if (name == "absl") return serve<Absl>(settings), 0;
    if (name == "libcuckoo") return serve<Libcuckoo>(settings), 0;
  }
  fprintf(stderr, "usage: table_peers absl|libcuckoo IDS BATCHES REPEATS SEED; all numbers at least 1\n");
  return 2;
}
