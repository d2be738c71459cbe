#pragma once
#include <atomic>
#include <span>
#include <thread>

#include "replica/events.h"
#include "replica/role.h"
#include "replica/verify.h"

namespace holdfast::replica {

/** `verify` on the primary: a thread that compares, and the events that say what came of it. */
class Comparison {
 public:
  Comparison(Tree& tree, const Ids& ids, Log& log, Events& events)
      : tree_(tree), ids_(ids), log_(log), events_(events) {}
  ~Comparison() { stop(); }
  Comparison(const Comparison&) = delete;
  Comparison& operator=(const Comparison&) = delete;

  /** Begins one; `locks` live until `stop`. EBUSY: one is under way. */
  Failure start(Locks& locks);
  /** Cuts it off, if there is one. */
  void stop();
  /** Body of a `differs` frame: what the secondary found, or that it came to the end. */
  void found(std::span<const uint8_t> body);
  /** Any thread. */
  void status(Line& line) const;

 private:
  void run(Locks& locks);

  Tree& tree_;
  const Ids& ids_;
  Log& log_;
  Events& events_;
  std::thread thread_;
  VerifyProgress progress_;
  std::atomic<bool> running_{false};
  std::atomic<uint64_t> runs_{0};
};

}  // namespace holdfast::replica
