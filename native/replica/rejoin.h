#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "replica/marks.h"
#include "replica/record.h"
#include "replica/resync.h"

/**
 * What the primary's link (link.h) asks of those who know its files, to bring a peer back: the
 * dirty set, the marks, and the resync that states what is dirty. In the product: rejoining.h.
 */
namespace holdfast::replica {

class Rejoining {
 public:
  virtual ~Rejoining() = default;

  // What the peer may lack. From any thread; `touch` with the ring's lock held.
  virtual void touch(const Record& record) = 0;
  /** What the peer says that only it may have changed. */
  virtual void touched(const Marked& marked) = 0;
  /** What this server's own marks cover; everything, when they cannot be read. */
  virtual void own_marks() = 0;
  virtual void compare_all() = 0;
  /** All roots and what is in them. */
  virtual void first_copy() = 0;
  /** Nothing is dirty. */
  virtual void clear() = 0;
  /** Whether marks may go: not while the peer does not follow. */
  virtual void follows(bool peer) = 0;
  virtual bool nothing_dirty() const = 0;
  /** False: what is dirty is not known, everything is. */
  virtual bool known() const = 0;

  // The stating of what is dirty. By the link's thread.
  /** See Resync::start; the calls back come from another thread. */
  virtual void start(uint64_t run, std::function<void()> whole,
                     std::function<void(int error, const char* call)> failed) = 0;
  virtual void stop() = 0;
  virtual bool missing(std::span<const uint8_t> body) = 0;
  virtual void differs(std::span<const uint8_t> body) = 0;
  virtual const ResyncProgress& progress() const = 0;
};

}  // namespace holdfast::replica
