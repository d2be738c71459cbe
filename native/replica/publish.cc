// A file that becomes replicated: it gets its first name where names are replicated.
//
// The peer makes it without a name (an inode record), gets its content, and gives it the name by
// one record, which is the last. So it is there whole or not at all. A server that is killed on the
// way begins anew: what it says is how the file is, and the name counts once.

#include <fcntl.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <memory>

#include "replica/core.h"
#include "replica/xattrs.h"

namespace holdfast::replica {
namespace {

constexpr size_t piece = 256 * 1024;
// More bytes of attributes than this travel one by one.
constexpr size_t xattrs_max = 256 * 1024;

InodeBody inode_body(const struct stat& now, uint8_t volume) {
  InodeBody body{};
  body.size = S_ISREG(now.st_mode) ? static_cast<uint64_t>(now.st_size) : 0;
  body.atime = to_time(now.st_atim);
  body.mtime = to_time(now.st_mtim);
  body.mode = now.st_mode;
  body.uid = now.st_uid;
  body.gid = now.st_gid;
  body.rdev = static_cast<uint32_t>(now.st_rdev);
  body.volume = volume;
  return body;
}

}  // namespace

bool Core::publish_content(FileId id, const OpenFile& f, const struct stat& now) {
  const auto buffer = std::make_unique<uint8_t[]>(piece);
  const Fd quiet(open(ProcPath(f.fd.get()).text, O_RDONLY | O_NOATIME | O_CLOEXEC));
  const int fd = quiet.valid() ? quiet.get() : f.fd.get();
  off_t at = 0;
  while (at < now.st_size) {
    // Holes stay holes: the size comes last.
    const off_t data = lseek(fd, at, SEEK_DATA);
    if (data < 0) break;
    const off_t hole = std::min<off_t>(lseek(fd, data, SEEK_HOLE), now.st_size);
    for (at = data; at < hole;) {
      const size_t want = std::min<size_t>(piece, static_cast<size_t>(hole - at));
      const ssize_t got = pread(fd, buffer.get(), want, at);
      if (got <= 0) {
        log.local_failed(got < 0 ? errno : EIO, "pread");
        return false;
      }
      WriteBody body{static_cast<uint64_t>(at), to_time(now.st_mtim)};
      const iovec parts[] = {{&body, sizeof body}, {buffer.get(), static_cast<size_t>(got)}};
      Room r(log);
      if (!room_blocking(r, record_size(sizeof body + static_cast<size_t>(got)))) return false;
      append(r, Kind::write, 0, id, parts);
      log.push();
      at += got;
    }
  }
  return true;
}

/** All about the file but its names and data. */
bool Core::publish_inode(FileId id, const OpenFile& f, const struct stat& now) {
  std::vector<uint8_t> xattrs;
  const ProcPath path(f.fd.get());
  int error = read_xattrs(path.text, true, xattrs);
  const bool at_once = xattrs.size() <= xattrs_max;
  std::vector<uint8_t> values;
  if (!at_once) {
    values.swap(xattrs);
    if (error == 0) error = read_xattrs(path.text, false, xattrs);
  }
  char target[PATH_MAX] = "";
  ssize_t size = 0;
  if (S_ISLNK(now.st_mode)) size = readlinkat(f.fd.get(), "", target, sizeof target);
  if (size < 0) error = errno;
  if (error != 0) {
    log.local_failed(error, "publish");
    return false;
  }
  InodeBody body = inode_body(now, f.volume);
  body.flags = inode_all_follows | (at_once ? uint32_t{inode_with_values} : 0);
  body.target_size = static_cast<uint32_t>(size);
  body.xattrs_size = static_cast<uint32_t>(xattrs.size());
  {
    const iovec parts[] = {
        {&body, sizeof body}, {target, body.target_size}, {xattrs.data(), xattrs.size()}};
    Room r(log);
    if (!room_blocking(r, record_size(sizeof body + body.target_size + xattrs.size()))) {
      return false;
    }
    append(r, Kind::inode, 0, id, parts);
  }
  std::span<const uint8_t> left = values, value;
  std::string_view name;
  while (next_xattr(left, name, value)) {
    Room r(log);
    if (!room_blocking(r, record_size(sizeof(XattrBody) + name.size() + value.size()))) {
      return false;
    }
    append_xattr(r, id, name, value, now.st_mode);
  }
  return true;
}

Lsn Core::publish_name(FileId id, const Published& as, Intent* intent) {
  struct stat dir {};
  fstat(as.dir->fd.get(), &dir);
  const size_t size = std::strlen(as.name);
  const iovec text{const_cast<char*>(as.name), size};
  Room r(log);
  if (!room_blocking(r, record_size(sizeof(RenameBody) + 2 * size))) return no_lsn;
  if (as.replaced == 0) {
    LinkBody body{};
    body.parent = as.parent;
    body.parent_mtime = to_time(dir.st_mtim);
    body.name_size = static_cast<uint32_t>(size);
    const iovec parts[] = {{&body, sizeof body}, text};
    return append(r, Kind::link, 0, id, parts, &intent->lsn);
  }
  // Both names the same: it had none.
  RenameBody body{};
  body.parent = body.new_parent = as.parent;
  body.replaced = as.replaced;
  body.parent_mtime = body.new_parent_mtime = to_time(dir.st_mtim);
  body.name_size = body.new_name_size = static_cast<uint16_t>(size);
  const iovec parts[] = {{&body, sizeof body}, text, text};
  return append(r, Kind::rename, as.last ? flag_last_name : uint16_t{0}, id, parts, &intent->lsn);
}

/** The LSN of its name; no_lsn: it did not come to that (not_published). */
Lsn Core::publish(FileId id, const FileRef& f, const Published& as, Intent* intent) {
  Lsn lsn = intent->lsn;
  if (lsn == 0) {
    struct stat now {};
    if (fstat(f->fd.get(), &now) != 0) {
      log.local_failed(errno, "fstat");
      return no_lsn;
    }
    if (S_ISREG(now.st_mode) && now.st_size > 0) {
      // Of no size at first: an earlier attempt may have left what is a hole by now.
      struct stat empty = now;
      empty.st_size = 0;
      if (!publish_inode(id, *f, empty) || !publish_content(id, *f, now)) return no_lsn;
    }
    // Also after the content: writing takes a file's capabilities away.
    if (!publish_inode(id, *f, now)) return no_lsn;
    lsn = publish_name(id, as, intent);
    if (lsn == no_lsn) return no_lsn;
  }
  ids.set_flags(id, 0, id_local);
  return lsn;
}

Handled Core::not_published(Call& call, Intent* intent) {
  // A server that stops leaves it to the next one; else something here could not be read.
  if (!stopping) fail(call, EIO, intent);
  return Handled::yes;
}

}  // namespace holdfast::replica
