#pragma once
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "replica/journal.h"
#include "replica/record.h"

/**
 * What the replica's fuzzers share. A checksum and a chain stand before nearly everything that is
 * parsed, so random bytes would be refused at the first look: an input is a small programme instead
 * that makes good records and then spoils them, or hands bytes over as they are.
 */
namespace holdfast::replica::fuzz {

/** Ends the process: what must hold does not. */
inline void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

/** The input, taken from the front; zeros when it is used up. */
class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(data, size) {}
  bool empty() const { return left_.empty(); }
  template <typename T>
  T take() {
    T value{};
    const size_t size = std::min(sizeof value, left_.size());
    if (size > 0) std::memcpy(&value, left_.data(), size);
    left_ = left_.subspan(size);
    return value;
  }
  std::span<const uint8_t> bytes(size_t most) {
    const auto taken = left_.first(std::min(most, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> left_;
};

/** A record around that payload, with a good CRC and chain; `tail` moves on. */
inline std::vector<uint8_t> record_of(uint16_t kind, uint16_t flags, FileId file,
                                      std::span<const uint8_t> payload, Tail& tail,
                                      uint64_t epoch) {
  RecordHead head{};
  head.kind = kind;
  head.flags = flags;
  head.file = file;
  const iovec part{const_cast<uint8_t*>(payload.data()), payload.size()};
  measure_payload({&part, 1}, head);
  std::vector<uint8_t> bytes(record_size(payload.size()));
  write_record(bytes.data(), head, {&part, 1}, tail, epoch);
  return bytes;
}

/** A write record of the size, with data that tells its LSN. */
inline std::vector<uint8_t> write_of(size_t size, Tail& tail, uint64_t epoch) {
  std::vector<uint8_t> payload(sizeof(WriteBody) + 1 + size, static_cast<uint8_t>(tail.lsn + 1));
  const WriteBody body{tail.lsn * 512, {1, 2, 0}};
  std::memcpy(payload.data(), &body, sizeof body);
  return record_of(1, 0, 17, payload, tail, epoch);
}

/** A journal in memory-backed storage; its file has no name any more, so it goes with the process.
 * `fd`: the file itself. */
inline Journal& scratch_journal(uint64_t size, int* fd = nullptr) {
  static Journal journal;
  static int file = -1;
  if (file < 0) {
    char folder[] = "/dev/shm/holdfast-fuzz-XXXXXX";
    must(mkdtemp(folder) != nullptr, "a folder");
    const std::string name = std::string(folder) + "/journal";
    must(journal.open(name, size).ok(), "a journal");
    file = open(name.c_str(), O_RDWR | O_CLOEXEC);
    must(file >= 0 && unlink(name.c_str()) == 0 && rmdir(folder) == 0, "a file without a name");
  }
  if (fd != nullptr) *fd = file;
  return journal;
}

}  // namespace holdfast::replica::fuzz
