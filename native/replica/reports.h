#pragma once
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "replica/frames.h"

/**
 * What the target of a resync has to tell the source: what it lacks (`missing`), what differs
 * (`differs`). The source must hear each of them, or the copies differ for ever: they are kept
 * until a `hello` says up to which LSN they were heard, told again on each connection, and lie in
 * the file `reports` of the state folder before a checkpoint passes the record that they are about.
 *
 * The file: 8 bytes `HDFREP01`, u64 LSN of the last that is gone; then for each report u64 LSN, u32
 * frame type, u32 size, u32 CRC-32C of these 16 bytes and the body, u32 0, the body, zeros up to a
 * multiple of 8. What a torn write left at its end does not count: no checkpoint has passed it.
 */
namespace holdfast::replica {

struct Report {
  Lsn lsn = 0;  // of the record that it is about
  Frame type{};
  std::vector<uint8_t> body;
};

/** Every call is safe from any thread; `open` comes first. */
class Reports {
 public:
  explicit Reports(uint64_t max_memory = 64u << 20) : max_memory_(max_memory) {}

  /** Takes what the file has; without one there are none. EBADMSG: it is no such file. */
  Result<bool> open(const std::string& path);
  /** Keeps one, to be told. The oldest that were told go when there are too many. */
  void add(Lsn lsn, Frame type, std::span<const uint8_t> body);
  /** What was added is in the file, durably, when it returns 0. */
  int save();
  /** A connection begins: the other side heard those up to `heard`; all others are to be told. */
  void begin(Lsn heard);
  /** The next one that this connection was not told. False: there is none. */
  bool next(Report& out);
  /** True: there is one. */
  bool more() const;
  /** True, once: reports are gone that the source may not have heard. It has to compare all. */
  bool take_lost();
  /** None is there any more, nor a file. 0 or errno. */
  int clear();

  uint64_t count() const;  // that were ever added
  uint64_t kept() const;

 private:
  static size_t cost(const Report& report) { return sizeof report + report.body.size(); }
  void drop_first();
  int rewrite();
  int append(int fd, size_t from) const;
  void parse(std::span<const uint8_t> bytes);

  const uint64_t max_memory_;
  mutable std::mutex mutex_;
  std::string path_;
  std::deque<Report> all_;
  uint64_t memory_ = 0;
  size_t told_ = 0;   // the first of `all_` that this connection was not told
  size_t saved_ = 0;  // the first that is not in the file
  uint64_t file_size_ = 0;
  Lsn dropped_ = 0;  // the last that is gone
  bool lost_ = false;
  uint64_t count_ = 0;
};

}  // namespace holdfast::replica
