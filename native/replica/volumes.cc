#include "replica/volumes.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "replica/copy_mark.h"
#include "replica/mounts.h"

namespace holdfast::replica {

namespace {

std::string read_small(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char buffer[256];
  const ssize_t size = fd.valid() ? read(fd.get(), buffer, sizeof buffer) : -1;
  return size <= 0 ? std::string() : std::string(buffer, size_t(size));
}

/** Mount ids mean something until the machine starts again. */
std::string boot_id() {
  std::string id = read_small("/proc/sys/kernel/random/boot_id");
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

std::string marker_name(size_t volume) {
  return "mounted" + std::to_string(volume);
}

}  // namespace

Failure Volumes::lock_state() {
  if (lock_.valid()) return {};
  if (mkdir(line_.state.c_str(), 0700) != 0 && errno != EEXIST)
    return Failure::of(errno, "state=" + line_.state);
  lock_.reset(::open(state_path("lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_.valid()) return Failure::of(errno, state_path("lock"));
  // Of the process, not of the descriptor: the worker's death frees it, whoever has copies.
  struct flock whole {};
  whole.l_type = F_WRLCK;
  if (fcntl(lock_.get(), F_SETLK, &whole) == 0) return {};
  const bool busy = errno == EAGAIN || errno == EACCES;
  const int error = busy ? EBUSY : errno;
  lock_.reset();
  return Failure::of(error, "state=" + line_.state);
}

int Volumes::remembered(size_t volume) const {
  const std::string text = read_small(state_path(marker_name(volume).c_str()));
  const std::string boot = boot_id();
  if (boot.empty() || !text.starts_with(boot + " ")) return 0;
  return atoi(text.c_str() + boot.size() + 1);
}

bool Volumes::mounted(size_t volume) const {
  const int id = remembered(volume);
  const auto mount = mount_at(dir(volume));
  if (id == 0 || !mount.has_value() || mount->id != id) return false;
  // The kernel gives the id of a mount that is gone to the next one, perhaps an administrator's.
  return mount->type == "fuse.holdfast" || mount->read_only;
}

Failure Volumes::remember_mount(size_t volume) {
  const auto mount = mount_at(dir(volume));
  if (!mount) return Failure::of(ENOENT, "the mount at " + dir(volume));
  const std::string path = state_path(marker_name(volume).c_str());
  Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const std::string text = boot_id() + " " + std::to_string(mount->id) + "\n";
  if (!fd.valid() || write(fd.get(), text.data(), text.size()) != ssize_t(text.size()))
    return Failure::of(errno, path);
  return {};
}

Failure Volumes::take_away(size_t volume, int wait_ms) {
  if (!mounted(volume)) return {};
  bool lazy = false;
  const int error = unmount(dir(volume), wait_ms, lazy);
  if (error != 0) return Failure::of(error, "unmounting " + dir(volume));
  unlink(state_path(marker_name(volume).c_str()).c_str());
  if (lazy)
    context_.events.event("warning", {{"text",
                                       "the directory was busy: its mount is detached, "
                                       "and who has files open in it keeps them"},
                                      {"dir", dir(volume)}});
  return {};
}

Failure Volumes::open_one(size_t volume, Fd& out) {
  const std::string& path = dir(volume);
  if (context_.resume) {
    out = context_.store.get(StoreKind::directory, volume);
    if (out.valid()) return {};
  }
  if (Failure failure = take_away(volume, 0); failure.failed()) return failure;
  constexpr int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  out.reset(::open(path.c_str(), flags));
  if (!out.valid() && errno == ENOTCONN) {
    // A mount whose server is gone, made in the moment before it could be remembered.
    bool lazy = false;
    const auto mount = mount_at(path);
    if (mount && mount->type == "fuse.holdfast" && unmount(path, 0, lazy) == 0)
      out.reset(::open(path.c_str(), flags));
    else
      errno = ENOTCONN;
  }
  if (!out.valid()) return Failure::of(errno, "dir=" + path);
  char real[PATH_MAX];
  if (realpath(path.c_str(), real) == nullptr) return Failure::of(errno, "dir=" + path);
  if (path != real)
    return Failure::of(EINVAL, "dir=" + path + " is not a real path: it is " + real);
  const int error = context_.store.keep(StoreKind::directory, volume, out.get());
  return error == 0 ? Failure{} : Failure::of(error, "keeping " + path);
}

/** VOLUME: another directory is there than the one that this copy was in. */
Failure Volumes::check_mark(size_t volume, int root) {
  const std::string note = mark_note(line_.state, volume);
  const auto found = find_mark(root, note);
  if (!found.ok()) return Failure::of(found.error, dir(volume) + ": " + found.call);
  if (found.value == Found::other) return other_directory(dir(volume));
  if (found.value == Found::same) return {};
  // On a disk that is full, say, it does without, and tries again at the next start.
  if (const int error = make_mark(root, note); error != 0)
    context_.events.warning(
        "a directory cannot be marked as this copy's: were its file system not mounted at the next "
        "start, nobody would notice",
        error);
  return {};
}

Failure Volumes::open(Tree& tree) {
  for (size_t i = 0; i < count(); i++) {
    Fd directory;
    if (Failure failure = open_one(i, directory); failure.failed()) return failure;
    if (Failure failure = check_mark(i, directory.get()); failure.failed()) return failure;
    const auto added = tree.add_volume(std::move(directory));
    if (!added.ok()) return Failure::of(added.error, dir(i) + ": " + added.call);
  }
  return {};
}

void Volumes::forget() {
  context_.store.drop_all(StoreKind::directory);
  lock_.reset();
}

}  // namespace holdfast::replica
