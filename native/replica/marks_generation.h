#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "replica/marks_file.h"

/** A generation of marks in memory: what marks.cc works with. */
namespace holdfast::replica {

inline constexpr size_t mark_shards = 16;

/** Counters that threads do not share, as far as there are enough of them. */
struct alignas(64) MarkShard {
  std::atomic<uint64_t> inside{0};  // changes under way
  std::atomic<uint64_t> guarded{0};
};

/**
 * Marks that are durable: filled by one thread, read by all without a lock. A place that is taken
 * never changes; who needs more room makes a larger table, and this one stays readable.
 */
class MarkTable {
 public:
  explicit MarkTable(size_t places) : mask_(places - 1), places_(new Place[places]) {}
  size_t places() const { return mask_ + 1; }
  static uint64_t rest_of(const Mark& mark) { return uint64_t{mark.region} << 32 | mark.what; }
  bool has(const Mark& mark) const {
    const uint64_t rest = rest_of(mark);
    for (size_t at = home(mark.file, rest);; at = (at + 1) & mask_) {
      const uint64_t file = places_[at].file.load(std::memory_order_acquire);
      if (file == 0) return false;
      if (file == mark.file && places_[at].rest.load(std::memory_order_relaxed) == rest) {
        return true;
      }
    }
  }
  void add(FileId file, uint64_t rest) {
    size_t at = home(file, rest);
    while (places_[at].file.load(std::memory_order_relaxed) != 0) at = (at + 1) & mask_;
    places_[at].rest.store(rest, std::memory_order_relaxed);
    places_[at].file.store(file, std::memory_order_release);
  }
  void add_all(const MarkTable& other) {
    for (size_t at = 0; at < other.places(); at++) {
      const uint64_t file = other.places_[at].file.load(std::memory_order_relaxed);
      if (file != 0) add(file, other.places_[at].rest.load(std::memory_order_relaxed));
    }
  }

 private:
  struct Place {
    std::atomic<uint64_t> file{0};  // 0: free
    std::atomic<uint64_t> rest{0};
  };
  size_t home(uint64_t file, uint64_t rest) const {
    uint64_t hash = (file ^ rest * 0x9e3779b97f4a7c15ull) * 0xd6e8feb86659fd93ull;
    hash ^= hash >> 32;
    return hash * 0xd6e8feb86659fd93ull >> 20 & mask_;
  }
  size_t mask_;
  std::unique_ptr<Place[]> places_;
};

/** Used again for later generations: a thread that comes late may still count itself in and out. */
struct MarkGeneration {
  std::array<MarkShard, mark_shards> shards;
  FileId first_new = 0;
  std::atomic<MarkTable*> table{nullptr};
  std::atomic<bool> everything{false};

  // Of who commits.
  std::vector<std::unique_ptr<MarkTable>> tables;
  MarkFile file;
  std::vector<std::string> paths;  // deleted with it
  std::atomic<uint64_t> marks{0};
  uint64_t carried = 0;  // marks of earlier processes, in the other paths
  int64_t begun_ns = 0;
  uint64_t guarded_before = 0;

  // Once it is an old one.
  bool idle = false;  // no change is under way
  Lsn last = 0;       // the last record then

  bool has(const Mark& mark) const {
    if (mark.file >= first_new) return true;
    const MarkTable& all = *table.load(std::memory_order_acquire);
    if (all.has(mark)) return true;
    const bool data = mark.what == uint32_t(MarkWhat::data);
    return data && all.has({mark.file, mark_whole, mark.what});
  }
  bool has_all(const Mark* some, size_t count) const {
    if (everything.load(std::memory_order_acquire)) return true;
    for (size_t i = 0; i < count; i++) {
      if (!has(some[i])) return false;
    }
    return true;
  }
  /** It is durable. */
  void note(const Mark& mark);
  /** Changes that found their marks there. */
  uint64_t guarded() const;
  /** It covers something. */
  bool used() const;
  /** True once the generation has ended: no change that it covers is under way. */
  bool nobody_inside() const;
};

/** Which of the shards is the calling thread's. */
size_t my_mark_shard();

}  // namespace holdfast::replica
