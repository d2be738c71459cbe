// The system calls of a history's operations.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "operation.h"
#include "tool.h"

namespace holdfast::replica_tool {
namespace {

constexpr size_t page = 4096;

int outcome(long result) {
  return result < 0 ? errno : 0;
}

/** Of a call that moves bytes; a short one is an error of its own kind. */
int moved(ssize_t result, size_t wanted) {
  if (result < 0) return errno;
  return static_cast<size_t>(result) == wanted ? 0 : ENODATA;
}

struct Free {
  void operator()(char* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<char, Free>;

Buffer data_of(const Operation& operation) {
  const size_t room = (operation.length + page) & ~(page - 1);
  Buffer buffer(static_cast<char*>(std::aligned_alloc(page, room)));
  fill(buffer.get(), operation.length, operation.seed);
  return buffer;
}

int write_data(const Operation& operation, int folder) {
  const bool direct = (operation.number & write_direct) != 0;
  const Fd fd(openat(folder, operation.a.c_str(), O_WRONLY | O_CLOEXEC | (direct ? O_DIRECT : 0)));
  if (!fd.valid()) return errno;
  const Buffer buffer = data_of(operation);
  const iovec part{buffer.get(), operation.length};
  const int flags = (operation.number & write_durable) != 0 ? RWF_DSYNC : 0;
  return moved(pwritev2(fd.get(), &part, 1, static_cast<off_t>(operation.offset), flags),
               operation.length);
}

int append_data(const Operation& operation, int folder) {
  const Fd fd(openat(folder, operation.a.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (!fd.valid()) return errno;
  const Buffer buffer = data_of(operation);
  return moved(write(fd.get(), buffer.get(), operation.length), operation.length);
}

int store(const Operation& operation, int folder) {
  const Fd fd(openat(folder, operation.a.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return errno;
  const size_t start = operation.offset & ~(page - 1);
  const size_t length = operation.offset + operation.length - start;
  void* memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(),
                      static_cast<off_t>(start));
  if (memory == MAP_FAILED) return errno;
  const Buffer buffer = data_of(operation);
  std::memcpy(static_cast<char*>(memory) + (operation.offset - start), buffer.get(),
              operation.length);
  const int error = outcome(msync(memory, length, MS_SYNC));
  munmap(memory, length);
  return error;
}

int copy(const Operation& operation, int folder) {
  const Fd from(openat(folder, operation.a.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd to(openat(folder, operation.b.c_str(), O_WRONLY | O_CLOEXEC));
  if (!from.valid() || !to.valid()) return errno;
  off64_t in = static_cast<off64_t>(operation.offset), out = operation.number;
  size_t left = operation.length;
  while (left > 0) {
    const ssize_t got = copy_file_range(from.get(), &in, to.get(), &out, left, 0);
    if (got <= 0) return got < 0 ? errno : ENODATA;
    left -= static_cast<size_t>(got);
  }
  return 0;
}

int allocate(const Operation& operation, int folder, int mode) {
  const Fd fd(openat(folder, operation.a.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  return outcome(fallocate(fd.get(), mode, static_cast<off_t>(operation.offset),
                           static_cast<off_t>(operation.length)));
}

int truncate_it(const Operation& operation, int folder) {
  const Fd fd(openat(folder, operation.a.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  return outcome(ftruncate(fd.get(), static_cast<off_t>(operation.offset)));
}

int open_and_close(const Operation& operation, int folder, int flags) {
  const Fd fd(openat(folder, operation.a.c_str(), flags | O_CLOEXEC, operation.number));
  return outcome(fd.get());
}

/** What is written to a file without a name must go nowhere. */
int unlink_open(const Operation& operation, int folder) {
  const Fd fd(openat(folder, operation.a.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return errno;
  if (unlinkat(folder, operation.a.c_str(), 0) != 0) return errno;
  if (pwrite(fd.get(), "nowhere", 7, 3) != 7 || fsync(fd.get()) != 0) return errno;
  return 0;
}

/** The name in a descriptor's folder, for calls that take no folder. */
std::string path_of(int folder, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(folder) + "/" + name;
}

int set_xattr(const Operation& operation, int folder) {
  const Buffer value = data_of(operation);
  return outcome(lsetxattr(path_of(folder, operation.a).c_str(), operation.b.c_str(), value.get(),
                           operation.length, 0));
}

/** A file that gets its name when its content is there. */
int adopt(const Operation& operation, int folder) {
  const size_t slash = operation.a.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : operation.a.substr(0, slash);
  const Fd fd(openat(folder, parent.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, operation.number));
  if (!fd.valid()) return errno;
  const Buffer buffer = data_of(operation);
  const int error = moved(write(fd.get(), buffer.get(), operation.length), operation.length);
  if (error != 0) return error;
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  return outcome(linkat(AT_FDCWD, path.c_str(), folder, operation.a.c_str(), AT_SYMLINK_FOLLOW));
}

/** The same over whatever is there: as an editor saves. */
int replace(const Operation& operation, int folder) {
  const std::string name = operation.a + new_suffix;
  int error = 0;
  {
    const Fd fd(
        openat(folder, name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, operation.number));
    if (!fd.valid()) return errno;
    const Buffer buffer = data_of(operation);
    error = moved(write(fd.get(), buffer.get(), operation.length), operation.length);
  }
  if (error == 0) error = outcome(renameat2(folder, name.c_str(), folder, operation.a.c_str(), 0));
  if (error != 0) unlinkat(folder, name.c_str(), 0);
  return error;
}

int set_acl(const Operation& operation, int folder) {
  const Fd fd(openat(folder, operation.a.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat attributes {};
  if (fstat(fd.get(), &attributes) != 0) return errno;
  const std::string value =
      acl_value(attributes.st_mode, operation.number, static_cast<uint32_t>(operation.offset));
  const bool is_default = operation.action == Action::set_default;
  const char* name = is_default ? "system.posix_acl_default" : "system.posix_acl_access";
  return outcome(fsetxattr(fd.get(), name, value.data(), value.size(), 0));
}

int sync_file(int folder, const std::string& name, bool data_only) {
  const char* path = name.empty() ? "." : name.c_str();
  const Fd fd(openat(folder, path, O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  return outcome(data_only ? fdatasync(fd.get()) : fsync(fd.get()));
}

int append_to_all(const Operation& operation, int root, size_t domain) {
  const Fd fd(openat(root, all_name, O_WRONLY | O_APPEND | O_CLOEXEC));
  if (!fd.valid()) return errno;
  const std::string text = all_text(domain, operation.number);
  return moved(write(fd.get(), text.data(), text.size()), text.size());
}

int set_times(const Operation& operation, int folder) {
  const timespec both[2] = {
      {0, UTIME_OMIT},
      {static_cast<time_t>(operation.offset), static_cast<long>(operation.number)}};
  return outcome(utimensat(folder, operation.a.c_str(), both, AT_SYMLINK_NOFOLLOW));
}

int names(const Operation& operation, int folder) {
  const char* a = operation.a.c_str();
  const char* b = operation.b.c_str();
  switch (operation.action) {
    case Action::mkdir:
      return outcome(mkdirat(folder, a, operation.number));
    case Action::symlink:
      return outcome(symlinkat(b, folder, a));
    case Action::fifo:
      return outcome(mkfifoat(folder, a, operation.number));
    case Action::device:
      return outcome(mknodat(folder, a, S_IFCHR | operation.number, operation.offset));
    case Action::link:
      return outcome(linkat(folder, a, folder, b, 0));
    case Action::unlink:
      return outcome(unlinkat(folder, a, 0));
    case Action::rmdir:
      return outcome(unlinkat(folder, a, AT_REMOVEDIR));
    case Action::rename:
      return outcome(renameat2(folder, a, folder, b, 0));
    case Action::rename_new:
      return outcome(renameat2(folder, a, folder, b, RENAME_NOREPLACE));
    case Action::exchange:
      return outcome(renameat2(folder, a, folder, b, RENAME_EXCHANGE));
    default:
      return EINVAL;
  }
}

}  // namespace

int perform(const Operation& operation, int root, int folder, size_t domain) {
  switch (operation.action) {
    case Action::write:
      return write_data(operation, folder);
    case Action::append:
      return append_data(operation, folder);
    case Action::truncate:
      return truncate_it(operation, folder);
    case Action::reset:
      return open_and_close(operation, folder, O_WRONLY | O_TRUNC);
    case Action::allocate:
      return allocate(operation, folder, 0);
    case Action::punch:
      return allocate(operation, folder, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    case Action::zero:
      return allocate(operation, folder, FALLOC_FL_ZERO_RANGE);
    case Action::store:
      return store(operation, folder);
    case Action::copy:
      return copy(operation, folder);
    case Action::create:
      return open_and_close(operation, folder, O_WRONLY | O_CREAT | O_EXCL);
    case Action::unlink_open:
      return unlink_open(operation, folder);
    case Action::chmod:
      return outcome(fchmodat(folder, operation.a.c_str(), operation.number, 0));
    case Action::chown:
      return outcome(fchownat(folder, operation.a.c_str(), operation.number,
                              static_cast<gid_t>(operation.offset), AT_SYMLINK_NOFOLLOW));
    case Action::times:
      return set_times(operation, folder);
    case Action::set_xattr:
      return set_xattr(operation, folder);
    case Action::remove_xattr:
      return outcome(lremovexattr(path_of(folder, operation.a).c_str(), operation.b.c_str()));
    case Action::adopt:
      return adopt(operation, folder);
    case Action::replace:
      return replace(operation, folder);
    case Action::set_acl:
    case Action::set_default:
      return set_acl(operation, folder);
    case Action::fsync:
      return sync_file(folder, operation.a, false);
    case Action::fdatasync:
      return sync_file(folder, operation.a, true);
    case Action::fsync_all:
      return sync_file(root, all_name, false);
    case Action::append_all:
      return append_to_all(operation, root, domain);
    default:
      return names(operation, folder);
  }
}

}  // namespace holdfast::replica_tool
