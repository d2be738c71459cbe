#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>

#include "replica/record.h"

/**
 * Where a distant copy's stream was, and when: pairs of its own LSN and the main stream's, with the
 * time of the change. From them follow how old the oldest change is that the copy lacks, and up to
 * which record of the main stream it has everything.
 */
namespace holdfast::replica {

class Lag {
 public:
  static constexpr size_t most = 1024;
  static constexpr int64_t every_ns = 50'000'000;

  // Each call is safe from any thread.

  /** A change is in both streams. One per `every_ns` is kept; where `most` do not reach back far
   * enough, every other one goes, and the next are as far apart. */
  void add(Lsn lsn, Lsn main, int64_t now_ns);
  /** No change is under way, this copy's stream has come to `lsn` and the main one to `main`: both
   * also have records that are none of the other's business. */
  void reached(Lsn lsn, Lsn main, int64_t now_ns);
  /** The copy has everything up to `lsn`: what is older is not asked for any more. */
  void had(Lsn lsn);
  /** A copy that has everything up to `lsn` has everything up to this record of the main stream;
   * 0: not known. */
  Lsn main_of(Lsn lsn) const;
  /** When the oldest change after `lsn` was made, or a little earlier; 0: there is none. */
  int64_t since_ns(Lsn lsn) const;

 private:
  struct Sample {
    Lsn lsn;
    Lsn main;
    int64_t at_ns;
  };
  void keep(const Sample& sample);

  mutable std::mutex mutex_;
  std::deque<Sample> samples_;  // LSNs ascend
  Sample last_{};               // the last change
  int64_t step_ns_ = every_ns;
};

}  // namespace holdfast::replica
