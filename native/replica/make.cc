// What makes a file: CREATE, MKNOD, MKDIR, SYMLINK, TMPFILE.
//
// A file is made as root and then given to the caller. The other way, setfsuid(2) in the thread,
// would ask for permission in the real directory again, without the caller's supplementary groups
// (the kernel has asked already: default_permissions), and costs four calls where this costs one,
// and none for root. Nobody can see the file in between: the real directory lies below the mount.

#include "replica/make.h"

#include <fcntl.h>
#include <sys/xattr.h>

#include <cerrno>

namespace holdfast::replica {
namespace {

constexpr char acl_access[] = "system.posix_acl_access";
constexpr char acl_default[] = "system.posix_acl_default";

/** Size of the default ACL of a directory, which what is made in it inherits. */
size_t default_acl(int dirfd) {
  const ssize_t size = fgetxattr(dirfd, acl_default, nullptr, 0);
  return size > 0 ? static_cast<size_t>(size) : 0;
}

std::string path_of(int dirfd, const char* name) {
  return std::string(ProcPath(dirfd).text) + '/' + name;
}

/** An ACL of what was just made; empty: it has none. */
std::vector<uint8_t> acl_of(const std::string& path, const char* key) {
  std::vector<uint8_t> value(acl_max);
  const ssize_t size = lgetxattr(path.c_str(), key, value.data(), value.size());
  value.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return value;
}

}  // namespace

int Core::make_local(const Make& what, int dirfd, const char* name, int& fd) {
  set_umask(what.umask);
  const mode_t mode = what.mode & 07777;
  int done = 0;
  switch (what.opcode) {
    case FUSE_MKDIR:
      done = mkdirat(dirfd, name, mode);
      break;
    case FUSE_SYMLINK:
      done = symlinkat(what.target, dirfd, name);
      break;
    case FUSE_MKNOD:
      done = mknodat(dirfd, name, (what.mode & S_IFMT) | mode, what.rdev);
      break;
    default:
      fd = openat(dirfd, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, mode);
      done = fd < 0 ? -1 : 0;
  }
  return done == 0 ? 0 : errno;
}

int Core::own(const Make& what, int dirfd, const char* name, const struct stat& parent,
              struct stat& made) {
  if (fstatat(dirfd, name, &made, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  // The group is the directory's where it has set-group-id, or where the file system says so.
  const bool inherits = (parent.st_mode & S_ISGID) != 0 || made.st_gid != 0;
  const gid_t gid = inherits ? made.st_gid : what.gid;
  if (made.st_uid == what.uid && made.st_gid == gid) return 0;
  if (fchownat(dirfd, name, what.uid, gid, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  const mode_t before = made.st_mode & 07777;
  // A change of owner clears these bits of a file; they were asked for.
  if (S_ISREG(made.st_mode) && (before & (S_ISUID | S_ISGID)) != 0 &&
      fchmodat(dirfd, name, before, 0) != 0) {
    return errno;
  }
  return 0;
}

Lsn Core::made_records(Room& r, FileId id, FileId parent, const FileRef& dir, const char* name,
                       const char* target, const struct stat& made, Intent* intent) {
  if (intent != nullptr && intent->lsn != 0) return intent->lsn;
  struct stat dir_now {};
  fstat(dir->fd.get(), &dir_now);
  CreateBody body{};
  body.parent = parent;
  body.mode = made.st_mode;
  body.uid = made.st_uid;
  body.gid = made.st_gid;
  body.rdev = static_cast<uint32_t>(made.st_rdev);
  body.mtime = to_time(made.st_mtim);
  body.parent_mtime = to_time(dir_now.st_mtim);
  body.name_size = static_cast<uint16_t>(std::strlen(name));
  body.target_size = static_cast<uint16_t>(std::strlen(target));
  // In the same record: without them the file never was.
  std::vector<uint8_t> access, inherited;
  if (!S_ISLNK(made.st_mode) && default_acl(dir->fd.get()) > 0) {
    const std::string path = path_of(dir->fd.get(), name);
    access = acl_of(path, acl_access);
    if (S_ISDIR(made.st_mode)) inherited = acl_of(path, acl_default);
  }
  body.access_size = static_cast<uint32_t>(access.size());
  body.default_size = static_cast<uint32_t>(inherited.size());
  const iovec parts[] = {{&body, sizeof body},
                         {const_cast<char*>(name), body.name_size},
                         {const_cast<char*>(target), body.target_size},
                         {access.data(), access.size()},
                         {inherited.data(), inherited.size()}};
  return append(r, Kind::create, 0, id, parts, intent ? &intent->lsn : nullptr);
}

void Core::answer_made(const Call& call, const Make& what, Lsn lsn, FileId id,
                       const struct stat& made, Intent* intent) {
  struct {
    fuse_entry_out entry;
    fuse_open_out open;
  } out;
  entry_out(call, id, made, out.entry);
  out.open = open_reply(what.flags, false);
  const bool opened = what.opcode == FUSE_CREATE || what.opcode == fuse_op_tmpfile;
  finish(call, lsn, {&out, opened ? sizeof out : sizeof out.entry}, intent);
}

Handled Core::make(Call& call, Make& what) {
  FileRef dir;
  if (what.name == nullptr || what.target == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = directory(call.file, dir); error != 0) {
    return fail(call, error), Handled::yes;
  }
  if (is_hidden(call, call.file, what.name)) return fail(call, EPERM), Handled::yes;
  what.uid = call.head.uid;
  what.gid = call.head.gid;
  const int dirfd = dir->fd.get();
  const bool local = is_local(call.file, dir, what.name, what.opcode == FUSE_MKDIR);
  const size_t text = std::strlen(what.name) + std::strlen(what.target);
  // What is inherited has as many entries. The kernel holds the directory's lock: it stays so.
  const size_t bytes = record_size(sizeof(CreateBody) + text + 2 * default_acl(dirfd));
  const FileId id = ids.allocate(options.epoch);
  Room r(log);
  const Locks::Hold hold(locks, call.file, id);
  if (!local && !room(r, call, bytes)) return Handled::no_room;
  Marks::Guard held;
  if (!local) {
    MarkSet touched;
    touched.names(call.file);
    // Its number may be from before the generation of marks that is the newest by now.
    touched.inode(id);
    if (const int error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  Intent* intent = intents.begin(what.opcode, call.session->volume(), call.unique);
  intent->made = id;
  intent->before[before_flags] = local ? uint64_t{intent_local} : 0;
  IntentPlan plan{};
  plan.parent = call.file;
  plan.mode = what.mode;
  plan.uid = what.uid;
  plan.gid = what.gid;
  plan.flags = what.flags;
  Intents::plan(intent, plan, what.name, {});
  int fd = -1;
  if (const int error = make_local(what, dirfd, what.name, fd); error != 0) {
    check_failure(error, "create");
    // The kernel believed that there is none: it looks again after ESTALE.
    const bool wrong = error == EEXIST && what.opcode == FUSE_CREATE && (what.flags & O_EXCL) == 0;
    return fail(call, wrong ? ESTALE : error, intent), Handled::yes;
  }
  const auto opened = std::make_shared<OpenFile>();
  opened->fd.reset(fd);
  struct stat made {};
  struct stat parent {};
  IdEntry entry;
  int error = fstat(dirfd, &parent) == 0 ? 0 : errno;
  if (error == 0) error = own(what, dirfd, what.name, parent, made);
  if (error == 0) error = tree.identify(dirfd, what.name, entry.handle, made);
  if (error == 0) {
    entry.id = id;
    entry.type = made.st_mode & S_IFMT;
    entry.volume = call.session->volume();
    entry.flags = local ? id_local : 0;
    entry.opens = what.opcode == FUSE_CREATE ? 1 : 0;
    error = ids.put(entry);
  }
  if (error != 0) {
    unlinkat(dirfd, what.name, what.opcode == FUSE_MKDIR ? AT_REMOVEDIR : 0);
    return fail(call, error, intent), Handled::yes;
  }
  if (opened->fd.valid()) {
    // The first write finds it open.
    opened->type = entry.type;
    opened->volume = entry.volume;
    opened->writable = true;
    tree.add(id, opened);
  }
  Lsn lsn = 0;
  if (!local) {
    lsn = made_records(r, id, call.file, dir, what.name, what.target, made, intent);
  }
  Intents::done(intent, lsn);
  locks.changed(id, lsn);
  locks.changed(call.file, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  answer_made(call, what, lsn, id, made, intent);
  return Handled::yes;
}

Handled Core::op_create(Call& call) {
  const auto* in = call.in<fuse_create_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  Make what;
  what.opcode = FUSE_CREATE;
  what.mode = (in->mode & 07777) | S_IFREG;
  what.umask = in->umask;
  what.flags = in->flags;
  what.name = call.text(sizeof *in);
  return make(call, what);
}

Handled Core::op_mknod(Call& call) {
  const auto* in = call.in<fuse_mknod_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  Make what;
  what.opcode = FUSE_MKNOD;
  what.mode = in->mode;
  what.umask = in->umask;
  what.rdev = in->rdev;
  what.name = call.text(sizeof *in);
  return make(call, what);
}

Handled Core::op_mkdir(Call& call) {
  const auto* in = call.in<fuse_mkdir_in>();
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  Make what;
  what.opcode = FUSE_MKDIR;
  what.mode = (in->mode & 07777) | S_IFDIR;
  what.umask = in->umask;
  what.name = call.text(sizeof *in);
  return make(call, what);
}

Handled Core::op_symlink(Call& call) {
  Make what;
  what.opcode = FUSE_SYMLINK;
  what.mode = 0777 | S_IFLNK;
  what.name = call.text(0);
  what.target = what.name == nullptr ? nullptr : call.text(std::strlen(what.name) + 1);
  return make(call, what);
}

Handled Core::op_tmpfile(Call& call) {
  const auto* in = call.in<fuse_create_in>();
  FileRef dir;
  if (in == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = directory(call.file, dir); error != 0) {
    return fail(call, error), Handled::yes;
  }
  set_umask(in->umask);
  const int keep_linkable = static_cast<int>(in->flags) & O_EXCL;
  const FileId id = ids.allocate(options.epoch);
  const Locks::Hold hold(locks, call.file, id);
  Intent* intent = intents.begin(fuse_op_tmpfile, call.session->volume(), call.unique);
  intent->made = id;
  IntentPlan plan{};
  plan.parent = call.file;
  plan.flags = in->flags;
  Intents::plan(intent, plan, {}, {});
  Unlinked held;
  held.file = std::make_shared<OpenFile>();
  held.kept = true;
  held.file->fd.reset(
      openat(dir->fd.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC | keep_linkable, in->mode & 07777));
  if (!held.file->fd.valid()) return fail(call, errno, intent), Handled::yes;
  const int fd = held.file->fd.get();
  struct stat parent {};
  struct stat made {};
  IdEntry entry;
  int error = fstat(dir->fd.get(), &parent) == 0 && fstat(fd, &made) == 0 ? 0 : errno;
  const bool inherits = (parent.st_mode & S_ISGID) != 0 || made.st_gid != 0;
  const gid_t gid = inherits ? made.st_gid : call.head.gid;
  if (error == 0 && (made.st_uid != call.head.uid || made.st_gid != gid) &&
      fchown(fd, call.head.uid, gid) != 0) {
    error = errno;
  }
  if (error == 0 && (made.st_mode & (S_ISUID | S_ISGID)) != 0) fchmod(fd, made.st_mode & 07777);
  if (error == 0) error = tree.identify(fd, entry.handle, made);
  if (error == 0) {
    held.file->type = S_IFREG;
    held.file->volume = call.session->volume();
    held.file->writable = true;
    entry.id = id;
    entry.type = S_IFREG;
    entry.volume = call.session->volume();
    entry.flags = id_unlinked;
    entry.opens = 1;
    error = ids.put(entry);
  }
  if (error != 0) return fail(call, error, intent), Handled::yes;
  if (options.keep) options.keep(id, fd);
  {
    const std::lock_guard lock(unlinked_mutex);
    unlinked[id] = std::move(held);
    unlinked_count = unlinked.size();
  }
  Intents::done(intent, 0);
  Make what;
  what.opcode = fuse_op_tmpfile;
  what.flags = in->flags;
  answer_made(call, what, 0, id, made, intent);
  return Handled::yes;
}

}  // namespace holdfast::replica
