#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "replica/changes.h"
#include "replica/faults.h"
#include "replica/name.h"

/* Where a folder is, and how it gets another place. The rules of a replay are in changes.h. */
namespace holdfast::replica {
namespace {

/**
 * The folder that a folder is in, on the same mount. `..` alone would lead into what is mounted
 * over a volume's root: the read-only mount, from which nothing can be moved (EXDEV).
 */
int open_above(int folder, Fd& parent) {
  union {
    file_handle handle;
    uint8_t memory[sizeof(file_handle) + MAX_HANDLE_SZ];
  } above;
  above.handle.handle_bytes = MAX_HANDLE_SZ;
  int mount = 0;
  if (name_to_handle_at(folder, "..", &above.handle, &mount, 0) != 0) return errno;
  parent.reset(open_by_handle_at(folder, &above.handle, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return parent.valid() ? 0 : errno;
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace

int where_is(const OpenFile& folder, Fd& parent, std::string& name) {
  const int fd = folder.fd.get();
  struct stat self, found;
  if (fstat(fd, &self) != 0) return errno;
  if (self.st_nlink == 0) return ESTALE;
  if (const int error = open_above(fd, parent); error != 0) {
    return error == ENOENT ? ESTALE : error;
  }
  char path[PATH_MAX];
  const ssize_t size = readlink(ProcPath(fd).text, path, sizeof path);
  if (size > 0 && static_cast<size_t>(size) < sizeof path) {
    name.assign(path, static_cast<size_t>(size));
    name.erase(0, name.rfind('/') + 1);
    if (fstatat(parent.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
        same_file(self, found)) {
      return 0;
    }
  }
  // The kernel's path may be too long, or outside what is reachable: look for it.
  std::vector<std::string> names;
  if (const int error = list_names(parent.get(), names); error != 0) return error;
  for (std::string& each : names) {
    if (fstatat(parent.get(), each.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!same_file(self, found)) continue;
    name = std::move(each);
    return 0;
  }
  return ESTALE;
}

/** Moves a folder from where it is now, or makes it wait. */
int Changes::move_folder(const FileRef& folder, FileId id, const Name& to) {
  Fd parent;
  std::string name;
  int error = where_is(*folder, parent, name);
  if (error == ESTALE) {
    skipped_++;
    tell(id, &to);
    return 0;
  }
  if (error != 0) return fail(error, "where a folder is");
  if (renameat2(parent.get(), name.c_str(), to.fd, to.text, RENAME_NOREPLACE) == 0) {
    return named(id, folder);
  }
  // EINVAL: the new parent is below it by now (see changes.h).
  if (errno != EINVAL) return fail(errno, "renameat2");
  const bool stay = faults_ != nullptr && faults_->folder_stays;
  if (mode_ != ApplyMode::replay || stay) {
    skipped_++;
    tell(id, &to);
    return 0;
  }
  displaced_++;
  if (error = orphanages_[to.volume].take(parent.get(), name.c_str(), id); error != 0) {
    return fail(error, "orphanage");
  }
  waiting_[id] = {to.parent, to.text};
  return 0;
}

/** Gives the folders that wait their names. One that cannot have it stays in the orphanage, which
 * is then not empty (EUCLEAN). */
int Changes::end_waiting() {
  for (const auto& [id, place] : std::exchange(waiting_, {})) {
    Name to;
    FileRef folder;
    int error = parent_of(place.parent, place.name, to);
    if (error == 0) error = find(id, folder);
    if (error != 0) return error;
    if (!to.there() || folder == nullptr) continue;
    // It has the mtime by now that the records say, and a name more changes that.
    Occupant parent;
    if (fstat(to.fd, &parent.attributes) != 0) return fail(errno, "fstat");
    parent.id = place.parent;
    keep_mtime(parent);
    if (error = give(folder, id, to); error != 0) return error;
  }
  waiting_.clear();
  return 0;
}

}  // namespace holdfast::replica
