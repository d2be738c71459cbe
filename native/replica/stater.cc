#include "replica/stater.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "replica/orphanage.h"
#include "replica/scan.h"
#include "replica/stater_room.h"
#include "replica/xattrs.h"

/* Inodes and names; data is in stater_data.cc. */
namespace holdfast::replica {
namespace {

constexpr size_t range_names = 256;
constexpr size_t small_inode = 2048;  // with target and xattrs: nearly all are smaller
constexpr size_t most_xattrs = 256u << 10;
constexpr size_t most_target = 4096;
constexpr size_t name_most = 255;
constexpr size_t entry_most = record_size(sizeof(EntryBody) + name_most);
constexpr size_t listing_most =
    record_size(sizeof(ListingBody) + 2 * name_most + range_names * (2 + name_most));
constexpr size_t inode_room = record_size(sizeof(InodeBody) + small_inode);
constexpr size_t range_room = range_names * entry_most + listing_most;

}  // namespace

/** What a name is. */
struct Stater::Found {
  FileId id = 0;  // 0: nothing that is replicated
  uint32_t type = 0;
  bool listed = false;  // the name counts among those of the directory
  bool stated = false;  // and is to be stated: it is the file, or nothing
};

int Stater::fail(int error, const char* call) {
  call_ = call;
  return error;
}

/** The file, if it is one to state; a descriptor of its own: the cache is the application's. */
int Stater::open(FileId id, FileRef& out) const {
  IdEntry entry;
  if (!ids_.get(id, entry) || (entry.flags & (id_local | id_unlinked)) != 0) return ESTALE;
  return open_quietly(tree_, entry, out);
}

/** The inode record, when it fits into the room; otherwise `needs` says how much does. */
int Stater::inode_within(FileId id, const FileRef& file, const Dirty& dirty, Reserved& room,
                         size_t& needs) {
  struct stat now;
  if (fstatat(file->fd.get(), "", &now, AT_EMPTY_PATH) != 0) return fail(errno, "fstat");
  char target[most_target];
  ssize_t target_size = 0;
  if (S_ISLNK(now.st_mode)) {
    target_size = readlinkat(file->fd.get(), "", target, sizeof target);
    if (target_size < 0) return fail(errno, "readlink");
  }
  const ProcPath path(file->fd.get());
  std::vector<uint8_t> xattrs;
  InodeBody body{};
  body.flags = inode_with_values;
  if (const int error = read_xattrs(path.text, true, xattrs); error != 0) {
    return fail(error, "getxattr");
  }
  if (xattrs.size() > most_xattrs) {
    body.flags &= ~uint32_t{inode_with_values};
    if (const int error = read_xattrs(path.text, false, xattrs); error != 0) {
      return fail(error, "listxattr");
    }
  }
  const bool more = S_ISDIR(now.st_mode) || (S_ISREG(now.st_mode) && now.st_size > 0);
  if (!more || dirty.covers(id, static_cast<uint64_t>(S_ISREG(now.st_mode) ? now.st_size : 1))) {
    body.flags |= inode_all_follows;
  }
  body.size = S_ISREG(now.st_mode) ? static_cast<uint64_t>(now.st_size) : 0;
  body.atime = {now.st_atim.tv_sec, static_cast<uint32_t>(now.st_atim.tv_nsec), 0};
  body.mtime = {now.st_mtim.tv_sec, static_cast<uint32_t>(now.st_mtim.tv_nsec), 0};
  body.mode = now.st_mode;
  body.uid = now.st_uid;
  body.gid = now.st_gid;
  body.rdev = S_ISCHR(now.st_mode) || S_ISBLK(now.st_mode) ? static_cast<uint32_t>(now.st_rdev) : 0;
  body.volume = file->volume;
  body.target_size = static_cast<uint32_t>(target_size);
  body.xattrs_size = static_cast<uint32_t>(xattrs.size());
  const iovec parts[] = {
      {&body, sizeof body}, {target, body.target_size}, {xattrs.data(), xattrs.size()}};
  needs = record_size(sizeof body + body.target_size + xattrs.size());
  if (needs > room.left()) return ENOSPC;
  room.append(Kind::inode, id, parts);
  if ((body.flags & inode_with_values) == 0) needs = 0;  // the values are still to be stated
  return 0;
}

int Stater::inode(FileId id, const Dirty& dirty) {
  size_t size = inode_room;
  for (;;) {
    size_t needs = 0;
    int error = 0;
    {
      Reserved room(*this);
      if (error = room.take(size); error != 0) return error;
      const Locks::Hold hold(locks_, id);
      FileRef file;
      error = open(id, file);
      if (error == ESTALE) return 0;
      if (error != 0) return fail(error, "open_by_handle_at");
      error = inode_within(id, file, dirty, room, needs);
    }
    if (error == 0) return needs == 0 ? values(id) : 0;
    if (error != ENOSPC || needs <= size) return error;
    size = needs + small_inode;
  }
}

/** The values of attributes that are too many for one record, each at its own place in the stream.
 */
int Stater::values(FileId id) {
  std::vector<uint8_t> names, value;
  {
    const Locks::Hold hold(locks_, id);
    FileRef file;
    if (const int error = open(id, file); error != 0) return error == ESTALE ? 0 : error;
    const int error = read_xattrs(ProcPath(file->fd.get()).text, false, names);
    if (error != 0) return fail(error, "listxattr");
  }
  std::span<const uint8_t> items = names, none;
  std::string_view text;
  while (next_xattr(items, text, none)) {
    const std::string name(text);
    value.resize(XATTR_SIZE_MAX);
    Reserved room(*this);
    int error = room.take(record_size(sizeof(XattrBody) + name.size() + value.size()));
    if (error != 0) return error;
    const Locks::Hold hold(locks_, id);
    FileRef file;
    struct stat now;
    if (error = open(id, file); error != 0) return error == ESTALE ? 0 : error;
    if (fstatat(file->fd.get(), "", &now, AT_EMPTY_PATH) != 0) return fail(errno, "fstat");
    const ssize_t size =
        getxattr(ProcPath(file->fd.get()).text, name.c_str(), value.data(), value.size());
    if (size < 0 && errno == ENODATA) continue;  // removed, by a record of its own
    if (size < 0) return fail(errno, "getxattr");
    XattrBody body{};
    body.name_size = static_cast<uint32_t>(name.size());
    body.value_size = static_cast<uint32_t>(size);
    body.mode = now.st_mode & 07777;
    const iovec parts[] = {{&body, sizeof body},
                           {const_cast<char*>(name.data()), name.size()},
                           {value.data(), static_cast<size_t>(size)}};
    room.append(Kind::set_xattr, id, parts);
  }
  return 0;
}

int Stater::look(const OpenFile& directory, FileId parent, const std::string& name,
                 Found& out) const {
  out = Found();
  if (parent <= max_root && is_internal_name(name)) return 0;
  struct stat above, now;
  Handle handle;
  if (fstat(directory.fd.get(), &above) != 0) return errno;
  const int error = tree_.identify(directory.fd.get(), name.c_str(), handle, now);
  out.stated = true;
  if (error != 0) return error == ENOENT ? 0 : error;
  if (now.st_dev != above.st_dev) {
    // Another file system is mounted there; what lies below is not to be seen, and stays.
    out.stated = false;
    out.listed = true;
    return 0;
  }
  IdEntry entry;
  const FileId id = ids_.find(directory.volume, handle);
  if (id == 0 || !ids_.get(id, entry)) return 0;
  if ((entry.flags & id_local) != 0) {
    out.stated = false;
    return 0;
  }
  out.listed = true;
  out.id = id;
  out.type = now.st_mode & S_IFMT;
  return 0;
}

/** One name of a directory whose lock is held. */
int Stater::entry_within(const OpenFile& directory, FileId parent, const std::string& name,
                         Time mtime, Reserved& room, bool& listed) {
  Found found;
  if (const int error = look(directory, parent, name, found); error != 0) {
    return fail(error, "name_to_handle_at");
  }
  listed = found.listed;
  if (!found.stated) return 0;
  EntryBody body{};
  body.parent = parent;
  body.parent_mtime = mtime;
  body.name_size = static_cast<uint32_t>(name.size());
  body.type = found.type;
  const iovec parts[] = {{&body, sizeof body}, {const_cast<char*>(name.data()), name.size()}};
  room.append(Kind::entry, found.id != 0 ? found.id : parent, parts);
  return 0;
}

namespace {

int mtime_of(int fd, Time& out) {
  struct stat now;
  if (fstat(fd, &now) != 0) return errno;
  out = {now.st_mtim.tv_sec, static_cast<uint32_t>(now.st_mtim.tv_nsec), 0};
  return 0;
}

}  // namespace

int Stater::entry(FileId parent, const std::string& name) {
  if (name.empty() || name.size() > name_most) return 0;
  Reserved room(*this);
  if (const int error = room.take(entry_most); error != 0) return error;
  const Locks::Hold hold(locks_, parent);
  FileRef directory;
  Time mtime;
  bool listed = false;
  int error = open(parent, directory);
  if (error == ESTALE) return 0;
  if (error != 0) return fail(error, "open_by_handle_at");
  if (directory->type != S_IFDIR) return 0;
  if (error = mtime_of(directory->fd.get(), mtime); error != 0) return fail(error, "fstat");
  return entry_within(*directory, parent, name, mtime, room, listed);
}

int Stater::read_names(ListingWalk& walk, const OpenFile& directory) {
  const int error = list_names(directory.fd.get(), walk.names);
  if (error != 0) return fail(error, "readdir");
  std::sort(walk.names.begin(), walk.names.end());
  return 0;
}

/** Reads a directory while others may change it; that they did is seen when it is locked. */
int Stater::read_names_unlocked(ListingWalk& walk) {
  uint64_t changes = 0;
  FileRef directory;
  {
    const Locks::Hold hold(locks_, walk.directory);
    changes = locks_.changes(walk.directory);
    if (changes == walk.changes) return 0;
    if (const int error = open(walk.directory, directory); error != 0) return error;
  }
  if (directory->type != S_IFDIR) return ESTALE;
  const int error = read_names(walk, *directory);
  if (error == 0) walk.changes = changes;
  return error;
}

/** One range of names that are as they are now, and that those are all. */
int Stater::range_within(ListingWalk& walk, const OpenFile& directory, Reserved& room) {
  const auto end = walk.names.end();
  auto at = walk.after.empty() ? walk.names.begin()
                               : std::upper_bound(walk.names.begin(), end, walk.after);
  const auto last = end - at > static_cast<ptrdiff_t>(range_names) ? at + range_names : end;
  Time mtime;
  if (const int error = mtime_of(directory.fd.get(), mtime); error != 0) {
    return fail(error, "fstat");
  }
  std::vector<uint8_t> texts;
  ListingBody body{};
  body.mtime = mtime;
  body.after_size = static_cast<uint32_t>(walk.after.size());
  for (; at != last; ++at) {
    bool listed = false;
    const int error = entry_within(directory, walk.directory, *at, mtime, room, listed);
    if (error != 0) return error;
    if (!listed) continue;
    const auto size = static_cast<uint16_t>(at->size());
    const auto* bytes = reinterpret_cast<const uint8_t*>(&size);
    texts.insert(texts.end(), bytes, bytes + sizeof size);
    texts.insert(texts.end(), at->begin(), at->end());
    body.count++;
  }
  walk.done = last == end;
  const std::string upto = walk.done ? std::string() : *(last - 1);
  body.upto_size = static_cast<uint32_t>(upto.size());
  const iovec parts[] = {{&body, sizeof body},
                         {walk.after.data(), walk.after.size()},
                         {const_cast<char*>(upto.data()), upto.size()},
                         {texts.data(), texts.size()}};
  room.append(Kind::listing, walk.directory, parts);
  walk.after = upto;
  return 0;
}

int Stater::listing(ListingWalk& walk) {
  // A large directory takes long to read: without its lock, unless it changes each time.
  int error = 0;
  for (int tries = 0; tries < 2 && error == 0; tries++) error = read_names_unlocked(walk);
  if (error == 0) {
    Reserved room(*this);
    if (error = room.take(walk.busy ? 2 * range_room : range_room); error != 0) return error;
    const Locks::Hold hold(locks_, walk.directory);
    FileRef directory;
    error = open(walk.directory, directory);
    const uint64_t changes = locks_.changes(walk.directory);
    walk.busy = changes != walk.changes;
    if (error == 0 && walk.busy) error = read_names(walk, *directory);
    if (error == 0) walk.changes = changes;
    // What was read under the lock is used as far as the room goes.
    do {
      if (error == 0) error = range_within(walk, *directory, room);
    } while (error == 0 && !walk.done && room.left() >= range_room);
  }
  if (error == ESTALE) walk.done = true;
  return error == ESTALE ? 0 : error;
}

}  // namespace holdfast::replica
