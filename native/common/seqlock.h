#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace holdfast {

/**
 * A value that one writer replaces and any number of readers copy, over shared memory. The writer
 * never waits; a reader that met a write tries again, a bounded number of times. The words are
 * relaxed atomics, so that the race is defined (Boehm, "Can seqlocks get along with programming
 * language memory models?", 2012).
 */
template <typename T>
struct Seqlock {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 8 == 0);

  alignas(64) std::atomic<uint64_t> sequence;
  std::atomic<uint64_t> words[sizeof(T) / 8];

  /**
   * Writer: stores the first `bytes` of `value` (a multiple of 8); the rest keeps its content. One
   * that died in the middle leaves what nobody reads, until the next writer wrote.
   */
  void write(const T& value, size_t bytes = sizeof(T)) {
    const uint64_t odd = sequence.load(std::memory_order_relaxed) | 1;
    sequence.store(odd, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    const char* from = reinterpret_cast<const char*>(&value);
    for (size_t i = 0; i < bytes / 8; i++) {
      uint64_t word;
      std::memcpy(&word, from + i * 8, 8);
      words[i].store(word, std::memory_order_relaxed);
    }
    sequence.store(odd + 1, std::memory_order_release);
  }

  /** Reader: copies the value; false when the writer was in the way `tries` times. */
  bool read(T& value, int tries = 1000) const {
    char* to = reinterpret_cast<char*>(&value);
    for (int attempt = 0; attempt < tries; attempt++) {
      const uint64_t before = sequence.load(std::memory_order_acquire);
      if ((before & 1) != 0) continue;
      for (size_t i = 0; i < sizeof(T) / 8; i++) {
        const uint64_t word = words[i].load(std::memory_order_relaxed);
        std::memcpy(to + i * 8, &word, 8);
      }
      std::atomic_thread_fence(std::memory_order_acquire);
      if (sequence.load(std::memory_order_relaxed) == before) return true;
    }
    return false;
  }
};

}  // namespace holdfast
