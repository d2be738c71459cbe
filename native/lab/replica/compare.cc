// replica_tool compare A B [--most N] [--skip NAME]: compares two trees: names, types, content,
// modes, owners, mtimes, xattrs with ACLs, hard links, targets, device numbers. Holes and bytes of
// zero are the same. --skip: names in the two roots that begin so are left out, as are the engine's
// own xattrs. Exit code 0 equal, 1 different.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>

#include "tool.h"

namespace holdfast::replica_tool {
namespace {

/** How a file lies on one side: the first name at which it was met, by device and inode. */
using FirstNames = std::map<std::pair<dev_t, ino_t>, std::string>;

class Comparison {
 public:
  Comparison(uint64_t most, std::string skip) : most_(most), skip_(std::move(skip)) {}
  void directories(int a, int b, const std::string& path);
  uint64_t differences() const { return differences_; }
  uint64_t files() const { return files_; }

 private:
  void differ(const std::string& path, const std::string& what);
  void entry(int a, int b, const std::string& name, const std::string& path);
  bool attributes(const struct stat& a, const struct stat& b, const std::string& path);
  void content(int a, int b, const char* name, const std::string& path);
  void xattrs(int a, int b, const std::string& path);

  uint64_t most_;
  std::string skip_;
  uint64_t differences_ = 0;
  uint64_t files_ = 0;
  FirstNames first_a_, first_b_;
};

void Comparison::differ(const std::string& path, const std::string& what) {
  differences_++;
  if (differences_ <= most_) std::printf("%s: %s\n", encode(path).c_str(), what.c_str());
}

std::set<std::string> names_in(int directory) {
  std::set<std::string> names;
  const int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  require(fd >= 0, "open of a directory");
  DIR* stream = fdopendir(fd);
  errno = 0;
  while (const dirent* found = readdir(stream)) {
    if (std::strcmp(found->d_name, ".") != 0 && std::strcmp(found->d_name, "..") != 0) {
      names.insert(found->d_name);
    }
  }
  require(errno == 0, "readdir");
  closedir(stream);
  return names;
}

void Comparison::directories(int a, int b, const std::string& path) {
  xattrs(a, b, path.empty() ? "." : path);
  std::set<std::string> left = names_in(a), right = names_in(b);
  if (path.empty()) {
    const auto skipped = [this](const std::string& name) { return name.starts_with(skip_); };
    std::erase_if(left, skipped);
    std::erase_if(right, skipped);
  }
  for (const auto& name : left) {
    if (!right.contains(name)) differ(path + name, "only in the first");
  }
  for (const auto& name : right) {
    if (!left.contains(name)) differ(path + name, "only in the second");
  }
  for (const auto& name : left) {
    if (right.contains(name)) entry(a, b, name, path + name);
  }
}

std::string text_of(const timespec& time) {
  char text[48];
  std::snprintf(text, sizeof(text), "%ld.%09ld", time.tv_sec, time.tv_nsec);
  return text;
}

bool Comparison::attributes(const struct stat& a, const struct stat& b, const std::string& path) {
  const auto number = [&](const char* what, uint64_t left, uint64_t right) {
    if (left == right) return;
    differ(path, std::string(what) + " " + std::to_string(left) + " and " + std::to_string(right));
  };
  if ((a.st_mode & S_IFMT) != (b.st_mode & S_IFMT)) {
    differ(path, "another type of file");
    return false;
  }
  number("mode", a.st_mode & 07777, b.st_mode & 07777);
  number("owner", a.st_uid, b.st_uid);
  number("group", a.st_gid, b.st_gid);
  number("links", a.st_nlink, b.st_nlink);
  if (S_ISCHR(a.st_mode) || S_ISBLK(a.st_mode)) number("device", a.st_rdev, b.st_rdev);
  if (!S_ISDIR(a.st_mode)) {
    number("size", static_cast<uint64_t>(a.st_size), static_cast<uint64_t>(b.st_size));
  }
  const std::string left = text_of(a.st_mtim), right = text_of(b.st_mtim);
  if (left != right) differ(path, "mtime " + left + " and " + right);
  return true;
}

void Comparison::entry(int a, int b, const std::string& name, const std::string& path) {
  files_++;
  struct stat left {
  }, right{};
  if (fstatat(a, name.c_str(), &left, AT_SYMLINK_NOFOLLOW) != 0 ||
      fstatat(b, name.c_str(), &right, AT_SYMLINK_NOFOLLOW) != 0) {
    differ(path, "stat: " + error_name(errno));
    return;
  }
  if (!attributes(left, right, path)) return;
  if (S_ISDIR(left.st_mode)) {
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const Fd in_a(openat(a, name.c_str(), flags)), in_b(openat(b, name.c_str(), flags));
    require(in_a.valid() && in_b.valid(), path);
    directories(in_a.get(), in_b.get(), path + "/");
    return;
  }
  if (left.st_nlink > 1) {
    const auto& one = first_a_.emplace(std::pair(left.st_dev, left.st_ino), path).first->second;
    const auto& two = first_b_.emplace(std::pair(right.st_dev, right.st_ino), path).first->second;
    if (one != two) differ(path, "linked to " + encode(one) + " and to " + encode(two));
    if (one != path && one == two) return;  // the same file was compared under its first name
  }
  if (S_ISLNK(left.st_mode)) {
    char one[4097] = {}, two[4097] = {};
    require(readlinkat(a, name.c_str(), one, 4096) >= 0, path);
    require(readlinkat(b, name.c_str(), two, 4096) >= 0, path);
    if (std::strcmp(one, two) != 0) differ(path, "another target");
  }
  if (S_ISREG(left.st_mode)) content(a, b, name.c_str(), path);
  const Fd of_a(openat(a, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  const Fd of_b(openat(b, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!S_ISLNK(left.st_mode)) xattrs(of_a.get(), of_b.get(), path);
}

/** Reads until `size` bytes are there or the file ends. */
ssize_t read_full(int fd, char* to, size_t size, off_t offset) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = pread(fd, to + done, size - done, offset + static_cast<off_t>(done));
    if (got < 0) return -1;
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

/** The next offset from `at` on at which either file has data; -1: nowhere. */
off_t next_data(int a, int b, off_t at) {
  const off_t left = lseek(a, at, SEEK_DATA), right = lseek(b, at, SEEK_DATA);
  if (left < 0) return right;
  return right < 0 || left < right ? left : right;
}

void Comparison::content(int a, int b, const char* name, const std::string& path) {
  constexpr size_t chunk = 256 * 1024;
  static char left[chunk], right[chunk];
  const Fd one(openat(a, name, O_RDONLY | O_CLOEXEC)), two(openat(b, name, O_RDONLY | O_CLOEXEC));
  if (!one.valid() || !two.valid()) return differ(path, "open: " + error_name(errno));
  off_t at = 0;
  while ((at = next_data(one.get(), two.get(), at)) >= 0) {
    const ssize_t got = read_full(one.get(), left, chunk, at);
    const ssize_t other = read_full(two.get(), right, chunk, at);
    if (got < 0 || other < 0) return differ(path, "read: " + error_name(errno));
    const auto size = static_cast<size_t>(got < other ? got : other);
    for (size_t i = 0; i < size; i++) {
      if (left[i] == right[i]) continue;
      return differ(path, "content from byte " + std::to_string(at + static_cast<off_t>(i)));
    }
    if (got != other || size == 0) return;  // sizes were compared before
    at += got;
  }
}

std::map<std::string, std::string> xattrs_of(int fd, const std::string& path) {
  // Through /proc, so that it works for descriptors of any kind, also O_PATH.
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  static char list[65536], value[65536];
  std::map<std::string, std::string> found;
  const ssize_t size = listxattr(link.c_str(), list, sizeof(list));
  require(size >= 0 || errno == EOPNOTSUPP, path);
  for (ssize_t at = 0; at < size;) {
    const std::string name = list + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    if (name.starts_with("trusted.holdfast.")) continue;
    const ssize_t got = getxattr(link.c_str(), name.c_str(), value, sizeof(value));
    require(got >= 0, path + " " + name);
    found.emplace(name, std::string(value, static_cast<size_t>(got)));
  }
  return found;
}

void Comparison::xattrs(int a, int b, const std::string& path) {
  const auto left = xattrs_of(a, path), right = xattrs_of(b, path);
  for (const auto& [name, value] : left) {
    const auto other = right.find(name);
    if (other == right.end()) {
      differ(path, "xattr " + encode(name) + " only in the first");
    } else if (other->second != value) {
      differ(path, "xattr " + encode(name) + " has another value");
    }
  }
  for (const auto& [name, value] : right) {
    if (!left.contains(name)) differ(path, "xattr " + encode(name) + " only in the second");
  }
}

}  // namespace

int run_compare(const Args& args) {
  const Options options = parse_options(args, {{"most", "20"}, {"skip", ".holdfast"}}, 2);
  const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  const Fd a(open(options.words[0].c_str(), flags)), b(open(options.words[1].c_str(), flags));
  require(a.valid(), options.words[0]);
  require(b.valid(), options.words[1]);
  Comparison comparison(options.number("most"), options.text("skip"));
  comparison.directories(a.get(), b.get(), "");
  std::printf("compare: %lu names, %lu differences\n", comparison.files(),
              comparison.differences());
  return comparison.differences() == 0 ? 0 : 1;
}

}  // namespace holdfast::replica_tool
