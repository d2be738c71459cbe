// Extended attributes, among them the ACLs: GETXATTR, LISTXATTR, SETXATTR, REMOVEXATTR.

#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "replica/core.h"

namespace holdfast::replica {
namespace {

constexpr size_t value_max = 65536;
constexpr char acl_access[] = "system.posix_acl_access";

/** /proc/self/fd/N is the file itself, whatever its type, where a descriptor by O_PATH has no
 * calls of its own. A symbolic link there is not followed: the path ends in the link. */
ssize_t get(const OpenFile& f, const char* name, void* value, size_t size) {
  return getxattr(ProcPath(f.fd.get()).text, name, value, size);
}

std::unique_ptr<uint8_t[]>& value_buffer() {
  static thread_local auto buffer = std::make_unique<uint8_t[]>(value_max);
  return buffer;
}

}  // namespace

Handled Core::op_getxattr(Call& call) {
  const auto* in = call.in<fuse_getxattr_in>();
  const char* name = call.text(sizeof *in);
  if (in == nullptr || name == nullptr) return fail(call, EINVAL), Handled::yes;
  FileRef f;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  const size_t size = std::min<size_t>(in->size, value_max);
  uint8_t* value = value_buffer().get();
  const ssize_t got = get(*f, name, value, size);
  if (got < 0) return fail(call, errno), Handled::yes;
  if (size == 0) {
    fuse_getxattr_out out{};
    out.size = static_cast<uint32_t>(got);
    finish(call, 0, {&out, sizeof out});
  } else {
    finish(call, 0, {value, static_cast<size_t>(got)});
  }
  return Handled::yes;
}

Handled Core::op_listxattr(Call& call) {
  const auto* in = call.in<fuse_getxattr_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  FileRef f;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  char* list = reinterpret_cast<char*>(value_buffer().get());
  const ssize_t got = listxattr(ProcPath(f->fd.get()).text, list, value_max);
  if (got < 0) return fail(call, errno), Handled::yes;
  size_t size = static_cast<size_t>(got);
  if (call.head.uid != 0) {
    // Only root sees trusted.*; we are root, the caller is not.
    size_t kept = 0;
    for (size_t at = 0; at < size;) {
      const size_t length = std::strlen(list + at) + 1;
      if (!std::string_view(list + at).starts_with("trusted.")) {
        std::memmove(list + kept, list + at, length);
        kept += length;
      }
      at += length;
    }
    size = kept;
  }
  if (in->size == 0) {
    fuse_getxattr_out out{};
    out.size = static_cast<uint32_t>(size);
    finish(call, 0, {&out, sizeof out});
  } else if (size > in->size) {
    fail(call, ERANGE);
  } else {
    finish(call, 0, {list, size});
  }
  return Handled::yes;
}

Handled Core::op_setxattr(Call& call) {
  const size_t head = (shared->fuse_flags & FUSE_SETXATTR_EXT) != 0
                          ? sizeof(fuse_setxattr_in)
                          : size_t{FUSE_COMPAT_SETXATTR_IN_SIZE};
  fuse_setxattr_in in{};
  const char* name = call.text(head);
  if (call.size < head || name == nullptr) return fail(call, EINVAL), Handled::yes;
  std::memcpy(&in, call.body, head);
  const std::string_view key(name);
  const size_t at = head + key.size() + 1;
  if (in.size > value_max || call.size - at < in.size) return fail(call, EINVAL), Handled::yes;
  const std::span<const uint8_t> value(call.body + at, in.size);
  FileRef f;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  Room r(log);
  const Locks::Hold hold(locks, call.file);
  uint8_t flags = 0;
  if (!flags_of(call.file, flags)) return fail(call, ESTALE), Handled::yes;
  const bool silent = (flags & (id_local | id_unlinked)) != 0;
  const size_t payload = sizeof(XattrBody) + key.size() + value.size();
  if (!silent && !room(r, call, record_size(payload))) return Handled::no_room;
  Marks::Guard held;
  if ((flags & id_local) == 0) {
    MarkSet touched;
    touched.inode(call.file);
    if (const int error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  Intent* intent = call.left;
  int how = static_cast<int>(in.flags);
  if (intent != nullptr) {
    // Begun before: whether it may be set was decided by what was there then.
    const bool existed = (intent->before[before_flags] & intent_existed) != 0;
    if (existed && how == XATTR_CREATE) return fail(call, EEXIST, intent), Handled::yes;
    if (!existed && how == XATTR_REPLACE) return fail(call, ENODATA, intent), Handled::yes;
    how = 0;
  } else if (how != 0) {
    intent = intents.begin(FUSE_SETXATTR, call.session->volume(), call.unique);
    intent->before[before_file] = call.file;
    if (get(*f, name, nullptr, 0) >= 0) intent->before[before_flags] = intent_existed;
    intent->phase.store(1);
  }
  if (setxattr(ProcPath(f->fd.get()).text, name, value.data(), value.size(), how) != 0) {
    const int error = errno;
    check_failure(error, "setxattr");
    return fail(call, error, intent), Handled::yes;
  }
  struct stat now {};
  fstat(f->fd.get(), &now);
  if ((in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0 && key == acl_access &&
      (now.st_mode & S_ISGID) != 0 && f->type != S_IFLNK) {
    const mode_t mode = now.st_mode & 07777 & ~static_cast<mode_t>(S_ISGID);
    if (chmod(ProcPath(f->fd.get()).text, mode) == 0) fstat(f->fd.get(), &now);
  }
  Lsn lsn = 0;
  if (!silent) lsn = append_xattr(r, call.file, key, value, now.st_mode);
  if (intent != nullptr) Intents::done(intent, lsn);
  locks.changed(call.file, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  finish(call, lsn, {}, intent);
  return Handled::yes;
}

Handled Core::op_removexattr(Call& call) {
  const char* name = call.text(0);
  if (name == nullptr) return fail(call, EINVAL), Handled::yes;
  const std::string_view key(name);
  FileRef f;
  if (const int error = file(call.file, f); error != 0) return fail(call, error), Handled::yes;
  Room r(log);
  const Locks::Hold hold(locks, call.file);
  uint8_t flags = 0;
  if (!flags_of(call.file, flags)) return fail(call, ESTALE), Handled::yes;
  const bool silent = (flags & (id_local | id_unlinked)) != 0;
  if (!silent && !room(r, call, record_size(sizeof(XattrBody) + key.size()))) {
    return Handled::no_room;
  }
  Marks::Guard held;
  if ((flags & id_local) == 0) {
    MarkSet touched;
    touched.inode(call.file);
    if (const int error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  Intent* intent = call.left;
  const bool existed = intent != nullptr ? (intent->before[before_flags] & intent_existed) != 0
                                         : get(*f, name, nullptr, 0) >= 0;
  if (intent == nullptr) {
    intent = intents.begin(FUSE_REMOVEXATTR, call.session->volume(), call.unique);
    intent->before[before_file] = call.file;
    if (existed) intent->before[before_flags] = intent_existed;
    intent->phase.store(1);
  }
  // Gone by now, and there when it was begun: that was this request, in an earlier process.
  if (removexattr(ProcPath(f->fd.get()).text, name) != 0 &&
      !(errno == ENODATA && call.left != nullptr && existed)) {
    const int error = errno;
    check_failure(error, "removexattr");
    return fail(call, error, intent), Handled::yes;
  }
  Lsn lsn = 0;
  if (!silent) {
    struct stat now {};
    fstat(f->fd.get(), &now);
    XattrBody body{};
    body.name_size = static_cast<uint32_t>(key.size());
    body.mode = now.st_mode & 07777;
    const iovec parts[] = {{&body, sizeof body}, {const_cast<char*>(name), key.size()}};
    lsn = append(r, Kind::remove_xattr, 0, call.file, parts);
  }
  Intents::done(intent, lsn);
  locks.changed(call.file, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  finish(call, lsn, {}, intent);
  return Handled::yes;
}

}  // namespace holdfast::replica
