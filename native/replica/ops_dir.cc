// Directories: LOOKUP, FORGET, OPENDIR, READDIR, READDIRPLUS.

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "replica/core.h"

namespace holdfast::replica {
namespace {

/** struct linux_dirent64 of getdents64(2). */
struct RealEntry {
  uint64_t ino;
  int64_t next;
  uint16_t size;
  uint8_t type;
  char name[1];
};

constexpr size_t list_max = 1u << 16;

constexpr size_t aligned(size_t size) {
  return FUSE_DIRENT_ALIGN(size);
}

bool is_dot(const char* name) {
  return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

struct Lists {
  alignas(8) uint8_t real[list_max];
  alignas(8) uint8_t answer[list_max];
};

Lists& lists() {
  static thread_local const auto own = std::make_unique<Lists>();
  return *own;
}

}  // namespace

Handled Core::op_lookup(Call& call) {
  const char* name = call.text(0);
  FileRef dir;
  if (name == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = directory(call.file, dir); error != 0) {
    return fail(call, error), Handled::yes;
  }
  Handle handle;
  struct stat now {};
  fuse_entry_out out{};
  const int error =
      is_hidden(call, call.file, name) ? ENOENT : tree.identify(dir->fd.get(), name, handle, now);
  if (error == ENOENT) {
    // Nobody else makes names here: that there is none stays true.
    out.entry_valid = 86400;
    finish(call, 0, {&out, sizeof out});
    return Handled::yes;
  }
  if (error != 0) return fail(call, error), Handled::yes;
  // Another file system is mounted there: it is not part of the directory.
  if (now.st_dev != call.session->device) return fail(call, EIO), Handled::yes;
  const FileId id = id_of(*call.session, call.file, dir, name, handle, now);
  if (id == 0) return fail(call, ENOSPC), Handled::yes;
  entry_out(call, id, now, out);
  finish(call, 0, {&out, sizeof out});
  return Handled::yes;
}

Handled Core::op_forget(Call& call) {
  forget(call.file);
  return Handled::yes;
}

Handled Core::op_batch_forget(Call& call) {
  const auto* in = call.in<fuse_batch_forget_in>();
  if (in == nullptr) return Handled::yes;
  const auto* one = reinterpret_cast<const fuse_forget_one*>(call.body + sizeof *in);
  const size_t there = (call.size - sizeof *in) / sizeof *one;
  for (size_t i = 0; i < std::min<size_t>(in->count, there); i++) {
    forget(call.session->file_of(one[i].nodeid));
  }
  return Handled::yes;
}

Handled Core::op_opendir(Call& call) {
  const auto* in = call.in<fuse_open_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  FileRef dir;
  if (const int error = directory(call.file, dir); error != 0) {
    return fail(call, error), Handled::yes;
  }
  const Locks::Hold hold(locks, call.file);
  IdEntry entry;
  if (!ids.get(call.file, entry)) return fail(call, ESTALE), Handled::yes;
  Intent* intent = intents.begin(FUSE_OPENDIR, call.session->volume(), call.unique);
  intent->before[before_file] = call.file;
  intent->before[before_count] = entry.opens;
  intent->phase.store(1);
  ids.add_opens(call.file, 1);
  Intents::done(intent, 0);
  const fuse_open_out out = open_reply(in->flags, true);
  finish(call, 0, {&out, sizeof out}, intent);
  return Handled::yes;
}

Handled Core::op_readdir(Call& call) {
  const auto* in = call.in<fuse_read_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  FileRef dir;
  if (const int error = directory(call.file, dir); error != 0) {
    return fail(call, error), Handled::yes;
  }
  const bool plus = call.head.opcode == FUSE_READDIRPLUS;
  const size_t limit = std::min<size_t>(in->size, list_max);
  // About as many as fit into the answer: what is read beyond it is read again.
  const size_t want = std::min(list_max, std::max<size_t>(plus ? limit / 4 : limit, 1024));
  Lists& list = lists();
  const int fd = dir->fd.get();
  size_t used = 0;
  auto offset = static_cast<int64_t>(in->offset);
  // One position for all who read the directory.
  const Locks::Hold hold(positions, call.file);
  while (used == 0) {
    if (lseek(fd, offset, SEEK_SET) < 0) return fail(call, errno), Handled::yes;
    const long got = syscall(SYS_getdents64, fd, list.real, want);
    if (got < 0) {
      const int error = errno;
      // A directory that was removed while it is open has no entries any more.
      if (error == ENOENT) break;
      return fail(call, error), Handled::yes;
    }
    if (got == 0) break;
    for (size_t at = 0; at < static_cast<size_t>(got);) {
      const auto* real = reinterpret_cast<const RealEntry*>(list.real + at);
      at += real->size;
      offset = real->next;
      if (is_hidden(call, call.file, real->name)) continue;
      const size_t length = std::strlen(real->name);
      const size_t head = plus ? sizeof(fuse_entry_out) : 0;
      const size_t size = aligned(head + FUSE_NAME_OFFSET + length);
      if (used + size > limit) {
        at = static_cast<size_t>(got);
        break;
      }
      uint8_t* to = list.answer + used;
      std::memset(to, 0, size);
      uint64_t ino = real->ino;
      if (plus && !is_dot(real->name)) {
        Handle handle;
        struct stat now {};
        FileId id = 0;
        if (tree.identify(fd, real->name, handle, now) == 0 && now.st_dev == call.session->device) {
          id = id_of(*call.session, call.file, dir, real->name, handle, now);
        }
        // Without an id the kernel looks the name up when it is wanted.
        if (id != 0) entry_out(call, id, now, *reinterpret_cast<fuse_entry_out*>(to));
        if (id != 0) ino = now.st_ino;
      }
      auto* entry = reinterpret_cast<fuse_dirent*>(to + head);
      entry->ino = ino;
      entry->off = static_cast<uint64_t>(real->next);
      entry->namelen = static_cast<uint32_t>(length);
      entry->type = real->type;
      std::memcpy(entry->name, real->name, length);
      used += size;
    }
  }
  finish(call, 0, {list.answer, used});
  return Handled::yes;
}

}  // namespace holdfast::replica
