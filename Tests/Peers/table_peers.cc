// The hash tables an engineer would pick instead of Guira's, on the same id streams, the same rows and the same work,
// one thread, huge pages for all: absl::flat_hash_map with prefetch, and libcuckoo. Prints one JSON object like
// `guira bench table --json`. Usage: table_peers [ids] [batches] [repeats] [absl|libcuckoo]
//
// Build: see the `bench-peers` target; it needs libabsl-dev and libcuckoo-dev, and compiles our own kernels along, so
// that initial values and AdaGrad steps cost every side the same.
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
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

struct Results {
  bool first = true;
  void print(const std::string &name, std::vector<double> values, const char *unit) {
    std::sort(values.begin(), values.end());
    printf("%s\n    \"%s\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g, \"unit\": \"%s\"}", first ? "" : ",",
           name.c_str(), values[values.size() / 2], values.front(), values.back(), unit);
    first = false;
    fflush(stdout);
  }
};

template <typename Table>
void measure(const std::string &name, size_t ids, size_t batches, int repeats, Results &results) {
  double before = resident("VmRSS:");
  auto *table = new Table;
  std::vector<uint64_t> batch(kBatch);
  std::vector<float> gradients(kBatch * kDimension, 0.01f), out(kBatch * kDimension);
  std::vector<double> inserts, times;
  double elapsed = 0, inserted = 0;
  for (size_t start = 0; start < ids; start += kBatch) {
    size_t count = std::min(kBatch, ids - start);
    for (size_t i = 0; i < count; i++) batch[i] = guira_stream_id(1, start + i);
    double began = now();
    table->insert(batch.data(), count, gradients.data());
    times.push_back((now() - began) * 1e3);
    elapsed += now() - began;
    inserted += count;
  }
  inserts.push_back(inserted / elapsed);
  std::sort(times.begin(), times.end());
  results.print(name + ".insert.rowsPerSecond", inserts, "rows/s");
  results.print(name + ".growth.medianBatchMilliseconds", {times[times.size() / 2]}, "ms");
  results.print(name + ".growth.longestBatchMilliseconds", {times.back()}, "ms");
  results.print(name + ".memory.bytesPerIdBeyondRow",
                {(resident("VmRSS:") - before) / table->size() - double(sizeof(Row))}, "bytes");
  size_t length = kBatch * batches;
  std::vector<uint32_t> ranks(length);
  std::vector<uint64_t> uniform(length), zipf(length);
  guira_stream_ranks_uniform(1, ids, ranks.data(), length);
  for (size_t i = 0; i < length; i++) uniform[i] = guira_stream_id(1, ranks[i]);
  guira_stream_ranks_zipf(1, ids, 1.05, ranks.data(), length);
  for (size_t i = 0; i < length; i++) zipf[i] = guira_stream_id(1, ranks[i]);
  std::map<std::string, std::vector<double>> rates;
  auto time = [&](const char *what, auto body) {
    double began = now();
    for (size_t at = 0; at < length; at += kBatch) body(at);
    rates[what].push_back(length / (now() - began));
  };
  auto lookup = [&](const uint64_t *batch) {
    table->lookup(batch, out.data());
    asm volatile("" : : "r"(out.data()) : "memory");  // the copies are wanted
  };
  for (int repeat = 0; repeat < repeats; repeat++) {
    time(".lookup.uniform.rowsPerSecond", [&](size_t at) { lookup(&uniform[at]); });
    time(".lookup.zipf.rowsPerSecond", [&](size_t at) { lookup(&zipf[at]); });
    time(".adagrad.rowsPerSecond", [&](size_t at) { table->insert(&uniform[at], kBatch, gradients.data()); });
  }
  for (auto &[what, values] : rates) results.print(name + what, values, "rows/s");
  delete table;
}
}  // namespace

int main(int count, char **arguments) {
  size_t ids = count > 1 ? strtoull(arguments[1], nullptr, 10) : 10'000'000;
  size_t batches = count > 2 ? strtoull(arguments[2], nullptr, 10) : 500;
  int repeats = count > 3 ? atoi(arguments[3]) : 5;
  std::string only = count > 4 ? arguments[4] : "";
  if (ids == 0 || batches == 0 || repeats < 1) {
    fprintf(stderr, "usage: table_peers [ids] [batches] [repeats] [absl|libcuckoo]; all numbers at least 1\n");
    return 2;
  }
  printf("{\"name\": \"table-peers\", \"settings\": {\"ids\": %zu, \"dimension\": %zu, \"batch\": %zu}, \"results\": {", ids,
         kDimension, kBatch);
  Results results;
  if (only.empty() || only == "absl") measure<Absl>("absl", ids, batches, repeats, results);
  if (only.empty() || only == "libcuckoo") measure<Libcuckoo>("libcuckoo", ids, batches, repeats, results);
  printf("\n}}\n");
}
