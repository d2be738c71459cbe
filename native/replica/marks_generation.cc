#include "replica/marks_generation.h"

#include <algorithm>

namespace holdfast::replica {

void MarkGeneration::note(const Mark& mark) {
  MarkTable* now = tables.back().get();
  const uint64_t count = marks.load(std::memory_order_relaxed) + 1;
  if (count * 5 > now->places() * 3) {
    auto larger = std::make_unique<MarkTable>(now->places() * 2);
    larger->add_all(*now);
    now = larger.get();
    tables.push_back(std::move(larger));
  }
  now->add(mark.file, MarkTable::rest_of(mark));
  table.store(now, std::memory_order_release);
  marks.store(count, std::memory_order_relaxed);
}

uint64_t MarkGeneration::guarded() const {
  uint64_t sum = 0;
  for (const MarkShard& shard : shards) sum += shard.guarded.load(std::memory_order_relaxed);
  return sum;
}

bool MarkGeneration::used() const {
  return marks > 0 || paths.size() > 1 || everything || guarded() != guarded_before;
}

bool MarkGeneration::nobody_inside() const {
  return std::ranges::all_of(shards,
                             [](const MarkShard& shard) { return shard.inside.load() == 0; });
}

size_t my_mark_shard() {
  static std::atomic<size_t> threads{0};
  static thread_local const size_t mine = threads.fetch_add(1) % mark_shards;
  return mine;
}

}  // namespace holdfast::replica
