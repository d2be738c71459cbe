#pragma once
#include <sys/mman.h>

#include <cstdlib>

#include "replica/shared.h"

/** Shared memory of a worker for tests: all zero, as the holder makes it. */
namespace holdfast::replica::test {

class Memory {
 public:
  explicit Memory(uint64_t ring_size) : size_(sizeof(Shared) + ring_size) {
    at_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at_ == MAP_FAILED) std::abort();
    shared()->magic = shared_magic;
    shared()->ring_size = ring_size;
  }
  ~Memory() { munmap(at_, size_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Shared* shared() const { return static_cast<Shared*>(at_); }
  uint8_t* arena() const { return static_cast<uint8_t*>(at_) + sizeof(Shared); }

 private:
  size_t size_;
  void* at_;
};

}  // namespace holdfast::replica::test
