#include "replica/quarantine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>

#include "replica/scan.h"

namespace holdfast::replica {
namespace {

constexpr int max_same_name = 10000;
constexpr size_t max_path = 3000;  // what is longer could not be opened by it later

int open_folder(int directory, const char* name) {
  return openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/** Makes the folder where there is none, and opens it. */
int make_folder(int directory, const char* name, Fd& out) {
  if (mkdirat(directory, name, 0700) != 0 && errno != EEXIST) return errno;
  out.reset(open_folder(directory, name));
  return out.valid() ? 0 : errno;
}

void add_text(std::string& line, const char* key, std::string_view value) {
  static constexpr char digits[] = "0123456789ABCDEF";
  line += line.empty() ? "{\"" : ",\"";
  line += key;
  line += "\":\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte > 0x20 && byte < 0x7f && c != '"' && c != '%' && c != '=' && c != '\\';
    if (plain) {
      line += c;
      continue;
    }
    line += '%';
    line += digits[byte >> 4];
    line += digits[byte & 15];
  }
  line += '"';
}

const char* type_name(uint32_t mode) {
  return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "folder" : S_ISLNK(mode) ? "link" : "other";
}

std::string line_of(const std::string& path, const std::string& stored, const struct stat& now,
                    const std::string& reason) {
  char mtime[48];
  std::snprintf(mtime, sizeof mtime, "%lld.%09ld", static_cast<long long>(now.st_mtim.tv_sec),
                now.st_mtim.tv_nsec);
  std::string line;
  add_text(line, "path", path);
  if (!stored.empty()) add_text(line, "stored", stored);
  add_text(line, "type", type_name(now.st_mode));
  line += ",\"size\":" + std::to_string(S_ISREG(now.st_mode) ? now.st_size : 0);
  add_text(line, "mtime", mtime);
  add_text(line, "reason", reason);
  return line;
}

}  // namespace

Quarantine::Quarantine(Tree& tree, Ids& ids, const UndoPaths& paths,
                       const QuarantineOptions& options)
    : tree_(tree), ids_(ids), paths_(paths), options_(options), volumes_(tree.volumes()) {}

/** Making it does not change the root's mtime, also when the machine stops meanwhile: the mtime
 * lies in an attribute, and what looks for the orphanage finds it there. */
int Quarantine::make_root(int root, Fd& out) {
  out.reset(open_folder(root, quarantine_name));
  if (out.valid()) return 0;
  struct stat now;
  if (fstat(root, &now) != 0) return errno;
  const bool stored =
      fsetxattr(root, root_mtime_attribute, &now.st_mtim, sizeof now.st_mtim, 0) == 0;
  if (!stored && errno != EOPNOTSUPP) return errno;
  const int made = make_folder(root, quarantine_name, out);
  const timespec times[2] = {{0, UTIME_OMIT}, now.st_mtim};
  if (futimens(root, times) != 0) return errno;
  if (stored && fremovexattr(root, root_mtime_attribute) != 0) return errno;
  return made;
}

int Quarantine::open(uint8_t volume, Volume*& out) {
  out = &volumes_[volume];
  if (out->manifest.valid()) return 0;
  Fd root;
  if (const int error = make_root(tree_.root_fd(volume), root); error != 0) return error;
  if (folder_.empty()) {
    char when[32];
    const time_t now = options_.now_s;
    struct tm utc;
    if (gmtime_r(&now, &utc) == nullptr) return EINVAL;
    std::strftime(when, sizeof when, "%Y%m%d-%H%M%S", &utc);
    folder_ = std::string(when) + "-epoch" + std::to_string(options_.epoch);
  }
  if (const int error = make_folder(root.get(), folder_.c_str(), out->folder); error != 0) {
    return error;
  }
  if (const int error = make_folder(out->folder.get(), "files", out->stored); error != 0) {
    return error;
  }
  out->manifest.reset(openat(out->folder.get(), "manifest.jsonl",
                             O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  return out->manifest.valid() ? 0 : errno;
}

int Quarantine::keep(const Orphan& orphan, bool& kept) {
  kept = false;
  const bool own = options_.own_from != 0 && orphan.file >= options_.own_from;
  const bool foreign = orphan.file == 0 || options_.everything;
  if (orphan.removed || (!own && !foreign)) return 0;
  // Another name of a file that the source has.
  if (orphan.file != 0 && !S_ISDIR(orphan.attributes.st_mode) && orphan.attributes.st_nlink > 1) {
    return 0;
  }
  Handle handle;
  struct stat now;
  int error = tree_.identify(orphan.directory, orphan.name, handle, now);
  if (error != 0) return error;
  Volume* to = nullptr;
  if (error = open(orphan.volume, to); error != 0) return error;
  Stored what;
  what.path = paths_.path_of(orphan.volume, orphan.file, handle);
  what.reason = foreign ? "foreign" : "rolled_back";
  if (error = move(*to, orphan, what.path, what.stored); error != 0) return error;
  if (what.path.empty()) what.path = what.stored.substr(what.stored.rfind('/') + 1);
  kept = true;
  return note(*to, orphan.volume, to->folder.get(), what.stored, what);
}

/** Where it was, below `files`; where that cannot be, in `files/lost`. */
int Quarantine::move(Volume& to, const Orphan& orphan, const std::string& path,
                     std::string& stored) {
  if (!path.empty() && path.size() < max_path) {
    const int error = move_to(to, orphan, path, stored);
    if (error != ENOTDIR && error != ELOOP && error != ENAMETOOLONG) return error;
  }
  return move_to(to, orphan, std::string("lost/") + orphan.name, stored);
}

int Quarantine::move_to(Volume& to, const Orphan& orphan, const std::string& path,
                        std::string& stored) {
  Fd at(openat(to.stored.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!at.valid()) return errno;
  size_t from = 0;
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', from)) {
    Fd next;
    const std::string part = path.substr(from, slash - from);
    if (const int error = make_folder(at.get(), part.c_str(), next); error != 0) return error;
    at = std::move(next);
    from = slash + 1;
  }
  const std::string name = path.substr(from);
  for (int n = 0; n < max_same_name; n++) {
    const std::string free = n == 0 ? name : name + "~" + std::to_string(n);
    if (renameat2(orphan.directory, orphan.name, at.get(), free.c_str(), RENAME_NOREPLACE) == 0) {
      stored = "files/" + path.substr(0, from) + free;
      return 0;
    }
    if (errno != EEXIST) return errno;
  }
  return EEXIST;
}

/** A line for it, and for all that is in it; from here on they have no id. */
int Quarantine::note(Volume& to, uint8_t volume, int directory, const std::string& name,
                     const Stored& what) {
  Handle handle;
  struct stat now;
  if (const int error = tree_.identify(directory, name.c_str(), handle, now); error != 0) {
    return error;
  }
  if (const FileId id = ids_.find(volume, handle); id != 0) {
    // A name that was left behind when the file got its place.
    if (!S_ISDIR(now.st_mode) && now.st_nlink > 1) {
      return unlinkat(directory, name.c_str(), 0) == 0 ? 0 : errno;
    }
    tree_.drop(id);
    ids_.erase(id);
  }
  const int error = write_line(to, line_of(what.path, what.stored, now, what.reason) + "}\n");
  if (error != 0) return error;
  files_++;
  if (!S_ISDIR(now.st_mode)) return 0;
  const Fd folder(open_folder(directory, name.c_str()));
  if (!folder.valid()) return errno;
  std::vector<std::string> inside;
  if (const int failed = list_names(folder.get(), inside); failed != 0) return failed;
  for (const std::string& each : inside) {
    const Stored below{what.path + "/" + each, what.stored + "/" + each, what.reason};
    const int failed = note(to, volume, folder.get(), each, below);
    if (failed != 0) return failed;
  }
  return 0;
}

int Quarantine::write_line(Volume& to, const std::string& line) {
  const char* from = line.data();
  for (size_t left = line.size(); left > 0;) {
    const ssize_t put = write(to.manifest.get(), from, left);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return put < 0 ? errno : EIO;
    from += put;
    left -= static_cast<size_t>(put);
  }
  return 0;
}

int Quarantine::overwritten(std::vector<Overwritten> files) {
  std::sort(files.begin(), files.end(),
            [](const Overwritten& a, const Overwritten& b) { return a.file < b.file; });
  for (size_t volume = 0; volume < volumes_.size() && !files.empty(); volume++) {
    const auto v = static_cast<uint8_t>(volume);
    if (const int error = find_names(v, tree_.root_fd(v), "", files); error != 0) return error;
  }
  return 0;
}

int Quarantine::find_names(uint8_t volume, int directory, const std::string& path,
                           std::vector<Overwritten>& files) {
  std::vector<std::string> names;
  if (const int error = list_names(directory, names); error != 0) return error;
  for (const std::string& name : names) {
    if (files.empty()) return 0;
    if (path.empty() && is_internal_name(name)) continue;
    Handle handle;
    struct stat now;
    if (tree_.identify(directory, name.c_str(), handle, now) != 0) continue;
    const FileId id = ids_.find(volume, handle);
    if (id == 0) continue;
    const std::string here = path.empty() ? name : path + "/" + name;
    if (S_ISDIR(now.st_mode)) {
      const Fd folder(open_folder(directory, name.c_str()));
      if (!folder.valid()) continue;
      if (const int error = find_names(volume, folder.get(), here, files); error != 0) return error;
      continue;
    }
    const auto at = std::lower_bound(files.begin(), files.end(), id,
                                     [](const Overwritten& f, FileId i) { return f.file < i; });
    if (at == files.end() || at->file != id) continue;
    std::string line = line_of(here, "", now, "overwritten") + ",\"ranges\":[";
    for (const auto& [from, to] : at->ranges) {
      if (line.back() != '[') line += ',';
      line += "[" + std::to_string(from) + "," + std::to_string(to) + "]";
    }
    Volume* out = nullptr;
    if (const int error = open(volume, out); error != 0) return error;
    if (const int error = write_line(*out, line + "]}\n"); error != 0) return error;
    files.erase(at);
  }
  return 0;
}

int Quarantine::finish() {
  for (size_t volume = 0; volume < volumes_.size(); volume++) {
    Volume& at = volumes_[volume];
    if (!at.manifest.valid()) continue;
    if (fsync(at.manifest.get()) != 0) return errno;
    // All the folders on the way, too.
    if (syncfs(tree_.root_fd(static_cast<uint8_t>(volume))) != 0) return errno;
  }
  return 0;
}

}  // namespace holdfast::replica
