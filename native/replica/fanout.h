#pragma once
#include <mutex>
#include <vector>

#include "replica/link.h"
#include "replica/log.h"

/**
 * The log of a primary with distant copies: each change goes to the main link and, in the same
 * order, to the stream of each distant copy. All that waits, waits for the main link only. What a
 * resync or a comparison states goes to its own link, not through here.
 */
namespace holdfast::replica {

class Fanout final : public Log {
 public:
  /** All outlive it. */
  Fanout(Link& main, std::vector<Link*> distant) : main_(main), distant_(std::move(distant)) {}

  bool reserve(size_t bytes, const Waiter& ready) override { return main_.reserve(bytes, ready); }
  void release(size_t bytes) override { main_.release(bytes); }
  Lsn append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload) override {
    return append_noting(kind, flags, file, payload, nullptr);
  }
  Lsn append_noting(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
                    uint64_t* early) override;
  Lsn last() const override { return main_.last(); }
  void push() override;
  bool sync(Lsn lsn, const Waiter& waiter) override { return main_.sync(lsn, waiter); }
  bool strict() const override { return main_.strict(); }
  bool receipt(Lsn lsn, const Waiter& waiter) override { return main_.receipt(lsn, waiter); }
  bool peer_space(uint32_t volume, uint64_t& blocks, uint64_t& free_blocks, uint32_t& block_size,
                  uint64_t& files, uint64_t& free_files) override {
    return main_.peer_space(volume, blocks, free_blocks, block_size, files, free_files);
  }
  void local_failed(int error, const char* call) override { main_.local_failed(error, call); }

  /** Between two changes: tells each distant copy where the main stream is (Link::reached). */
  void compare_streams();

 private:
  Link& main_;
  const std::vector<Link*> distant_;
  std::mutex mutex_;  // taken before a link's own
};

}  // namespace holdfast::replica
