#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "replica/undo_capture.h"
#include "replica/xattrs.h"

/* How a file is, as statements into the undo log. */
namespace holdfast::replica {
namespace {

constexpr uint64_t data_grain = 4096;
constexpr uint64_t range_memory = 64;  // of a range in its map

Time to_time(const timespec& time) {
  return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec), 0};
}

iovec part(const void* data, size_t size) {
  return {const_cast<void*>(data), size};
}

/** Adds [from, to); what touches it becomes one with it. Ranges more than before. */
int insert(std::map<uint64_t, uint64_t>& ranges, uint64_t from, uint64_t to) {
  int change = 1;
  auto at = ranges.upper_bound(from);
  if (at != ranges.begin() && std::prev(at)->second >= from) --at;
  while (at != ranges.end() && at->first <= to) {
    from = std::min(from, at->first);
    to = std::max(to, at->second);
    at = ranges.erase(at);
    change--;
  }
  ranges.emplace(from, to);
  return change;
}

}  // namespace

void UndoCapture::note(const Subject& subject) {
  Saved& known = saved(subject.entry.id);
  if (known.noted) return;
  known.noted = true;
  const IdEntry& entry = subject.entry;
  UndoNote note{};
  note.id = entry.id;
  note.handle_type = entry.handle.type;
  note.handle_size = static_cast<uint8_t>(entry.handle.size);
  note.type = static_cast<uint8_t>(entry.type >> 12);
  note.volume = entry.volume;
  note.flags = entry.flags;
  std::memcpy(note.handle, entry.handle.bytes, entry.handle.size);
  file_.add_note(note);
}

int UndoCapture::save_inode(const Subject& subject) {
  Saved& known = saved(subject.entry.id);
  if (known.inode || known.made) return 0;
  struct stat now;
  if (fstatat(subject.file->fd.get(), "", &now, AT_EMPTY_PATH) != 0) return errno;
  note(subject);
  if (const int error = save_attributes(subject, now); error != 0) return error;
  known.inode = true;
  known.size = S_ISREG(now.st_mode) ? static_cast<uint64_t>(now.st_size) : 0;
  return 0;
}

int UndoCapture::save_attributes(const Subject& subject, const struct stat& now) {
  const int fd = subject.file->fd.get();
  const ProcPath path(fd);
  std::vector<uint8_t> xattrs;
  if (const int error = read_xattrs(path.text, true, xattrs); error != 0) return error;
  char target[PATH_MAX];
  ssize_t target_size = 0;
  if (S_ISLNK(now.st_mode)) {
    target_size = readlinkat(fd, "", target, sizeof target);
    if (target_size < 0) return errno;
  }
  const bool values = xattrs.size() <= max_data;
  InodeBody body{};
  body.size = S_ISREG(now.st_mode) ? static_cast<uint64_t>(now.st_size) : 0;
  body.atime = to_time(now.st_atim);
  body.mtime = to_time(now.st_mtim);
  body.mode = now.st_mode;
  body.uid = now.st_uid;
  body.gid = now.st_gid;
  body.rdev = static_cast<uint32_t>(now.st_rdev);
  body.volume = subject.entry.volume;
  body.flags = values ? uint32_t{inode_with_values} : 0;
  body.target_size = static_cast<uint32_t>(target_size);
  std::vector<uint8_t> names;
  if (!values) {
    if (const int error = read_xattrs(path.text, false, names); error != 0) return error;
  }
  const std::vector<uint8_t>& items = values ? xattrs : names;
  body.xattrs_size = static_cast<uint32_t>(items.size());
  const iovec parts[] = {part(&body, sizeof body), part(target, body.target_size),
                         part(items.data(), items.size())};
  const int error = file_.add_record(Kind::inode, subject.entry.id, parts);
  return error != 0 || values ? error : save_values(subject, xattrs, now.st_mode & 07777);
}

int UndoCapture::save_values(const Subject& subject, std::span<const uint8_t> xattrs,
                             uint32_t mode) {
  std::string_view name;
  std::span<const uint8_t> value;
  while (next_xattr(xattrs, name, value)) {
    XattrBody body{};
    body.name_size = static_cast<uint32_t>(name.size());
    body.value_size = static_cast<uint32_t>(value.size());
    body.mode = mode;
    const iovec parts[] = {part(&body, sizeof body), part(name.data(), name.size()),
                           part(value.data(), value.size())};
    const int error = file_.add_record(Kind::set_xattr, subject.entry.id, parts);
    if (error != 0) return error;
  }
  return 0;
}

int UndoCapture::save_data(const Subject& subject, uint64_t from, uint64_t to) {
  if (const int error = save_inode(subject); error != 0) return error;
  Saved& known = saved(subject.entry.id);
  if (known.made || subject.entry.type != S_IFREG) return 0;
  // Whole pages, so that what is saved is few ranges.
  from = from / data_grain * data_grain;
  to = std::min(to, known.size);
  if (from >= to) return 0;
  struct stat now;
  if (fstat(subject.file->fd.get(), &now) != 0) return errno;
  const Time mtime = to_time(now.st_mtim);
  to = std::min((to + data_grain - 1) / data_grain * data_grain, known.size);
  for (uint64_t at = from; at < to;) {
    auto next = known.ranges.upper_bound(at);
    if (next != known.ranges.begin() && std::prev(next)->second > at) {
      at = std::prev(next)->second;
      continue;
    }
    const uint64_t end = next == known.ranges.end() ? to : std::min(to, next->first);
    if (const int error = save_range(subject, mtime, at, end); error != 0) return error;
    at = end;
  }
  const int more = insert(known.ranges, from, to);
  memory_ += more > 0 ? range_memory : 0;
  return 0;
}

/** What is there as data, what is not as a hole. */
int UndoCapture::save_range(const Subject& subject, const Time& mtime, uint64_t from, uint64_t to) {
  const int fd = subject.file->fd.get();
  // The descriptor is the applier's: nobody else's reads go unseen by it.
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NOATIME) == 0) fcntl(fd, F_SETFL, flags | O_NOATIME);
  while (from < to) {
    const off_t found = lseek(fd, static_cast<off_t>(from), SEEK_DATA);
    if (found < 0 && errno != ENXIO && errno != EINVAL) return errno;
    uint64_t data = found >= 0 ? static_cast<uint64_t>(found) : errno == ENXIO ? to : from;
    data = std::min(data, to);
    if (data > from) {
      if (const int error = save_hole(subject, mtime, from, data); error != 0) return error;
    }
    const off_t hole = data < to ? lseek(fd, static_cast<off_t>(data), SEEK_HOLE) : -1;
    const uint64_t end = hole < 0 ? to : std::min(to, static_cast<uint64_t>(hole));
    if (const int error = save_bytes(subject, mtime, data, end); error != 0) return error;
    from = end;
  }
  return 0;
}

int UndoCapture::save_hole(const Subject& subject, const Time& mtime, uint64_t from, uint64_t to) {
  AllocateBody body{};
  body.offset = from;
  body.length = to - from;
  body.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  body.mtime = mtime;
  const iovec parts[] = {part(&body, sizeof body)};
  return file_.add_record(Kind::allocate, subject.entry.id, parts);
}

int UndoCapture::save_bytes(const Subject& subject, const Time& mtime, uint64_t from, uint64_t to) {
  buffer_.resize(std::max(buffer_.size(), static_cast<size_t>(std::min(to - from, max_data))));
  while (from < to) {
    const size_t wanted = std::min<uint64_t>(to - from, max_data);
    const ssize_t got =
        pread(subject.file->fd.get(), buffer_.data(), wanted, static_cast<off_t>(from));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : 0;
    WriteBody body{from, mtime};
    const iovec parts[] = {part(&body, sizeof body),
                           part(buffer_.data(), static_cast<size_t>(got))};
    if (const int error = file_.add_record(Kind::write, subject.entry.id, parts); error != 0) {
      return error;
    }
    from += static_cast<uint64_t>(got);
  }
  return 0;
}

}  // namespace holdfast::replica
