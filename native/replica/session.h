#pragma once
#include <sys/stat.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "common/fd.h"
#include "common/result.h"
#include "replica/ids.h"
#include "replica/proto.h"
#include "replica/shared.h"

namespace holdfast::replica {

inline constexpr uint32_t fuse_max_write = max_data;  // of one request; 256 pages
/** What a buffer for one request holds: its heads, and the largest WRITE, SETXATTR or name. */
inline constexpr size_t call_bytes = fuse_max_write + 8192;

/** One mounted directory: its /dev/fuse, and the answers that go there. */
class Session {
 public:
  Session(uint8_t volume, Fd fuse, std::string path)
      : volume_(volume), fuse_(std::move(fuse)), path_(std::move(path)) {}

  /**
   * Opens /dev/fuse and mounts it over `path`, with the mount flags (nosuid, nodev …) of what is
   * there. `name` is what `mount` shows as the source. The kernel then waits for INIT.
   */
  static Result<Fd> mount(const char* path, const char* name);
  /** Reads INIT and answers it; what was agreed on goes to `shared`. 0 or errno. */
  int negotiate(Shared* shared);
  /** Answers an INIT request of `size` bytes (with its header). 0 or errno. */
  int answer_init(const uint8_t* request, size_t size, Shared* shared);
  /** Asks the kernel for everything that has no answer yet (FUSE_NOTIFY_RESEND). */
  int ask_again();

  /** Answers with an errno, or with nothing. */
  void answer(uint64_t unique, int error);
  void answer(uint64_t unique, std::span<const iovec> parts);
  void answer(uint64_t unique, const void* payload, size_t size);

  int fd() const { return fuse_.get(); }
  uint8_t volume() const { return volume_; }
  const std::string& path() const { return path_; }
  /** The directory itself. */
  FileId root() const { return volume_ + FileId{1}; }
  FileId file_of(uint64_t node) const { return node == FUSE_ROOT_ID ? root() : node; }
  uint64_t node_of(FileId id) const { return id == root() ? FUSE_ROOT_ID : id; }

  std::atomic<bool> gone{false};    // unmounted
  std::atomic<bool> ending{false};  // we unmount it
  dev_t device = 0;                 // of the real directory: nothing below another is served

 private:
  uint8_t volume_;
  Fd fuse_;
  std::string path_;
};

/** The kernel's attributes from a stat(2) of the real file. */
void fill_attributes(const struct stat& from, fuse_attr& to);

}  // namespace holdfast::replica
