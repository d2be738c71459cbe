// A file that becomes replicated: it gets its first name where names are replicated.

#include <fcntl.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "replica/core.h"

namespace holdfast::replica {
namespace {

constexpr size_t piece = 256 * 1024;
constexpr size_t value_max = 65536;

}  // namespace

bool Core::publish_content(FileId id, const OpenFile& f, const struct stat& now) {
  const auto buffer = std::make_unique<uint8_t[]>(piece);
  const Fd quiet(open(ProcPath(f.fd.get()).text, O_RDONLY | O_NOATIME | O_CLOEXEC));
  const int fd = quiet.valid() ? quiet.get() : f.fd.get();
  off_t at = 0;
  while (at < now.st_size) {
    // Holes stay holes: the size is set by the attributes that come last.
    const off_t data = lseek(fd, at, SEEK_DATA);
    if (data < 0) break;
    const off_t hole = std::min<off_t>(lseek(fd, data, SEEK_HOLE), now.st_size);
    for (at = data; at < hole;) {
      const size_t want = std::min<size_t>(piece, static_cast<size_t>(hole - at));
      const ssize_t got = pread(fd, buffer.get(), want, at);
      if (got <= 0) {
        log.local_failed(got < 0 ? errno : EIO, "pread");
        return true;
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

bool Core::publish_xattrs(FileId id, const OpenFile& f, const struct stat& now) {
  const ProcPath path(f.fd.get());
  std::vector<char> names(value_max);
  std::vector<uint8_t> value(value_max);
  const ssize_t size = listxattr(path.text, names.data(), names.size());
  for (ssize_t at = 0; at < size;) {
    const std::string_view name(names.data() + at);
    at += static_cast<ssize_t>(name.size()) + 1;
    const ssize_t got = getxattr(path.text, name.data(), value.data(), value.size());
    if (got < 0) continue;
    Room r(log);
    const size_t payload = sizeof(XattrBody) + name.size() + static_cast<size_t>(got);
    if (!room_blocking(r, record_size(payload))) return false;
    append_xattr(r, id, name, {value.data(), static_cast<size_t>(got)}, now.st_mode);
  }
  return true;
}

Lsn Core::publish(FileId id, const FileRef& f, FileId parent, const FileRef& dir, const char* name,
                  Intent* intent) {
  struct stat now {};
  if (fstat(f->fd.get(), &now) != 0) return no_lsn;
  char target[4096] = "";
  if (S_ISLNK(now.st_mode)) {
    const ssize_t size = readlinkat(f->fd.get(), "", target, sizeof target - 1);
    if (size >= 0) target[size] = 0;
  }
  {
    Room r(log);
    const size_t text = std::strlen(name) + std::strlen(target);
    const size_t bytes = record_size(sizeof(CreateBody) + text + 2 * value_max);
    if (!room_blocking(r, bytes)) return no_lsn;
    made_records(r, id, parent, dir, name, target, now, intent);
  }
  if (S_ISREG(now.st_mode) && !publish_content(id, *f, now)) return no_lsn;
  if (!publish_xattrs(id, *f, now)) return no_lsn;
  Room r(log);
  if (!room_blocking(r, record_size(sizeof(AttributesBody)))) return no_lsn;
  uint32_t mask = attribute_mode | attribute_uid | attribute_gid | attribute_mtime;
  if (S_ISREG(now.st_mode)) mask |= attribute_size;
  if (S_ISLNK(now.st_mode)) mask &= ~uint32_t{attribute_mode};
  const Lsn lsn = append_attributes(r, id, mask, now);
  ids.set_flags(id, 0, id_local);
  return lsn;
}

}  // namespace holdfast::replica
