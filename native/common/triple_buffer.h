#pragma once
#include <atomic>
#include <cstdint>

namespace holdfast {

/**
 * Hands the newest value from one writer to one reader without a lock and without waiting:
 * the writer fills a slot that nobody reads and swaps it with the middle one, the reader swaps
 * the middle one for its own when it is new. Values in between are skipped.
 */
template <typename T>
class TripleBuffer {
 public:
  /** Writer: the slot to fill. Its content is some older value. */
  T& draft() { return slots_[draft_]; }

  /** Writer: makes the draft the newest value. */
  void publish() {
    draft_ = middle_.exchange(draft_ | fresh, std::memory_order_acq_rel) & index_mask;
  }

  /** Reader: the newest value, or nullptr when it was taken before. Valid until the next take. */
  const T* take() {
    if ((middle_.load(std::memory_order_relaxed) & fresh) == 0) return nullptr;
    reading_ = middle_.exchange(reading_, std::memory_order_acq_rel) & index_mask;
    return &slots_[reading_];
  }

 private:
  static constexpr uint32_t fresh = 4;
  static constexpr uint32_t index_mask = 3;

  T slots_[3] = {};
  uint32_t draft_ = 0;
  std::atomic<uint32_t> middle_{1};
  uint32_t reading_ = 2;
};

}  // namespace holdfast
