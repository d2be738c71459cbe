#include "replica/disk.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace holdfast::replica {
namespace {

constexpr size_t fill_bytes = 1u << 20;
constexpr mode_t file_mode = 0600;

int open_retrying(const std::string& path, int flags) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, file_mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

/** Opens with O_DIRECT, or without it where the file system says EINVAL. -1 and errno. */
int open_direct(const std::string& path, int flags, bool& direct) {
  direct = true;
  const int fd = open_retrying(path, flags | O_DIRECT);
  if (fd >= 0 || errno != EINVAL) return fd;
  direct = false;
  return open_retrying(path, flags);
}

/** fsync of the folder that holds `path`: its entry outlives a power cut. 0 or errno. */
int sync_folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd fd(open_retrying(folder, O_RDONLY | O_DIRECTORY));
  return fd.valid() && fsync(fd.get()) == 0 ? 0 : errno;
}

/** Writes every byte once: preallocated space alone would still need metadata at each first write.
 */
Result<bool> fill(int fd, uint64_t size, const uint8_t* first) {
  // Contiguous where the file system can; where it cannot allocate ahead, the writes do it.
  if (fallocate(fd, 0, 0, static_cast<off_t>(size)) != 0 && errno != EOPNOTSUPP) {
    return Result<bool>::failure(errno, "fallocate");
  }
  const AlignedBuffer zeros(fill_bytes);
  for (uint64_t at = 0; at < size; at += fill_bytes) {
    const size_t part = static_cast<size_t>(std::min<uint64_t>(fill_bytes, size - at));
    const int error = write_at(fd, zeros.data(), part, at);
    if (error != 0) return Result<bool>::failure(error, "pwrite");
  }
  if (first != nullptr) {
    const int error = write_at(fd, first, disk_block, 0);
    if (error != 0) return Result<bool>::failure(error, "pwrite");
  }
  if (fsync(fd) != 0) return Result<bool>::failure(errno, "fsync");
  return Result<bool>::success(true);
}

Result<bool> make(const std::string& path, uint64_t size, const uint8_t* first) {
  const std::string draft = path + ".new";
  bool direct = false;
  const Fd fd(open_direct(draft, O_RDWR | O_CREAT | O_TRUNC, direct));
  if (!fd.valid()) return Result<bool>::failure(errno, "open");
  Result<bool> made = fill(fd.get(), size, first);
  if (made.ok() && rename(draft.c_str(), path.c_str()) != 0) {
    made = Result<bool>::failure(errno, "rename");
  }
  if (!made.ok()) {
    unlink(draft.c_str());
    return made;
  }
  const int error = sync_folder(path);
  return error == 0 ? made : Result<bool>::failure(error, "fsync");
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t size, bool zero)
    : size_((size + disk_block - 1) & ~(disk_block - 1)) {
  bytes_.reset(static_cast<uint8_t*>(std::aligned_alloc(disk_block, size_)));
  if (!bytes_) std::abort();
  if (zero) std::memset(bytes_.get(), 0, size_);
}

void AlignedBuffer::Free::operator()(uint8_t* bytes) const {
  std::free(bytes);
}

Result<DurableFile> open_durable(const std::string& path, uint64_t size, const uint8_t* first) {
  using Outcome = Result<DurableFile>;
  DurableFile file;
  file.fd.reset(open_direct(path, O_RDWR | O_DSYNC, file.direct));
  if (!file.fd.valid() && errno == ENOENT) {
    const Result<bool> made = make(path, size, first);
    if (!made.ok()) return Outcome::failure(made.error, made.call);
    file.made = true;
    file.fd.reset(open_direct(path, O_RDWR | O_DSYNC, file.direct));
  }
  if (!file.fd.valid()) return Outcome::failure(errno, "open");
  struct stat attributes;
  if (fstat(file.fd.get(), &attributes) != 0) return Outcome::failure(errno, "fstat");
  if (!S_ISREG(attributes.st_mode)) return Outcome::failure(EINVAL, "open");
  file.size = static_cast<uint64_t>(attributes.st_size);
  return Outcome::success(std::move(file));
}

int write_at(int fd, const uint8_t* data, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t wrote = pwrite(fd, data, size, static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return errno;
    if (wrote == 0) return EIO;
    data += wrote;
    size -= static_cast<size_t>(wrote);
    offset += static_cast<uint64_t>(wrote);
  }
  return 0;
}

int read_at(int fd, uint8_t* data, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t got = pread(fd, data, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return EIO;
    data += got;
    size -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return 0;
}

}  // namespace holdfast::replica
