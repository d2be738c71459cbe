#include "replica/orphanage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "replica/scan.h"

namespace holdfast::replica {
namespace {

constexpr const char* mtime_attribute = "trusted.holdfast.mtime";

struct CloseDir {
  void operator()(DIR* stream) const { closedir(stream); }
};

int open_folder(int directory, const char* name) {
  return openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
}

/** True when nothing but this directory speaks for the file: it must not go. */
bool is_wanted(const Tree& tree, const Ids& ids, uint8_t volume, int directory, const char* name,
               bool extra_names) {
  Handle handle;
  struct stat attributes;
  if (tree.identify(directory, name, handle, attributes) != 0) return false;
  IdEntry entry;
  const FileId id = ids.find(volume, handle);
  if (id == 0 || !ids.get(id, entry) || (entry.flags & (id_local | id_unlinked)) != 0) return false;
  return !extra_names || S_ISDIR(attributes.st_mode) || attributes.st_nlink == 1;
}

/** Moves the folders inside `name` up into `directory`, removes its files, then itself. */
int purge_one(const Tree& tree, const Ids& ids, uint8_t volume, int directory,
              const std::string& name, bool extra_names, uint64_t& next) {
  if (is_wanted(tree, ids, volume, directory, name.c_str(), extra_names)) return EUCLEAN;
  if (unlinkat(directory, name.c_str(), 0) == 0) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  const Fd folder(open_folder(directory, name.c_str()));
  if (!folder.valid()) return errno;
  std::vector<std::string> inside;
  if (const int error = list_names(folder.get(), inside); error != 0) return error;
  for (const std::string& each : inside) {
    if (is_wanted(tree, ids, volume, folder.get(), each.c_str(), extra_names)) return EUCLEAN;
    if (unlinkat(folder.get(), each.c_str(), 0) == 0) continue;
    if (errno != EISDIR && errno != EPERM) return errno;
    int error = EEXIST;
    while (error == EEXIST) {
      const std::string up = ".up-" + std::to_string(next++);
      const int moved =
          renameat2(folder.get(), each.c_str(), directory, up.c_str(), RENAME_NOREPLACE);
      error = moved == 0 ? 0 : errno;
    }
    if (error != 0) return error;
  }
  return unlinkat(directory, name.c_str(), AT_REMOVEDIR) == 0 ? 0 : errno;
}

}  // namespace

int list_names(int directory, std::vector<std::string>& out) {
  out.clear();
  int fd = open_folder(directory, ".");
  if (fd < 0) return errno;
  const std::unique_ptr<DIR, CloseDir> stream(fdopendir(fd));
  if (stream == nullptr) {
    const int error = errno;
    close(fd);
    return error;
  }
  errno = 0;
  while (const dirent* entry = readdir(stream.get())) {
    const char* name = entry->d_name;
    if (std::strcmp(name, ".") != 0 && std::strcmp(name, "..") != 0) out.emplace_back(name);
    errno = 0;
  }
  return errno;
}

int purge(const Tree& tree, const Ids& ids, uint8_t volume, int directory, bool extra_names) {
  uint64_t next = 0;
  std::vector<std::string> names;
  for (;;) {
    if (const int error = list_names(directory, names); error != 0) return error;
    if (names.empty()) return 0;
    for (const std::string& name : names) {
      const int error = purge_one(tree, ids, volume, directory, name, extra_names, next);
      if (error != 0) return error;
    }
  }
}

/** Sets the root's mtime aside, before a call that changes it. */
int Orphanage::save() {
  const int root = tree_.root_fd(volume_);
  struct stat attributes;
  if (fstat(root, &attributes) != 0) return errno;
  saved_ = attributes.st_mtim;
  // A file system without such attributes restores it from memory, unless the machine stops.
  const int set = fsetxattr(root, mtime_attribute, &saved_, sizeof saved_, 0);
  return set == 0 || errno == EOPNOTSUPP ? 0 : errno;
}

/** Gives the root the mtime that was set aside, if one was. */
int Orphanage::restore() {
  const int root = tree_.root_fd(volume_);
  timespec times[2] = {{0, UTIME_OMIT}, saved_};
  const bool stored =
      fgetxattr(root, mtime_attribute, &times[1], sizeof times[1]) == sizeof times[1];
  if (!stored && saved_.tv_nsec == UTIME_OMIT) return 0;
  if (futimens(root, times) != 0) return errno;
  saved_.tv_nsec = UTIME_OMIT;
  return !stored || fremovexattr(root, mtime_attribute) == 0 ? 0 : errno;
}

int Orphanage::look() {
  if (const int error = restore(); error != 0) return error;
  fd_.reset(open_folder(tree_.root_fd(volume_), orphanage_name));
  return fd_.valid() || errno == ENOENT ? 0 : errno;
}

int Orphanage::make() {
  const int root = tree_.root_fd(volume_);
  if (const int error = save(); error != 0) return error;
  if (mkdirat(root, orphanage_name, 0700) != 0) return errno;
  if (const int error = restore(); error != 0) return error;
  fd_.reset(open_folder(root, orphanage_name));
  return fd_.valid() ? 0 : errno;
}

int Orphanage::get(int& fd) {
  if (!fd_.valid()) {
    if (const int error = make(); error != 0) return error;
  }
  fd = fd_.get();
  return 0;
}

std::string Orphanage::free_name() {
  std::string name;
  struct stat attributes;
  do {
    name = "o" + std::to_string(next_++);
  } while (fd_.valid() && fstatat(fd_.get(), name.c_str(), &attributes, AT_SYMLINK_NOFOLLOW) == 0);
  return name;
}

int Orphanage::take(int directory, const char* name) {
  int fd = -1;
  if (const int error = get(fd); error != 0) return error;
  const std::string to = free_name();
  return renameat2(directory, name, fd, to.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
}

int Orphanage::empty(const KeepOrphan& keep) {
  if (!fd_.valid()) return 0;
  std::vector<std::string> names;
  if (const int error = list_names(fd_.get(), names); error != 0) return error;
  for (const std::string& name : names) {
    Orphan orphan{volume_, fd_.get(), name.c_str(), 0, false, {}};
    Handle handle;
    IdEntry entry;
    const int error = tree_.identify(fd_.get(), name.c_str(), handle, orphan.attributes);
    if (error != 0) return error;
    orphan.file = ids_.find(volume_, handle);
    if (orphan.file != 0 && ids_.get(orphan.file, entry)) {
      orphan.removed = (entry.flags & id_unlinked) != 0;
    }
    bool kept = false;
    if (keep) {
      if (const int failed = keep(orphan, kept); failed != 0) return failed;
    }
  }
  return empty();
}

int Orphanage::empty() {
  if (!fd_.valid()) return 0;
  if (const int error = purge(tree_, ids_, volume_, fd_.get(), true); error != 0) return error;
  fd_.reset();
  if (const int error = save(); error != 0) return error;
  if (unlinkat(tree_.root_fd(volume_), orphanage_name, AT_REMOVEDIR) != 0) return errno;
  return restore();
}

}  // namespace holdfast::replica
