#pragma once
#include <memory>
#include <string>
#include <vector>

#include "replica/fanout.h"
#include "replica/front.h"
#include "replica/link.h"
#include "replica/marks.h"
#include "replica/rejoining.h"
#include "replica/role.h"

/**
 * The distant copies of a primary: asynchronous ones besides the peer, each with a stream of its
 * own (ring in memory, superblock in `STATE/distant-N`, dirty set, resync). See link_distant.cc for
 * what keeps the primary from ever waiting for one.
 */
namespace holdfast::replica {

/** How the main stream of this primary begins. */
enum class MainBegins {
  anew,     // another server was the primary before, or nobody
  stopped,  // it goes on after its last record
  crashed,  // it goes on, and what it changed last is known by the marks
};

/**
 * Superblock of a distant copy, as of a primary: `required_peer` 0, no epoch alone. `base`: what
 * the copy has durably, or, with base_state 1, as for the peer. `checkpoint`: after an orderly stop
 * the end of the main stream; its cursor is 1 while the saved dirty set counts beside the marks.
 */
class Distant {
 public:
  /** All outlive it. `index` from 0. */
  Distant(uint32_t index, const OpenLine& line, Front& front, Events& events);
  ~Distant();
  Distant(const Distant&) = delete;
  Distant& operator=(const Distant&) = delete;

  /** Finds after what its stream goes on. `main`: superblock of the mirror before this primary
   * began; before new marks are. */
  Failure begin(MainBegins how, const SuperState& main, uint64_t ring_bytes);
  /** Saves that, with the epoch of `main`, the superblock as it is now. */
  Failure save_beginning(const SuperState& main);
  Failure start(const LinkOptions& like, Fanout& fanout, Marks& marks);
  /** After an orderly stop, which the files have survived: what the copy lacks. `main`: end of the
   * main stream. 0 or errno; then the copy will be compared. */
  int save_end(const Tail& main);
  void status(Line& line) const;

  Link& link() { return *link_; }
  Rejoiner& rejoiner() { return rejoiner_; }
  bool started() const { return started_; }

 private:
  class Memory;
  class Tagged;

  Failure open_super();
  void go_on_after_crash();
  bool is_own(const SuperState& main) const;

  const uint32_t index_;
  const OpenLine& line_;
  const std::string folder_;
  std::unique_ptr<Tagged> events_;
  Rejoiner rejoiner_;
  Super super_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Ring> ring_;
  std::unique_ptr<Link> link_;
  Tail tail_;
  Lsn since_ = 0;
  bool left_ = true, anew_ = true, started_ = false;
};

/** All of them. None: every call does nothing. */
class DistantCopies {
 public:
  DistantCopies(const OpenLine& line, Front& front, Events& events);

  bool any() const { return !all_.empty(); }
  uint32_t count() const { return static_cast<uint32_t>(all_.size()); }
  Failure begin(MainBegins how, const SuperState& main, uint64_t ring_bytes);
  Failure save_beginning(const SuperState& main);
  /** `like`: what they have in common with the main link. Makes `log` that of the file server. */
  Failure start(Link& main, const LinkOptions& like, Marks& marks);
  Log& log() { return *fanout_; }
  void attach(Locks& locks);
  void begin_epoch(uint64_t epoch);
  /** Ends the links; waits up to `drain_ms` for those that lack little. */
  void stop(int64_t drain_ms);
  /** See Distant::save_end; warns. */
  void save_end(const Tail& main);
  /** Any thread, once they are started. */
  void status(Line& line) const;

 private:
  Events& events_;
  std::vector<std::unique_ptr<Distant>> all_;
  std::unique_ptr<Fanout> fanout_;
};

}  // namespace holdfast::replica
