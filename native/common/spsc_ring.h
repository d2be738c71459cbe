#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace holdfast {

/**
 * A ring of fixed-size records for one producer and one consumer, over raw memory, so that it
 * works between threads and between processes that map the same file. All fields are lock-free
 * atomics without addresses in them. The producer never waits: a record that finds no room is
 * dropped and counted in `lost`. Indexes run freely and are masked on use; a peer that corrupts
 * its own index can lose records, never make the other side touch memory outside the ring.
 *
 * All-zero memory is a valid empty ring.
 */
template <typename T, uint32_t capacity>
struct SpscRing {
  static_assert(std::is_trivially_copyable_v<T>);
  static_assert((capacity & (capacity - 1)) == 0, "capacity must be a power of two");
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
  static_assert(std::atomic<uint64_t>::is_always_lock_free);

  alignas(64) std::atomic<uint32_t> head;  // written by the producer
  std::atomic<uint64_t> lost;
  alignas(64) std::atomic<uint32_t> tail;  // written by the consumer
  alignas(64) T slots[capacity];

  /** Producer: appends one record; false (and counted) when the ring is full. */
  bool push(const T& record) {
    const uint32_t at = head.load(std::memory_order_relaxed);
    if (at - tail.load(std::memory_order_acquire) >= capacity) {
      lost.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    std::memcpy(&slots[at & (capacity - 1)], &record, sizeof(T));
    head.store(at + 1, std::memory_order_release);
    return true;
  }

  /** Consumer: copies up to `limit` records to `out`, returns how many. */
  uint32_t pop(T* out, uint32_t limit) {
    const uint32_t from = tail.load(std::memory_order_relaxed);
    uint32_t count = head.load(std::memory_order_acquire) - from;
    if (count > capacity) count = capacity;
    if (count > limit) count = limit;
    for (uint32_t i = 0; i < count; i++) {
      std::memcpy(out + i, &slots[(from + i) & (capacity - 1)], sizeof(T));
    }
    tail.store(from + count, std::memory_order_release);
    return count;
  }

  /** Consumer: drops everything that is waiting. */
  void clear() { tail.store(head.load(std::memory_order_acquire), std::memory_order_release); }
};

}  // namespace holdfast
