#include "replica/resync_pace.h"

#include <algorithm>

namespace holdfast::replica {
namespace {

constexpr int64_t ms = 1'000'000;
constexpr int64_t second = 1000 * ms;
constexpr int64_t least_pause = ms / 4;
constexpr int64_t most_pause = second;     // whatever the link carries
constexpr int64_t unknown_most = 50 * ms;  // while it is not known what it carries
constexpr int64_t tick_every = 250 * ms;   // p99 is of a second: it answers slowly
constexpr int64_t quiet = 1200 * ms;       // so that the last second had nothing of the resync
constexpr int64_t baseline_age = 30 * second;

}  // namespace

int64_t next_pause_ns(const PaceInput& in) {
  if (in.p99_ns == 0) return 0;
  int64_t pause = in.pause_ns;
  if (in.baseline_ns != 0) {
    const bool slow =
        static_cast<double>(in.p99_ns) > in.factor * static_cast<double>(in.baseline_ns);
    if (slow) {
      pause = std::max(2 * pause, least_pause);
    } else {
      pause = pause / 2 < least_pause ? 0 : pause / 2;
    }
  }
  int64_t most = unknown_most;
  const double least_rate = in.floor * static_cast<double>(in.carries);
  if (least_rate > 0) {
    most = static_cast<int64_t>(std::min(static_cast<double>(most_pause),
                                         static_cast<double>(in.piece) / least_rate * 1e9));
  }
  return std::min(pause, most);
}

void RateMeter::move_to(int64_t now_ns) {
  const int64_t slot = now_ns / slot_ns;
  if (first_ns_ < 0) {
    first_ns_ = now_ns;
    slot_ = slot;
  }
  const int64_t most = std::min<int64_t>(slot - slot_, slots);
  for (int64_t n = 1; n <= most; n++) bytes_[static_cast<size_t>(slot_ + n) % slots] = 0;
  slot_ = std::max(slot_, slot);
}

void RateMeter::add(int64_t now_ns, uint64_t bytes) {
  move_to(now_ns);
  bytes_[static_cast<size_t>(slot_) % slots] += bytes;
}

uint64_t RateMeter::rate(int64_t now_ns) {
  move_to(now_ns);
  uint64_t sum = 0;
  for (const uint64_t bytes : bytes_) sum += bytes;
  const int64_t oldest = std::max(first_ns_, (slot_ - static_cast<int64_t>(slots) + 1) * slot_ns);
  const int64_t time = std::max(now_ns - oldest, slot_ns);
  return static_cast<uint64_t>(static_cast<double>(sum) * 1e9 / static_cast<double>(time));
}

Pace::Pace(const ResyncOptions& options, int64_t now_ns, int64_t p99_ns)
    : options_(options), baseline_ns_(p99_ns), measured_ns_(now_ns) {}

void Pace::sent(int64_t now_ns, uint64_t bytes) {
  meter_.add(now_ns, bytes);
  // Small pieces, such as a name, are not worth a whole pause.
  const double share = std::min(
      1.0, static_cast<double>(bytes) / static_cast<double>(std::max<size_t>(1, options_.piece)));
  due_ns_ =
      std::max(due_ns_, now_ns) + static_cast<int64_t>(share * static_cast<double>(pause_ns_));
  if (options_.bytes_per_second == 0) return;
  budget_ns_ = std::max(budget_ns_, now_ns) +
               static_cast<int64_t>(static_cast<double>(bytes) * 1e9 /
                                    static_cast<double>(options_.bytes_per_second));
}

void Pace::tick(int64_t now_ns, int64_t p99_ns) {
  carries_ = std::max(carries_, meter_.rate(now_ns));
  const bool old = pause_ns_ > 0 && now_ns - measured_ns_ > baseline_age;
  if (p99_ns != 0 && (baseline_ns_ == 0 || old)) {
    quiet_until_ns_ = now_ns + quiet;
    return;
  }
  pause_ns_ = next_pause_ns({pause_ns_, p99_ns, baseline_ns_, options_.latency_factor,
                             options_.floor, carries_, options_.piece});
}

int64_t Pace::due_ns(int64_t now_ns, int64_t p99_ns) {
  if (quiet_until_ns_ != 0 && now_ns >= quiet_until_ns_) {
    if (p99_ns != 0) baseline_ns_ = p99_ns;
    measured_ns_ = now_ns;
    quiet_until_ns_ = 0;
    tick_ns_ = now_ns;
  } else if (quiet_until_ns_ == 0 && now_ns - tick_ns_ >= tick_every) {
    tick_ns_ = now_ns;
    tick(now_ns, p99_ns);
  }
  return std::max({quiet_until_ns_, due_ns_, budget_ns_});
}

}  // namespace holdfast::replica
