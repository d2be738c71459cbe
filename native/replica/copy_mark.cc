#include "replica/copy_mark.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/fd.h"
#include "replica/marks.h"
#include "replica/mounts.h"
#include "replica/scan.h"
#include "replica/target.h"
#include "replica/tree.h"

namespace holdfast::replica {

namespace {

constexpr std::string_view sentence =
    "This directory is a copy of a Holdfast mirror, which knows it again by this file.\n";
constexpr size_t max_note = 256;

/** A handle as it is noted: "TYPE BYTES\n", the bytes in hexadecimal. */
std::string text_of(const Handle& handle) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text = std::to_string(handle.type) + " ";
  for (uint32_t i = 0; i < handle.size; i++) {
    text += digits[handle.bytes[i] >> 4];
    text += digits[handle.bytes[i] & 15];
  }
  return text + "\n";
}

/** What is noted; empty: nothing. 0 or errno. */
int read_note(const std::string& note, std::string& out) {
  out.clear();
  const Fd fd(open(note.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno == ENOENT ? 0 : errno;
  char buffer[max_note];
  const ssize_t size = read(fd.get(), buffer, sizeof buffer);
  if (size < 0) return errno;
  out.assign(buffer, static_cast<size_t>(size));
  return 0;
}

/** Under its name whole or not at all. 0 or errno. */
int write_note(const std::string& note, const std::string& text) {
  const std::string next = note + ".new";
  const Fd fd(open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  const ssize_t size = write(fd.get(), text.data(), text.size());
  if (size != static_cast<ssize_t>(text.size())) return size < 0 ? errno : ENOSPC;
  if (fsync(fd.get()) != 0 || rename(next.c_str(), note.c_str()) != 0) return errno;
  const Fd folder(
      open(note.substr(0, note.rfind('/')).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return folder.valid() && fsync(folder.get()) == 0 ? 0 : errno;
}

/** Makes the file; to applications nothing of the root has changed. 0 or errno. */
int make_file(int root) {
  struct stat before;
  if (fstat(root, &before) != 0) return errno;
  const Fd fd(openat(root, copy_mark_name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0400));
  if (!fd.valid()) return errno;
  // Its words are for people: on a full disk it does without.
  (void)!write(fd.get(), sentence.data(), sentence.size());
  const timespec times[2] = {{0, UTIME_OMIT}, before.st_mtim};
  if (futimens(root, times) != 0) return errno;
  return fsync(fd.get()) == 0 && fsync(root) == 0 ? 0 : errno;
}

}  // namespace

std::string mark_note(const std::string& state, size_t volume) {
  return state + "/copy" + std::to_string(volume);
}

Result<Found> find_mark(int root, const std::string& note) {
  std::string noted;
  if (const int error = read_note(note, noted); error != 0)
    return Result<Found>::failure(error, "reading what is noted of it");
  if (noted.empty()) return Result<Found>::success(Found::first);
  Handle handle;
  struct stat attributes;
  const int error = Tree::identify(root, copy_mark_name, handle, attributes);
  // A file system without handles is not the one that had them.
  if (error != 0 && error != ENOENT && error != EOPNOTSUPP)
    return Result<Found>::failure(error, copy_mark_name);
  const bool same = error == 0 && text_of(handle) == noted;
  return Result<Found>::success(same ? Found::same : Found::other);
}

int make_mark(int root, const std::string& note) {
  Handle handle;
  struct stat attributes;
  int error = Tree::identify(root, copy_mark_name, handle, attributes);
  if (error == ENOENT) {
    error = make_file(root);
    if (error == 0) error = Tree::identify(root, copy_mark_name, handle, attributes);
  }
  return error == 0 ? write_note(note, text_of(handle)) : error;
}

Failure other_directory(const std::string& dir) {
  return Failure::of("VOLUME", dir + " is not the directory that this copy was in");
}

Failure look_at_directories(const std::string& state, const std::vector<std::string>& dirs,
                            bool force) {
  for (size_t volume = 0; volume < dirs.size(); volume++) {
    const std::string& dir = dirs[volume];
    const auto mount = mount_at(dir);
    if (mount && mount->type == "fuse.holdfast") continue;
    const Fd root(open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!root.valid()) return Failure::of(errno, dir + " cannot be opened");
    const auto found = find_mark(root.get(), mark_note(state, volume));
    if (!found.ok()) return Failure::of(found.error, dir + ": " + found.call);
    if (found.value != Found::other) continue;
    const auto empty = is_empty(root.get());
    if (!empty.ok()) return Failure::of(empty.error, dir);
    if (!force || empty.value) return other_directory(dir);
  }
  return {};
}

/** Nothing is noted any more: whatever is there is the copy's directory. */
static int forget_marks(const std::string& state) {
  int first = 0;
  for (size_t volume = 0; volume < max_root; volume++) {
    if (unlink(mark_note(state, volume).c_str()) == 0 || errno == ENOENT) continue;
    if (first == 0) first = errno;
  }
  return first;
}

int forget_copy(Super& super, const std::string& folder) {
  SuperState next = super.state();
  next.state = DiskState::none;
  next.role = 0;
  next.clean = 0;
  next.checkpoint = {};
  next.last = next.base = {};
  next.base_state = 0;
  next.resync = 0;
  next.history_size = 0;
  // First: with ids that are gone, an older history would be gone on from as if it were whole.
  int error = super.save(next);
  if (error == 0) error = remove_rest(folder);
  if (error == 0) error = Marks::remove(folder);
  if (error == 0 && unlink((folder + "/ids").c_str()) != 0 && errno != ENOENT) error = errno;
  return error == 0 ? forget_marks(folder) : error;
}

}  // namespace holdfast::replica
