// replica_marked STATE DIR OTHER_IDS OTHER_DIR: after a loss of power, whether the marks in a
// primary's state folder cover everything in which its directory differs from its peer's.
//
// Files are compared by their ids, so the table of ids of both is needed (it is opened for writing:
// give it a copy). Prints a line for each difference that no mark covers, and at the end how many
// differences there were; the exit code is 1 when one was not covered.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "common/fd.h"
#include "replica/ids.h"
#include "replica/marks.h"

namespace {

using holdfast::Fd;
using namespace holdfast::replica;

void require(bool ok, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "replica_marked: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(2);
}

struct File {
  std::string path;  // below the directory
  struct stat now {};
  std::map<std::string, FileId> names;  // of a directory; 0: a file without an id
};

/** One server's directory. */
class Side {
 public:
  Side(const std::string& directory, const std::string& ids) {
    require(ids_.open(ids).ok(), ids);
    root_.reset(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    require(root_.valid(), directory);
    read(1, "");
  }
  const std::map<FileId, File>& files() const { return files_; }
  /** The region with this number; what is beyond the end is not in it. */
  std::string region(const File& file, uint64_t number) const {
    const Fd fd(openat(root_.get(), file.path.c_str(), O_RDONLY | O_CLOEXEC));
    require(fd.valid(), file.path);
    std::string out(mark_region, 0);
    const ssize_t got = pread(fd.get(), out.data(), out.size(), off_t(number * mark_region));
    require(got >= 0, file.path);
    return out;
  }

 private:
  void read(FileId id, const std::string& path) {
    File& file = files_[id == 0 ? --unknown_ : id];
    file.path = path.empty() ? "." : path;
    require(fstatat(root_.get(), file.path.c_str(), &file.now, AT_SYMLINK_NOFOLLOW) == 0, path);
    if (!S_ISDIR(file.now.st_mode)) return;
    const int fd = openat(root_.get(), file.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    require(fd >= 0, path);
    DIR* entries = fdopendir(fd);
    while (const dirent* entry = readdir(entries)) {
      const std::string name = entry->d_name;
      const bool own = path.empty() && (name.starts_with(".holdfast") || name == "lost+found");
      if (name == "." || name == ".." || own) continue;
      const FileId found = id_of(fd, name);
      file.names[name] = found;
      read(found, path.empty() ? name : path + "/" + name);
    }
    closedir(entries);
  }
  FileId id_of(int directory, const std::string& name) const {
    union {
      file_handle head;
      char bytes[sizeof(file_handle) + max_handle];
    } kernel{};
    kernel.head.handle_bytes = max_handle;
    int mount = 0;
    require(name_to_handle_at(directory, name.c_str(), &kernel.head, &mount, 0) == 0, name);
    Handle handle;
    handle.type = kernel.head.handle_type;
    handle.size = kernel.head.handle_bytes;
    std::memcpy(handle.bytes, kernel.head.f_handle, handle.size);
    return ids_.find(0, handle);
  }

  Ids ids_;
  Fd root_;
  std::map<FileId, File> files_;
  FileId unknown_ = 0;  // numbers for files without an id, from the highest down
};

class Check {
 public:
  Check(const Marked& marked, const Side& here, const Side& there)
      : marked_(marked), here_(here), there_(there) {}

  int run() {
    for (const auto& [id, file] : here_.files()) {
      const auto other = there_.files().find(id);
      if (other != there_.files().end()) compare(id, file, other->second);
    }
    std::printf("%d differences, %d not covered; %zu marks in %llu generations\n", found_, lost_,
                marked_.marks.size(), static_cast<unsigned long long>(marked_.generations));
    return lost_ == 0 ? 0 : 1;
  }

 private:
  bool covered(FileId id, MarkWhat what, uint32_t region) const {
    if (marked_.everything || (marked_.first_new != 0 && id >= marked_.first_new)) return true;
    return std::ranges::binary_search(marked_.marks, Mark{id, region, uint32_t(what)});
  }
  void differs(FileId id, const File& file, const char* what, bool is_covered) {
    found_++;
    if (is_covered) return;
    lost_++;
    std::printf("%s %s (%llx) is not marked\n", file.path.c_str(), what,
                static_cast<unsigned long long>(id));
  }
  void compare(FileId id, const File& a, const File& b) {
    const bool names = covered(id, MarkWhat::names, 0);
    const bool inode = covered(id, MarkWhat::inode, 0);
    if (a.names != b.names) differs(id, a, "names", names);
    const bool owner = a.now.st_uid == b.now.st_uid && a.now.st_gid == b.now.st_gid;
    if (a.now.st_mode != b.now.st_mode || !owner) differs(id, a, "attributes", inode);
    const timespec &x = a.now.st_mtim, &y = b.now.st_mtim;
    if (x.tv_sec != y.tv_sec || x.tv_nsec != y.tv_nsec) differs(id, a, "mtime", inode || names);
    if (!S_ISREG(a.now.st_mode) || !S_ISREG(b.now.st_mode)) return;
    if (a.now.st_size != b.now.st_size) differs(id, a, "size", inode);
    const auto size = uint64_t(std::max(a.now.st_size, b.now.st_size));
    for (uint64_t number = 0; number * mark_region < size; number++) {
      if (here_.region(a, number) == there_.region(b, number)) continue;
      differs(
          id, a, "data",
          covered(id, MarkWhat::data, uint32_t(number)) || covered(id, MarkWhat::data, mark_whole));
    }
  }

  const Marked& marked_;
  const Side& here_;
  const Side& there_;
  int found_ = 0;
  int lost_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: replica_marked STATE DIR OTHER_IDS OTHER_DIR\n");
    return 2;
  }
  const auto marked = Marks::read(argv[1]);
  require(marked.ok(), argv[1]);
  const Side here(argv[2], std::string(argv[1]) + "/ids");
  const Side there(argv[4], argv[3]);
  return Check(marked.value, here, there).run();
}
