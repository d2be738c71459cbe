#pragma once
#include "replica/stater.h"

namespace holdfast::replica {

/** Room in the log for what is stated under one lock; gives back what was not used. */
class Stater::Reserved {
 public:
  explicit Reserved(Stater& stater) : stater_(stater) {}
  ~Reserved() {
    if (left_ > 0) stater_.log_.release(left_);
  }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;

  /** Waits for it; no lock is held. 0 or errno. */
  int take(size_t bytes) {
    if (const int error = stater_.room_(bytes); error != 0) return stater_.fail(error, "reserve");
    left_ = bytes;
    return 0;
  }
  size_t left() const { return left_; }
  /** A record, for which there is room. */
  void append(Kind kind, FileId file, std::span<const iovec> payload) {
    size_t size = 0;
    for (const iovec& part : payload) size += part.iov_len;
    left_ -= record_size(size);
    Stated& sum = stater_.stated_;
    sum.last = stater_.log_.append(kind, 0, file, payload);
    sum.bytes += record_size(size);
    sum.records++;
  }

 private:
  Stater& stater_;
  size_t left_ = 0;
};

}  // namespace holdfast::replica
