#include "replica/lag.h"

#include <algorithm>

namespace holdfast::replica {

void Lag::keep(const Sample& sample) {
  samples_.push_back(sample);
  if (samples_.size() <= most) return;
  // The newest stays: it is the last of an odd number.
  size_t kept = 0;
  for (size_t i = 0; i < samples_.size(); i += 2) samples_[kept++] = samples_[i];
  samples_.resize(kept);
  step_ns_ *= 2;
}

void Lag::add(Lsn lsn, Lsn main, int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  last_ = {lsn, main, now_ns};
  if (samples_.empty() || now_ns - samples_.back().at_ns >= step_ns_) keep(last_);
}

void Lag::reached(Lsn lsn, Lsn main, int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  const auto newest = [this] { return samples_.empty() ? 0 : samples_.back().lsn; };
  if (newest() < last_.lsn) keep(last_);
  if (newest() < lsn) return keep({lsn, main, now_ns});
  if (newest() == lsn) samples_.back().main = main;
}

void Lag::had(Lsn lsn) {
  const std::lock_guard lock(mutex_);
  while (samples_.size() > 1 && samples_[1].lsn <= lsn) samples_.pop_front();
  if (samples_.size() <= 1) step_ns_ = every_ns;
}

Lsn Lag::main_of(Lsn lsn) const {
  const std::lock_guard lock(mutex_);
  const auto after = std::ranges::upper_bound(samples_, lsn, {}, &Sample::lsn);
  return after == samples_.begin() ? 0 : std::prev(after)->main;
}

int64_t Lag::since_ns(Lsn lsn) const {
  const std::lock_guard lock(mutex_);
  if (last_.lsn <= lsn) return 0;
  // The first that it lacks is this one, or came after it.
  const auto after = std::ranges::upper_bound(samples_, lsn + 1, {}, &Sample::lsn);
  return after == samples_.begin() ? samples_.front().at_ns : std::prev(after)->at_ns;
}

}  // namespace holdfast::replica
