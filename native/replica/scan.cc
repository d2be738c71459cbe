#include "replica/scan.h"

#include <dirent.h>
#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <string>

#include "common/fd.h"

namespace holdfast::replica {

namespace {

struct CloseDir {
  void operator()(DIR* stream) const { closedir(stream); }
};
using Stream = std::unique_ptr<DIR, CloseDir>;

/** A stream of its own over an open directory. */
Stream list(int directory) {
  Fd fd(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return nullptr;
  Stream stream(fdopendir(fd.get()));
  if (stream) fd.release();
  return stream;
}

bool is_dot(const char* name) {
  return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/** What a file system puts into its own root; empty, it is no content. */
constexpr const char* lost_found = "lost+found";

Result<bool> has_entries(int directory, bool root) {
  Stream stream = list(directory);
  if (!stream) return Result<bool>::failure(errno, "open");
  errno = 0;
  while (const dirent* entry = readdir(stream.get())) {
    const char* name = entry->d_name;
    if (is_dot(name)) continue;
    if (root && is_internal_name(name)) continue;
    if (root && strcmp(name, lost_found) == 0) {
      Fd inner(openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      const auto inside = inner.valid() ? has_entries(inner.get(), false) : Result<bool>{true};
      if (inside.ok() && !inside.value) continue;
    }
    return Result<bool>::success(true);
  }
  if (errno != 0) return Result<bool>::failure(errno, "readdir");
  return Result<bool>::success(false);
}

/** A directory that is still to be walked. */
struct Place {
  FileId id;
  std::string path;  // below the volume's root, with a slash at its end; of the root: empty
  bool local;        // not replicated, and what is in it neither
};

struct Scan {
  const Tree& tree;
  Ids& ids;
  const Skip& skip;
  uint64_t epoch;
  std::deque<Place> directories;
  uint64_t made = 0;
};

/** Gives one name's file an id, and that id what the name says. 0 or errno. */
int visit(Scan& scan, const Place& in, uint8_t volume, dev_t device, int directory,
          const char* name) {
  IdEntry entry;
  struct stat attributes;
  const int error = scan.tree.identify(directory, name, entry.handle, attributes);
  if (error == ENOENT) return 0;
  if (error != 0) return error;
  if (attributes.st_dev != device) return 0;  // another file system is mounted there
  const bool is_directory = S_ISDIR(attributes.st_mode);
  const std::string path = in.path + name;
  const bool local = in.local || scan.skip.matches(path, is_directory);
  FileId id = scan.ids.find(volume, entry.handle);
  if (id != 0) {
    // A server that was killed between giving a file this name and saying so.
    constexpr uint8_t none = id_local | id_unlinked;
    scan.ids.set_flags(id, local ? id_local : 0, local ? 0 : none);
  } else {
    id = scan.ids.allocate(scan.epoch);
    entry.id = id;
    entry.type = attributes.st_mode & S_IFMT;
    entry.volume = volume;
    entry.flags = local ? id_local : 0;
    if (const int full = scan.ids.put(entry); full != 0) return full;
    scan.made++;
  }
  if (is_directory) scan.directories.push_back({id, path + "/", local});
  return 0;
}

int visit_directory(Scan& scan, Tree& tree, const Place& place) {
  const auto file = tree.open(place.id);
  if (file.error == ESTALE) return 0;
  if (!file.ok()) return file.error;
  struct stat attributes;
  if (fstat(file.value->fd.get(), &attributes) != 0) return errno;
  Stream stream = list(file.value->fd.get());
  if (!stream) return errno;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) return errno;
    if (is_dot(entry->d_name)) continue;
    if (place.id <= max_root && is_internal_name(entry->d_name)) continue;
    const int error = visit(scan, place, file.value->volume, attributes.st_dev, dirfd(stream.get()),
                            entry->d_name);
    if (error != 0) return error;
  }
}

}  // namespace

Result<bool> is_empty(int root) {
  auto entries = has_entries(root, true);
  entries.value = !entries.value;
  return entries;
}

Result<bool> is_empty(const Tree& tree, uint8_t volume) {
  return is_empty(tree.root_fd(volume));
}

Result<uint64_t> scan_ids(Tree& tree, Ids& ids, uint64_t epoch, const Skip& skip) {
  Scan scan{tree, ids, skip, epoch, {}};
  for (size_t volume = 0; volume < tree.volumes(); volume++) {
    scan.directories.push_back({volume + 1, "", false});
  }
  while (!scan.directories.empty()) {
    const Place place = std::move(scan.directories.front());
    scan.directories.pop_front();
    const int error = visit_directory(scan, tree, place);
    if (error != 0) return Result<uint64_t>::failure(error, "scan");
  }
  return Result<uint64_t>::success(scan.made);
}

}  // namespace holdfast::replica
