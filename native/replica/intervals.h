#pragma once
#include <cstdint>
#include <iterator>
#include <map>

namespace holdfast::replica {

/** Disjoint ranges [from, to), none of which touches the next. */
class Intervals {
 public:
  /** A range that ends here has no known end: it counts 0 bytes. */
  static constexpr uint64_t endless = INT64_MAX;

  /** Adds a range; what it touches becomes one with it. */
  void add(uint64_t from, uint64_t to) {
    if (from >= to) return;
    auto at = ranges_.upper_bound(from);
    if (at != ranges_.begin() && std::prev(at)->second >= from) --at;
    while (at != ranges_.end() && at->first <= to) {
      if (at->first < from) from = at->first;
      if (at->second > to) to = at->second;
      bytes_ -= length(at->first, at->second);
      at = ranges_.erase(at);
    }
    ranges_.emplace_hint(at, from, to);
    bytes_ += length(from, to);
  }

  /** Takes at most `limit` from the front; there must be something. */
  void take_front(uint64_t limit, uint64_t& from, uint64_t& to) {
    const auto first = ranges_.begin();
    from = first->first;
    to = first->second;
    bytes_ -= length(from, to);
    ranges_.erase(first);
    if (to - from <= limit) return;
    ranges_.emplace(from + limit, to);
    bytes_ += length(from + limit, to);
    to = from + limit;
  }

  /** Makes one of neighbours that are no farther apart than this. */
  void close_gaps(uint64_t most) {
    for (auto at = ranges_.begin(); at != ranges_.end(); ++at) {
      bytes_ -= length(at->first, at->second);
      auto next = std::next(at);
      while (next != ranges_.end() && next->first - at->second <= most) {
        bytes_ -= length(next->first, next->second);
        at->second = next->second;
        next = ranges_.erase(next);
      }
      bytes_ += length(at->first, at->second);
    }
  }

  bool empty() const { return ranges_.empty(); }
  size_t count() const { return ranges_.size(); }
  uint64_t bytes() const { return bytes_; }
  auto begin() const { return ranges_.begin(); }
  auto end() const { return ranges_.end(); }

 private:
  static uint64_t length(uint64_t from, uint64_t to) { return to >= endless ? 0 : to - from; }

  std::map<uint64_t, uint64_t> ranges_;
  uint64_t bytes_ = 0;
};

}  // namespace holdfast::replica
