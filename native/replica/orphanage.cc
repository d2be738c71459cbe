#include "replica/orphanage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "replica/scan.h"

namespace holdfast::replica {
namespace {

constexpr const char* mtime_attribute = "trusted.holdfast.mtime";
constexpr const char* raised = ".up-";  // a folder out of one that is going, so it goes as well

struct CloseDir {
  void operator()(DIR* stream) const { closedir(stream); }
};

int open_folder(int directory, const char* name) {
  return openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
}

/** What must not go. */
enum class Spare {
  known,    // files with an id that no record has removed
  last,     // the same, but a name of a file that has others may go
  nothing,  // everything goes
};

struct Purge {
  const Tree& tree;
  const Ids& ids;
  uint8_t volume;
  Spare spare;
  uint64_t next = 0;

  bool must_stay(int directory, const char* name) const;
  int remove(int directory, const std::string& name);
};

bool Purge::must_stay(int directory, const char* name) const {
  if (spare == Spare::nothing) return false;
  Handle handle;
  struct stat attributes;
  if (tree.identify(directory, name, handle, attributes) != 0) return false;
  IdEntry entry;
  const FileId id = ids.find(volume, handle);
  if (id == 0 || !ids.get(id, entry) || (entry.flags & (id_local | id_unlinked)) != 0) return false;
  return spare == Spare::known || S_ISDIR(attributes.st_mode) || attributes.st_nlink == 1;
}

/** Moves the folders inside `name` up into `directory`, removes its files, then itself. */
int Purge::remove(int directory, const std::string& name) {
  if (must_stay(directory, name.c_str())) return EUCLEAN;
  if (unlinkat(directory, name.c_str(), 0) == 0) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  const Fd folder(open_folder(directory, name.c_str()));
  if (!folder.valid()) return errno;
  std::vector<std::string> inside;
  if (const int error = list_names(folder.get(), inside); error != 0) return error;
  for (const std::string& each : inside) {
    if (must_stay(folder.get(), each.c_str())) return EUCLEAN;
    if (unlinkat(folder.get(), each.c_str(), 0) == 0) continue;
    if (errno != EISDIR && errno != EPERM) return errno;
    int error = EEXIST;
    while (error == EEXIST) {
      const std::string up = raised + std::to_string(next++);
      const int moved =
          renameat2(folder.get(), each.c_str(), directory, up.c_str(), RENAME_NOREPLACE);
      error = moved == 0 ? 0 : errno;
    }
    if (error != 0) return error;
  }
  return unlinkat(directory, name.c_str(), AT_REMOVEDIR) == 0 ? 0 : errno;
}

/** What lies in an orphanage, however deep: the files and how many names they have there. */
class Survey {
 public:
  Survey(const Tree& tree, const Ids& ids, uint8_t volume)
      : tree_(tree), ids_(ids), volume_(volume) {}
  int look(int directory) { return walk(directory, false, nullptr); }
  /** Takes the names away of files that have others outside; gathers the ids of the rest. */
  int strip(int directory, std::vector<FileId>& gone) { return walk(directory, true, &gone); }
  bool has_others(const struct stat& file) const {
    const auto found = names_.find(file.st_ino);
    return !S_ISDIR(file.st_mode) && found != names_.end() && file.st_nlink > found->second;
  }

 private:
  int walk(int directory, bool strip, std::vector<FileId>* gone);

  const Tree& tree_;
  const Ids& ids_;
  uint8_t volume_;
  std::unordered_map<ino_t, nlink_t> names_;
};

int Survey::walk(int directory, bool strip, std::vector<FileId>* gone) {
  std::vector<std::string> names;
  if (const int error = list_names(directory, names); error != 0) return error;
  for (const std::string& name : names) {
    Handle handle;
    struct stat now;
    if (const int error = tree_.identify(directory, name.c_str(), handle, now); error != 0) {
      return error;
    }
    if (strip && has_others(now)) {
      if (unlinkat(directory, name.c_str(), 0) != 0) return errno;
      names_[now.st_ino]--;
      continue;
    }
    if (!strip) names_[now.st_ino]++;
    if (gone != nullptr) {
      if (const FileId id = ids_.find(volume_, handle); id != 0) gone->push_back(id);
    }
    if (!S_ISDIR(now.st_mode)) continue;
    const Fd folder(open_folder(directory, name.c_str()));
    if (!folder.valid()) return errno;
    if (const int error = walk(folder.get(), strip, gone); error != 0) return error;
  }
  return 0;
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

int purge(const Tree& tree, const Ids& ids, uint8_t volume, int directory) {
  Purge purge{tree, ids, volume, Spare::known};
  std::vector<std::string> names;
  for (;;) {
    if (const int error = list_names(directory, names); error != 0) return error;
    if (names.empty()) return 0;
    for (const std::string& name : names) {
      if (const int error = purge.remove(directory, name); error != 0) return error;
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
  if (mkdirat(root, orphanage_name, 0700) != 0 && errno != EEXIST) return errno;
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
    name = "x" + std::to_string(next_++);
  } while (fd_.valid() && fstatat(fd_.get(), name.c_str(), &attributes, AT_SYMLINK_NOFOLLOW) == 0);
  return name;
}

int Orphanage::free_name_of(FileId id) {
  if (!fd_.valid()) return 0;
  const std::string own = name_of(id);
  if (renameat2(fd_.get(), own.c_str(), fd_.get(), free_name().c_str(), RENAME_NOREPLACE) == 0) {
    return 0;
  }
  return errno == ENOENT ? 0 : errno;
}

int Orphanage::take(int directory, const char* name, FileId id) {
  int fd = -1;
  if (const int error = get(fd); error != 0) return error;
  if (id != 0) {
    const std::string own = name_of(id);
    if (renameat2(directory, name, fd, own.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EEXIST) return errno;
  }
  const std::string to = free_name();
  return renameat2(directory, name, fd, to.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
}

bool Orphanage::has(FileId id, const OpenFile& file) const {
  struct stat self, found;
  return fd_.valid() && fstatat(fd_.get(), name_of(id).c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
         fstat(file.fd.get(), &self) == 0 && self.st_ino == found.st_ino &&
         self.st_dev == found.st_dev;
}

int Orphanage::give(FileId id, const OpenFile& file, int directory, const char* name,
                    unsigned flags) {
  if (!has(id, file)) return ENOENT;
  const int moved = renameat2(fd_.get(), name_of(id).c_str(), directory, name, flags);
  return moved == 0 ? 0 : errno;
}

int Orphanage::leave(FileId id, const OpenFile& file) {
  struct stat self;
  if (!has(id, file) || fstat(file.fd.get(), &self) != 0 || self.st_nlink < 2) return 0;
  return unlinkat(fd_.get(), name_of(id).c_str(), 0) == 0 ? 0 : errno;
}

int Orphanage::tidy() {
  if (!fd_.valid()) return 0;
  std::vector<std::string> names;
  if (const int error = list_names(fd_.get(), names); error != 0) return error;
  if (!names.empty()) return 0;
  fd_.reset();
  if (const int error = save(); error != 0) return error;
  if (unlinkat(tree_.root_fd(volume_), orphanage_name, AT_REMOVEDIR) != 0) return errno;
  return restore();
}

/** True: an inode record made it, and the record with its name is still to come. */
bool Orphanage::has_no_name_yet(const char* name) const {
  Handle handle;
  struct stat attributes;
  IdEntry entry;
  if (tree_.identify(fd_.get(), name, handle, attributes) != 0) return false;
  const FileId id = ids_.find(volume_, handle);
  return id != 0 && ids_.get(id, entry) && (entry.flags & id_nameless) != 0 &&
         !S_ISDIR(attributes.st_mode);
}

int Orphanage::empty() {
  if (!fd_.valid()) return 0;
  Purge purge{tree_, ids_, volume_, Spare::last};
  std::vector<std::string> names;
  for (bool any = true; any;) {
    any = false;
    if (const int error = list_names(fd_.get(), names); error != 0) return error;
    for (const std::string& name : names) {
      if (has_no_name_yet(name.c_str())) continue;
      if (const int error = purge.remove(fd_.get(), name); error != 0) return error;
      any = true;
    }
  }
  return tidy();
}

/** Asks about what a name is; when a folder is not kept, about all that is in it. */
int Orphanage::offer(const KeepOrphan& keep, int directory, const std::string& name, bool& kept) {
  Orphan orphan{volume_, directory, name.c_str(), 0, false, {}};
  Handle handle;
  IdEntry entry;
  int error = tree_.identify(directory, name.c_str(), handle, orphan.attributes);
  if (error != 0) return error;
  orphan.file = ids_.find(volume_, handle);
  if (orphan.file != 0 && ids_.get(orphan.file, entry)) {
    orphan.removed = (entry.flags & (id_unlinked | id_nameless)) == id_unlinked;
  }
  error = keep(orphan, kept);
  if (error != 0 || kept || !S_ISDIR(orphan.attributes.st_mode)) return error;
  const Fd folder(open_folder(directory, name.c_str()));
  if (!folder.valid()) return errno;
  std::vector<std::string> names;
  if (error = list_names(folder.get(), names); error != 0) return error;
  for (const std::string& each : names) {
    bool taken = false;
    if (error = offer(keep, folder.get(), each, taken); error != 0) return error;
  }
  return 0;
}

int Orphanage::empty(const KeepOrphan& keep, std::vector<FileId>& gone) {
  if (!fd_.valid()) return 0;
  Survey survey(tree_, ids_, volume_);
  if (const int error = survey.look(fd_.get()); error != 0) return error;
  Purge purge{tree_, ids_, volume_, Spare::nothing};
  std::vector<FileId> all;
  if (const int error = survey.strip(fd_.get(), all); error != 0) return error;
  std::vector<std::string> names;
  for (bool any = true; any;) {
    any = false;
    if (const int error = list_names(fd_.get(), names); error != 0) return error;
    for (const std::string& name : names) {
      if (has_no_name_yet(name.c_str())) continue;
      // What was inside a folder that is going has been asked about with it.
      bool kept = false;
      int error = 0;
      if (keep && !name.starts_with(raised)) error = offer(keep, fd_.get(), name, kept);
      if (error == 0 && !kept) error = purge.remove(fd_.get(), name);
      if (error != 0) return error;
      any = true;
    }
  }
  for (const FileId id : all) {
    IdEntry entry;
    const bool waits =
        ids_.get(id, entry) && (entry.flags & id_nameless) != 0 && entry.type != S_IFDIR;
    if (!waits) gone.push_back(id);
  }
  return tidy();
}

int drop_nameless(const Tree& tree, Ids& ids) {
  ids.for_each(
      [](void* context, const IdEntry& entry) {
        if ((entry.flags & id_nameless) != 0) {
          static_cast<Ids*>(context)->set_flags(entry.id, id_unlinked, id_nameless);
        }
        return true;
      },
      &ids);
  for (size_t volume = 0; volume < tree.volumes(); volume++) {
    Orphanage orphanage(tree, ids, static_cast<uint8_t>(volume));
    int error = orphanage.look();
    if (error == 0) error = orphanage.empty();
    if (error != 0) return error;
  }
  return 0;
}

}  // namespace holdfast::replica
