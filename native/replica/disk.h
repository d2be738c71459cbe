#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/fd.h"
#include "common/result.h"

/** Small files of the mirror's state folder whose writes are durable when they return. */
namespace holdfast::replica {

inline constexpr size_t disk_block = 4096;

/** Memory for O_DIRECT: aligned to disk_block. */
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /** `size` is rounded up to disk_block. Ends the process when there is no memory. `zero` false:
   * what is in it first is not defined, and no page is touched before it is used. */
  explicit AlignedBuffer(size_t size, bool zero = true);
  uint8_t* data() const { return bytes_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* bytes) const;
  };
  std::unique_ptr<uint8_t, Free> bytes_;
  size_t size_ = 0;
};

struct DurableFile {
  Fd fd;
  bool direct = false;  // O_DIRECT; a file system without it (older tmpfs) has O_DSYNC alone
  bool made = false;
  uint64_t size = 0;
};

/**
 * Opens `path` read-write, O_DSYNC and, where the file system has it, O_DIRECT. An absent file is
 * made whole or not at all: `size` bytes, zeros but for the first block, which is `first`
 * (disk_block bytes, aligned; null: zeros too), all of them written and synced, under another name;
 * then it is renamed and the folder synced. So later writes inside it change no metadata.
 */
Result<DurableFile> open_durable(const std::string& path, uint64_t size, const uint8_t* first);

/** pwrite and pread of all bytes; aligned where `direct`. 0 or errno; EIO: the file is shorter. */
int write_at(int fd, const uint8_t* data, size_t size, uint64_t offset);
int read_at(int fd, uint8_t* data, size_t size, uint64_t offset);

}  // namespace holdfast::replica
