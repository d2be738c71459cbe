// Attributes: GETATTR, STATX, SETATTR, READLINK, STATFS.

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "replica/core.h"

namespace holdfast::replica {
namespace {

timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds, uint32_t ns) {
  timespec time{};
  if ((valid & set) == 0) {
    time.tv_nsec = UTIME_OMIT;
  } else if ((valid & now) != 0) {
    time.tv_nsec = UTIME_NOW;
  } else {
    time.tv_sec = static_cast<time_t>(seconds);
    time.tv_nsec = ns;
  }
  return time;
}

/** A descriptor by O_PATH has no fchmod. */
int change_mode(const OpenFile& f, mode_t mode) {
  const bool by_path = f.type != S_IFREG && f.type != S_IFDIR;
  const int fd = f.fd.get();
  return (by_path ? chmod(ProcPath(fd).text, mode) : fchmod(fd, mode)) == 0 ? 0 : errno;
}

/** Does what SETATTR asks for, step by step; `mask`: what is different even when a step failed. */
int change(const OpenFile& f, const fuse_setattr_in& in, uint32_t& mask) {
  const int fd = f.fd.get();
  constexpr uint32_t times = FATTR_ATIME | FATTR_MTIME;
  const bool owner = (in.valid & (FATTR_UID | FATTR_GID)) != 0;
  const bool nothing = (in.valid & (FATTR_MODE | FATTR_SIZE | times)) == 0;
  if (owner || nothing) {
    // Without an owner: chown(-1, -1), which still clears set-user-id.
    const uid_t uid = (in.valid & FATTR_UID) != 0 ? in.uid : static_cast<uid_t>(-1);
    const gid_t gid = (in.valid & FATTR_GID) != 0 ? in.gid : static_cast<gid_t>(-1);
    if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) != 0) return errno;
    mask |= attribute_mode | attribute_uid | attribute_gid;
  }
  if ((in.valid & FATTR_MODE) != 0) {
    if (const int error = change_mode(f, in.mode & 07777); error != 0) return error;
    mask |= attribute_mode;
  }
  if ((in.valid & FATTR_SIZE) != 0) {
    if (in.size > static_cast<uint64_t>(LLONG_MAX)) return EFBIG;
    if (ftruncate(fd, static_cast<off_t>(in.size)) != 0) return errno;
    mask |= attribute_size | attribute_mtime;
  }
  struct stat now {};
  if ((in.valid & FATTR_KILL_SUIDGID) != 0 && f.type == S_IFREG && fstat(fd, &now) == 0 &&
      Core::kill_ids(fd, now)) {
    mask |= attribute_mode;
  }
  if ((in.valid & times) != 0) {
    const timespec both[2] = {
        time_of(in.valid, FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec),
        time_of(in.valid, FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec)};
    if (utimensat(fd, "", both, AT_EMPTY_PATH) != 0) return errno;
    if ((in.valid & FATTR_ATIME) != 0) mask |= attribute_atime;
    if ((in.valid & FATTR_MTIME) != 0) mask |= attribute_mtime;
  }
  return 0;
}

FuseStatxTime to_statx(const statx_timestamp& time) {
  return {time.tv_sec, time.tv_nsec, 0};
}

}  // namespace

Handled Core::op_getattr(Call& call) {
  FileRef f;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  struct stat now {};
  if (fstat(f->fd.get(), &now) != 0) return fail(call, errno), Handled::yes;
  fuse_attr_out out;
  attr_out(now, out);
  finish(call, 0, {&out, sizeof out});
  return Handled::yes;
}

Handled Core::op_statx(Call& call) {
  const auto* in = call.in<FuseStatxIn>();
  FileRef f;
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  struct statx from {};
  if (statx(f->fd.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &from) != 0) {
    return fail(call, errno), Handled::yes;
  }
  FuseStatxOut out{};
  out.attr_valid = 86400;
  FuseStatx& to = out.stat;
  to.mask = from.stx_mask & (STATX_BASIC_STATS | STATX_BTIME);
  to.blksize = from.stx_blksize;
  to.nlink = from.stx_nlink;
  to.uid = from.stx_uid;
  to.gid = from.stx_gid;
  to.mode = from.stx_mode;
  to.ino = from.stx_ino;
  to.size = from.stx_size;
  to.blocks = from.stx_blocks;
  to.atime = to_statx(from.stx_atime);
  to.btime = to_statx(from.stx_btime);
  to.ctime = to_statx(from.stx_ctime);
  to.mtime = to_statx(from.stx_mtime);
  to.rdev_major = from.stx_rdev_major;
  to.rdev_minor = from.stx_rdev_minor;
  finish(call, 0, {&out, sizeof out});
  return Handled::yes;
}

Handled Core::op_setattr(Call& call) {
  const auto* in = call.in<fuse_setattr_in>();
  FileRef f;
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = file(call.file, f, (in->valid & FATTR_SIZE) != 0); error != 0) {
    return fail(call, error), Handled::yes;
  }
  Room r(log);
  const Locks::Hold hold(locks, call.file);
  uint8_t flags = 0;
  if (!flags_of(call.file, flags)) return fail(call, ESTALE), Handled::yes;
  const bool silent = (flags & (id_local | id_unlinked)) != 0;
  if (!silent && !room(r, call, record_size(sizeof(AttributesBody)))) return Handled::no_room;
  struct stat now {};
  Marks::Guard held;
  if ((flags & id_local) == 0) {
    MarkSet touched;
    touched.inode(call.file);
    if ((in->valid & FATTR_SIZE) != 0) {
      if (fstat(f->fd.get(), &now) != 0) return fail(call, errno), Handled::yes;
      touched.data(call.file, in->size, static_cast<uint64_t>(now.st_size));
    }
    if (const int error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  uint32_t mask = 0;
  const int error = change(*f, *in, mask);
  if (fstat(f->fd.get(), &now) != 0) return fail(call, errno), Handled::yes;
  Lsn lsn = 0;
  if (mask != 0) {
    if (!silent) lsn = append_attributes(r, call.file, mask, now);
    locks.changed(call.file, lsn);
    changes.fetch_add(1, std::memory_order_relaxed);
  }
  if (error != 0) {
    check_failure(error, "setattr");
    return fail(call, error), Handled::yes;
  }
  fuse_attr_out out;
  attr_out(now, out);
  finish(call, lsn, {&out, sizeof out});
  return Handled::yes;
}

Handled Core::op_readlink(Call& call) {
  FileRef f;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  char target[PATH_MAX];
  const ssize_t size = readlinkat(f->fd.get(), "", target, sizeof target);
  if (size < 0) return fail(call, errno == ENOENT ? EINVAL : errno), Handled::yes;
  finish(call, 0, {target, static_cast<size_t>(size)});
  return Handled::yes;
}

Handled Core::op_statfs(Call& call) {
  struct statvfs here {};
  if (fstatvfs(tree.root_fd(call.session->volume()), &here) != 0) {
    return fail(call, errno), Handled::yes;
  }
  fuse_statfs_out out{};
  fuse_kstatfs& to = out.st;
  to.blocks = here.f_blocks;
  to.bfree = here.f_bfree;
  to.bavail = here.f_bavail;
  to.files = here.f_files;
  to.ffree = here.f_ffree;
  to.bsize = static_cast<uint32_t>(here.f_bsize);
  to.frsize = static_cast<uint32_t>(here.f_frsize);
  to.namelen = static_cast<uint32_t>(here.f_namemax);
  uint64_t blocks = 0, free_blocks = 0, files = 0, free_files = 0;
  uint32_t size = 0;
  if (log.peer_space(call.session->volume(), blocks, free_blocks, size, files, free_files) &&
      size > 0 && to.frsize > 0) {
    // In our blocks; a peer's file system without a count of files says 0.
    const auto ours = [&](uint64_t n) {
      return static_cast<uint64_t>(static_cast<unsigned __int128>(n) * size / to.frsize);
    };
    to.blocks = std::min<uint64_t>(to.blocks, ours(blocks));
    to.bfree = std::min<uint64_t>(to.bfree, ours(free_blocks));
    to.bavail = std::min<uint64_t>(to.bavail, ours(free_blocks));
    if (files > 0) {
      to.files = std::min<uint64_t>(to.files, files);
      to.ffree = std::min<uint64_t>(to.ffree, free_files);
    }
  }
  finish(call, 0, {&out, sizeof out});
  return Handled::yes;
}

}  // namespace holdfast::replica
