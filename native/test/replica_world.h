#pragma once
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "common/fd.h"
#include "replica/disk.h"
#include "replica/record.h"
#include "test/replica_scratch.h"

/** What the tests of the secondary's disk share: files as bytes, a stream of records. */
namespace holdfast::replica::test {

using Bytes = std::vector<uint8_t>;

inline Bytes bytes_of(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(fd.valid());
  struct stat attributes;
  REQUIRE(fstat(fd.get(), &attributes) == 0);
  Bytes bytes(static_cast<size_t>(attributes.st_size));
  REQUIRE(read_at(fd.get(), bytes.data(), bytes.size(), 0) == 0);
  return bytes;
}

inline void put_bytes(const std::string& path, const Bytes& bytes) {
  const Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  REQUIRE(fd.valid());
  REQUIRE(write_at(fd.get(), bytes.data(), bytes.size(), 0) == 0);
}

/** Makes the records of a history, one after the other. */
struct Stream {
  Tail tail;
  uint64_t epoch = 1;

  /** A write of `size` bytes, different for each LSN. */
  Bytes write(size_t size, FileId file = 20) {
    WriteBody body{};
    body.offset = tail.lsn * 4096;
    body.mtime = {static_cast<int64_t>(tail.lsn), 5, 0};
    Bytes data(size);
    std::minstd_rand random(static_cast<uint32_t>(tail.lsn * 2654435761u + size + epoch));
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random() >> 8);
    const iovec parts[] = {{&body, sizeof body}, {data.data(), data.size()}};
    return record(Kind::write, 0, file, parts);
  }

  Bytes record(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload) {
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(payload, head);
    Bytes out(record_size(head.payload_size));
    write_record(out.data(), head, payload, tail, epoch);
    return out;
  }
};

inline void append(Bytes& to, const Bytes& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace holdfast::replica::test
