#include "replica/session.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace holdfast::replica {
namespace {

// Not among them, on purpose: WRITEBACK_CACHE (every write must come at once), POSIX_LOCKS and
// FLOCK_LOCKS (the kernel keeps locks itself), AUTO_INVAL_DATA (nobody else changes a file),
// passthrough (writes and stores by mmap would go past us).
constexpr uint64_t wanted =
    FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_DO_READDIRPLUS |
    FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL |
    FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 |
    FUSE_SETXATTR_EXT | FUSE_INIT_EXT | fuse_has_resend;

unsigned long mount_flags(const char* path) {
  struct statvfs there {};
  if (statvfs(path, &there) != 0) return 0;
  unsigned long flags = 0;
  if ((there.f_flag & ST_NOSUID) != 0) flags |= MS_NOSUID;
  if ((there.f_flag & ST_NODEV) != 0) flags |= MS_NODEV;
  if ((there.f_flag & ST_NOEXEC) != 0) flags |= MS_NOEXEC;
  if ((there.f_flag & ST_RDONLY) != 0) flags |= MS_RDONLY;
  if ((there.f_flag & ST_SYNCHRONOUS) != 0) flags |= MS_SYNCHRONOUS;
  return flags;
}

}  // namespace

Result<Fd> Session::mount(const char* path, const char* name) {
  Fd fuse(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fuse.valid()) return Result<Fd>::failure(errno, "open(/dev/fuse)");
  char options[160];
  std::snprintf(options, sizeof options,
                "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,"
                "max_read=%u",
                fuse.get(), fuse_max_write);
  if (::mount(name, path, "fuse.holdfast", mount_flags(path), options) != 0) {
    return Result<Fd>::failure(errno, "mount");
  }
  return Result<Fd>::success(std::move(fuse));
}

int Session::negotiate(Shared* shared) {
  const auto buffer = std::make_unique<uint8_t[]>(call_bytes);
  for (;;) {
    const ssize_t got = read(fuse_.get(), buffer.get(), call_bytes);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return errno;
    fuse_in_header head;
    if (static_cast<size_t>(got) < sizeof head) return EPROTO;
    std::memcpy(&head, buffer.get(), sizeof head);
    if (head.opcode != FUSE_INIT) return EPROTO;
    const int error = answer_init(buffer.get(), static_cast<size_t>(got), shared);
    // The kernel speaks a later major version first, and comes down to ours.
    if (error != EAGAIN) return error;
  }
}

int Session::answer_init(const uint8_t* request, size_t size, Shared* shared) {
  fuse_in_header head;
  fuse_init_in in{};
  std::memcpy(&head, request, sizeof head);
  std::memcpy(&in, request + sizeof head, std::min(sizeof in, size - sizeof head));
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = 45;
  if (in.major > FUSE_KERNEL_VERSION) {
    answer(head.unique, &out, sizeof out);
    return EAGAIN;
  }
  if (in.major < FUSE_KERNEL_VERSION || in.minor < 31) {
    answer(head.unique, EPROTO);
    return EPROTO;
  }
  const uint64_t offered = in.flags | (in.flags & FUSE_INIT_EXT ? uint64_t{in.flags2} << 32 : 0);
  const uint64_t flags = offered & wanted;
  out.minor = std::min<uint32_t>(in.minor, out.minor);
  out.max_readahead = std::max<uint32_t>(in.max_readahead, 1u << 20);
  out.flags = static_cast<uint32_t>(flags);
  out.flags2 = static_cast<uint32_t>(flags >> 32);
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = flags & FUSE_MAX_PAGES ? fuse_max_write : 32 * 4096;
  out.max_pages = fuse_max_write / 4096;
  out.time_gran = 1;
  if (shared != nullptr) {
    shared->fuse_minor = out.minor;
    shared->fuse_flags = flags;
    shared->fuse_max_write = out.max_write;
  }
  answer(head.unique, &out, sizeof out);
  return 0;
}

int Session::ask_again() {
  fuse_out_header head{};
  head.len = sizeof head;
  head.error = fuse_notify_resend;
  return write(fuse_.get(), &head, sizeof head) < 0 ? errno : 0;
}

void Session::answer(uint64_t unique, int error) {
  fuse_out_header head{};
  head.len = sizeof head;
  head.error = -error;
  head.unique = unique;
  // ENOENT: the request is gone (aborted, or it needs no answer).
  if (write(fuse_.get(), &head, sizeof head) < 0 && errno == ENODEV) gone = true;
}

void Session::answer(uint64_t unique, std::span<const iovec> parts) {
  iovec all[8];
  fuse_out_header head{};
  size_t size = sizeof head;
  size_t count = 1;
  for (const iovec& part : parts.first(std::min<size_t>(parts.size(), 7))) {
    all[count++] = part;
    size += part.iov_len;
  }
  head.len = static_cast<uint32_t>(size);
  head.unique = unique;
  all[0] = {&head, sizeof head};
  if (writev(fuse_.get(), all, static_cast<int>(count)) < 0 && errno == ENODEV) gone = true;
}

void Session::answer(uint64_t unique, const void* payload, size_t size) {
  const iovec part{const_cast<void*>(payload), size};
  answer(unique, std::span<const iovec>(&part, 1));
}

void fill_attributes(const struct stat& from, fuse_attr& to) {
  to = fuse_attr();
  to.ino = from.st_ino;
  to.size = static_cast<uint64_t>(from.st_size);
  to.blocks = static_cast<uint64_t>(from.st_blocks);
  to.atime = static_cast<uint64_t>(from.st_atim.tv_sec);
  to.mtime = static_cast<uint64_t>(from.st_mtim.tv_sec);
  to.ctime = static_cast<uint64_t>(from.st_ctim.tv_sec);
  to.atimensec = static_cast<uint32_t>(from.st_atim.tv_nsec);
  to.mtimensec = static_cast<uint32_t>(from.st_mtim.tv_nsec);
  to.ctimensec = static_cast<uint32_t>(from.st_ctim.tv_nsec);
  to.mode = from.st_mode;
  to.nlink = static_cast<uint32_t>(from.st_nlink);
  to.uid = from.st_uid;
  to.gid = from.st_gid;
  // The kernel decodes it as huge_encode_dev made it: 12 bits of major, 20 of minor.
  to.rdev = static_cast<uint32_t>((minor(from.st_rdev) & 0xff) | (major(from.st_rdev) << 8) |
                                  ((minor(from.st_rdev) & ~0xffu) << 12));
  to.blksize = static_cast<uint32_t>(from.st_blksize);
}

}  // namespace holdfast::replica
