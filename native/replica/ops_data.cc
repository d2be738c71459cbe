// Open files and their data: OPEN, READ, WRITE, RELEASE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE.

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "replica/core.h"
#include "replica/faults.h"

namespace holdfast::replica {
namespace {

constexpr size_t attributes_room = record_size(sizeof(AttributesBody));

struct DataBuffer {
  std::unique_ptr<uint8_t[]> bytes = std::make_unique<uint8_t[]>(fuse_max_write);
};

/** A buffer of the thread for what is read. */
uint8_t* data_buffer() {
  static thread_local DataBuffer buffer;
  return buffer.bytes.get();
}

/** The whole of `size` bytes where the file system takes them; else what it took, or -1. */
ssize_t write_all(int fd, const uint8_t* data, size_t size, off_t offset) {
  size_t done = 0;
  while (done < size) {
    const ssize_t wrote = pwrite(fd, data + done, size - done, offset + static_cast<off_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      if (done > 0) break;
      return wrote;
    }
    done += static_cast<size_t>(wrote);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

fuse_open_out open_reply(uint32_t flags, bool is_directory) {
  fuse_open_out out{};
  out.fh = flags;
  if (!is_directory) {
    // Nobody else changes the file, so what the kernel has cached of it stays true.
    out.open_flags = FOPEN_KEEP_CACHE;
    if ((flags & O_ACCMODE) == O_RDONLY) out.open_flags |= fopen_no_flush;
  }
  return out;
}

Handled Core::op_open(Call& call) {
  const auto* in = call.in<fuse_open_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  const bool truncate = (in->flags & O_TRUNC) != 0;
  const bool write = truncate || (in->flags & O_ACCMODE) != O_RDONLY;
  FileRef f;
  if (const int error = file(call.file, f, write); error != 0) {
    return fail(call, error), Handled::yes;
  }
  Room r(log);
  const Locks::Hold hold(locks, call.file);
  IdEntry entry;
  if (!ids.get(call.file, entry)) return fail(call, ESTALE), Handled::yes;
  Lsn lsn = 0;
  Marks::Guard held;
  if (truncate) {
    const bool silent = (entry.flags & (id_local | id_unlinked)) != 0;
    if (!silent && !room(r, call, attributes_room)) return Handled::no_room;
    struct stat now {};
    if (fstat(f->fd.get(), &now) != 0) return fail(call, errno), Handled::yes;
    MarkSet touched;
    touched.inode(call.file);
    touched.data(call.file, 0, static_cast<uint64_t>(now.st_size));
    const int error = (entry.flags & id_local) == 0 ? guard(touched, held) : 0;
    if (error != 0) return fail(call, error), Handled::yes;
    if (ftruncate(f->fd.get(), 0) != 0) return fail(call, errno), Handled::yes;
    fstat(f->fd.get(), &now);
    uint32_t mask = attribute_size | attribute_mtime;
    if ((in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0 && kill_ids(f->fd.get(), now)) {
      mask |= attribute_mode;
    }
    if (!silent) lsn = append_attributes(r, call.file, mask, now);
    locks.changed(call.file, lsn);
    changes.fetch_add(1, std::memory_order_relaxed);
  }
  // Counted once, even when the request comes again: a count too low would lose a file that is
  // open and has no name.
  Intent* intent = intents.begin(FUSE_OPEN, call.session->volume(), call.unique);
  intent->before[before_file] = call.file;
  intent->before[before_count] = entry.opens;
  intent->phase.store(1);
  ids.add_opens(call.file, 1);
  Intents::done(intent, lsn);
  const fuse_open_out out = open_reply(in->flags, false);
  finish(call, lsn, {&out, sizeof out}, intent);
  return Handled::yes;
}

Handled Core::op_release(Call& call) {
  const Locks::Hold hold(locks, call.file);
  IdEntry entry;
  if (!ids.get(call.file, entry) || entry.opens == 0) return finish(call, 0, {}), Handled::yes;
  Intent* intent = intents.begin(FUSE_RELEASE, call.session->volume(), call.unique);
  intent->before[before_file] = call.file;
  intent->before[before_count] = entry.opens;
  intent->phase.store(1);
  const uint32_t opens = ids.add_opens(call.file, -1);
  Intents::done(intent, 0);
  if (opens == 0 && (entry.flags & id_unlinked) != 0) {
    gone(call.file);
    locks.forget(call.file);
  }
  finish(call, 0, {}, intent);
  return Handled::yes;
}

Handled Core::op_read(Call& call) {
  const auto* in = call.in<fuse_read_in>();
  FileRef f;
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  uint8_t* buffer = data_buffer();
  const size_t size = std::min<size_t>(in->size, fuse_max_write);
  ssize_t got = 0;
  do {
    got = pread(f->fd.get(), buffer, size, static_cast<off_t>(in->offset));
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    const int error = errno;
    check_failure(error, "pread");
    return fail(call, error), Handled::yes;
  }
  call.session->answer(call.head.unique, buffer, static_cast<size_t>(got));
  return Handled::yes;
}

Handled Core::op_write(Call& call) {
  const auto* in = call.in<fuse_write_in>();
  if (in == nullptr || in->size > max_data || call.size - sizeof *in < in->size) {
    return fail(call, EINVAL), Handled::yes;
  }
  const uint8_t* data = call.body + sizeof *in;
  FileRef f;
  if (const int error = file(call.file, f, true); error != 0) {
    return fail(call, error), Handled::yes;
  }
  Room r(log);
  Locks::Hold hold(locks, call.file);
  uint8_t flags = 0;
  if (!flags_of(call.file, flags)) return fail(call, ESTALE), Handled::yes;
  const bool silent = (flags & (id_local | id_unlinked)) != 0;
  const size_t bytes = record_size(sizeof(WriteBody) + in->size) + attributes_room;
  if (!silent && !room(r, call, bytes)) return Handled::no_room;
  const int fd = f->fd.get();
  Marks::Guard held;
  if ((flags & id_local) == 0) {
    MarkSet touched;
    touched.inode(call.file);
    touched.data(call.file, in->offset, in->offset + in->size);
    if (const int error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  const ssize_t wrote = write_all(fd, data, in->size, static_cast<off_t>(in->offset));
  if (wrote < 0) {
    const int error = errno;
    check_failure(error, "pwrite");
    return fail(call, error), Handled::yes;
  }
  Lsn lsn = 0;
  const bool kill = (in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
  if (!silent || kill) {
    struct stat now {};
    if (fstat(fd, &now) != 0) return fail(call, errno), Handled::yes;
    const bool killed = kill && kill_ids(fd, now);
    if (!silent) {
      WriteBody body{in->offset, to_time(now.st_mtim)};
      const Faults* faults = planted_faults();
      const bool lose = faults != nullptr && faults->lose_append_offset;
      if (lose && (in->flags & O_APPEND) != 0) body.offset = 0;
      const iovec parts[] = {{&body, sizeof body},
                             {const_cast<uint8_t*>(data), static_cast<size_t>(wrote)}};
      lsn = append(r, Kind::write, 0, call.file, parts);
      if (killed) lsn = append_attributes(r, call.file, attribute_mode, now);
    }
  }
  locks.changed(call.file, lsn);
  held.release();
  hold.unlock();
  changes.fetch_add(1, std::memory_order_relaxed);
  fuse_write_out out{};
  out.size = static_cast<uint32_t>(wrote);
  if ((in->flags & (O_DSYNC | O_SYNC)) != 0) {
    // O_SYNC holds the bit of O_DSYNC and one more.
    const bool data_only = (in->flags & O_SYNC) != O_SYNC;
    sync_and_answer(call, call.file, f, data_only, {&out, sizeof out});
  } else {
    finish(call, lsn, {&out, sizeof out});
  }
  return Handled::yes;
}

Handled Core::op_fsync(Call& call) {
  const auto* in = call.in<fuse_fsync_in>();
  FileRef f;
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  sync_and_answer(call, call.file, f, (in->fsync_flags & FUSE_FSYNC_FDATASYNC) != 0, {});
  return Handled::yes;
}

Handled Core::op_fallocate(Call& call) {
  const auto* in = call.in<fuse_fallocate_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  constexpr uint32_t known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((in->mode & ~known) != 0) return fail(call, EOPNOTSUPP), Handled::yes;
  FileRef f;
  if (const int error = file(call.file, f, true); error != 0) {
    return fail(call, error), Handled::yes;
  }
  Room r(log);
  const Locks::Hold hold(locks, call.file);
  uint8_t flags = 0;
  if (!flags_of(call.file, flags)) return fail(call, ESTALE), Handled::yes;
  const bool silent = (flags & (id_local | id_unlinked)) != 0;
  if (!silent && !room(r, call, record_size(sizeof(AllocateBody)))) return Handled::no_room;
  const int fd = f->fd.get();
  Marks::Guard held;
  if ((flags & id_local) == 0) {
    MarkSet touched;
    touched.inode(call.file);
    // What is only allocated reads as before.
    if ((in->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
      touched.data(call.file, in->offset, in->offset + in->length);
    }
    if (const int error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  if (fallocate(fd, static_cast<int>(in->mode), static_cast<off_t>(in->offset),
                static_cast<off_t>(in->length)) != 0) {
    const int error = errno;
    check_failure(error, "fallocate");
    return fail(call, error), Handled::yes;
  }
  Lsn lsn = 0;
  if (!silent) {
    struct stat now {};
    fstat(fd, &now);
    AllocateBody body{};
    body.offset = in->offset;
    body.length = in->length;
    body.mode = in->mode;
    body.mtime = to_time(now.st_mtim);
    const iovec part{&body, sizeof body};
    lsn = append(r, Kind::allocate, 0, call.file, {&part, 1});
  }
  locks.changed(call.file, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  finish(call, lsn, {});
  return Handled::yes;
}

Handled Core::op_lseek(Call& call) {
  const auto* in = call.in<fuse_lseek_in>();
  if (in == nullptr || (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)) {
    return fail(call, EINVAL), Handled::yes;
  }
  FileRef f;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  fuse_lseek_out out{};
  const off_t at = lseek(f->fd.get(), static_cast<off_t>(in->offset), static_cast<int>(in->whence));
  if (at < 0) return fail(call, errno), Handled::yes;
  out.offset = static_cast<uint64_t>(at);
  finish(call, 0, {&out, sizeof out});
  return Handled::yes;
}

Handled Core::op_copy_file_range(Call& call) {
  const auto* in = call.in<fuse_copy_file_range_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  if (in->flags != 0) return fail(call, EINVAL), Handled::yes;
  const FileId target = call.session->file_of(in->nodeid_out);
  FileRef from;
  FileRef to;
  int error = file(call.file, from);
  if (error == 0) error = file(target, to, true);
  if (error != 0) return fail(call, error), Handled::yes;
  // At most one record's worth at a time: the caller goes on from there.
  const size_t length = std::min<uint64_t>(in->len, max_data);
  Room r(log);
  const Locks::Hold hold(locks, target);
  uint8_t flags = 0;
  if (!flags_of(target, flags)) return fail(call, ESTALE), Handled::yes;
  const bool silent = (flags & (id_local | id_unlinked)) != 0;
  const size_t bytes = record_size(sizeof(WriteBody) + length);
  if (!silent && !room(r, call, bytes)) return Handled::no_room;
  Marks::Guard held;
  if ((flags & id_local) == 0) {
    MarkSet touched;
    touched.inode(target);
    touched.data(target, in->off_out, in->off_out + length);
    if (error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  off_t from_at = static_cast<off_t>(in->off_in);
  off_t to_at = static_cast<off_t>(in->off_out);
  const ssize_t copied = copy_file_range(from->fd.get(), &from_at, to->fd.get(), &to_at, length, 0);
  if (copied < 0) {
    error = errno;
    check_failure(error, "copy_file_range");
    return fail(call, error), Handled::yes;
  }
  Lsn lsn = 0;
  if (!silent && copied > 0) {
    // What the target holds now is the outcome, whatever the source holds.
    uint8_t* buffer = data_buffer();
    // Read back without a trace: the caller did not read it.
    const Fd quiet(open(ProcPath(to->fd.get()).text, O_RDONLY | O_NOATIME | O_CLOEXEC));
    const ssize_t got = pread(quiet.valid() ? quiet.get() : to->fd.get(), buffer,
                              static_cast<size_t>(copied), static_cast<off_t>(in->off_out));
    if (got != copied) {
      log.local_failed(got < 0 ? errno : EIO, "pread");
      return fail(call, EIO), Handled::yes;
    }
    struct stat now {};
    fstat(to->fd.get(), &now);
    WriteBody body{in->off_out, to_time(now.st_mtim)};
    const iovec parts[] = {{&body, sizeof body}, {buffer, static_cast<size_t>(copied)}};
    lsn = append(r, Kind::write, 0, target, parts);
  }
  locks.changed(target, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  if (call.head.opcode == fuse_op_copy_file_range_64) {
    FuseCopyFileRangeOut out{static_cast<uint64_t>(copied)};
    finish(call, lsn, {&out, sizeof out});
  } else {
    fuse_write_out out{};
    out.size = static_cast<uint32_t>(copied);
    finish(call, lsn, {&out, sizeof out});
  }
  return Handled::yes;
}

}  // namespace holdfast::replica
