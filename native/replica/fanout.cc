#include "replica/fanout.h"

namespace holdfast::replica {

Lsn Fanout::append_noting(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
                          uint64_t* early) {
  const std::lock_guard lock(mutex_);
  // First: what dies between the two is found in the main ring, and the marks cover it for the
  // others.
  const Lsn lsn = main_.append_noting(kind, flags, file, payload, early);
  for (Link* each : distant_) each->offer(kind, flags, file, payload, lsn);
  return lsn;
}

void Fanout::push() {
  main_.push();
  for (Link* each : distant_) each->push();
}

void Fanout::compare_streams() {
  const std::lock_guard lock(mutex_);
  const Lsn main = main_.last();
  for (Link* each : distant_) each->reached(main);
}

}  // namespace holdfast::replica
