// replica_tool tree DIR --files N --seed S: fills DIR with N files of all kinds: sizes from nothing
// to a MiB, sparse ones, hard links, odd names, ACLs, xattrs, fifos, devices, symbolic links, deep
// paths.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "tool.h"

namespace holdfast::replica_tool {
namespace {

class Grower {
 public:
  Grower(int root, uint64_t seed) : random_(seed) { folders_.emplace_back(root); }
  void grow(uint64_t files);

 private:
  std::string name();
  int folder() { return folders_[random_.below(folders_.size())].get(); }
  void make_folder();
  void make_file(int where, const std::string& called);
  void make_sparse(int where, const std::string& called);
  void make_other(int where, const std::string& called);
  void decorate(int where, const std::string& called);
  void dig();

  Random random_;
  std::vector<Fd> folders_;
  uint64_t made_ = 0;
  // Where the last regular files are, for hard links: a folder's index and a name.
  std::vector<std::pair<int, std::string>> recent_;
};

std::string Grower::name() {
  std::string text = "f" + std::to_string(made_);
  if (random_.chance(90)) return text;
  const size_t length = 1 + random_.below(random_.chance(10) ? 240 : 20);
  for (size_t i = 0; i < length; i++) {
    const char c = static_cast<char>(1 + random_.below(255));
    text += c == '/' ? '\n' : c;
  }
  return text;
}

void Grower::make_folder() {
  const std::string called = "d" + std::to_string(folders_.size());
  const int parent = folder();
  require(mkdirat(parent, called.c_str(), 0755) == 0, called);
  const int fd = openat(parent, called.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  require(fd >= 0, called);
  folders_.emplace_back(fd);
}

void Grower::make_file(int where, const std::string& called) {
  const mode_t modes[] = {0644, 0600, 0755, 0444, 0666, 04755, 02755, 0};
  const int fd = openat(where, called.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  const Fd file(fd);
  require(fd >= 0, called);
  const size_t size = random_.chance(1)    ? 1 + random_.below(1 << 20)
                      : random_.chance(20) ? 0
                                           : random_.below(4096);
  std::string bytes(size, '\0');
  fill(bytes.data(), size, random_.next());
  write_all(fd, bytes);
  require(fchown(fd, static_cast<uid_t>(random_.below(3) * 1000), 100) == 0, called);
  require(fchmod(fd, modes[random_.below(8)]) == 0, called);
  const timespec times[2] = {{0, UTIME_OMIT},
                             {static_cast<time_t>(1'000'000'000 + random_.below(700'000'000)),
                              static_cast<long>(random_.below(1'000'000'000))}};
  if (random_.chance(70)) require(futimens(fd, times) == 0, called);
  if (recent_.size() < 100) recent_.emplace_back(where, called);
  recent_[random_.below(recent_.size())] = {where, called};
}

void Grower::make_sparse(int where, const std::string& called) {
  const Fd file(openat(where, called.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
  require(file.valid(), called);
  const off_t size = static_cast<off_t>(1 + random_.below(64u << 20));
  require(ftruncate(file.get(), size) == 0, called);
  for (uint64_t i = random_.below(4); i > 0; i--) {
    char bytes[512];
    fill(bytes, sizeof(bytes), random_.next());
    const auto at = static_cast<off_t>(random_.below(static_cast<uint64_t>(size)));
    require(pwrite(file.get(), bytes, sizeof(bytes), at) == sizeof(bytes), called);
  }
}

void Grower::make_other(int where, const std::string& called) {
  const char* text = called.c_str();
  switch (random_.below(4)) {
    case 0:
      require(mkfifoat(where, text, 0640) == 0, called);
      break;
    case 1:
      require(mknodat(where, text, S_IFCHR | 0600, 0x103) == 0, called);
      break;
    default: {
      std::string target(1 + random_.below(random_.chance(5) ? 3000 : 100), 't');
      target[0] = static_cast<char>(1 + random_.below(255));
      require(symlinkat(target.c_str(), where, text) == 0, called);
    }
  }
}

/** An ACL, as the kernel takes it: version 2, then {tag, permissions, id} (posix_acl_xattr.h). */
std::string some_acl(Random& random) {
  const struct {
    uint16_t tag, permissions;
    uint32_t id;
  } entries[] = {{1, 6, 0xffffffff},
                 {2, static_cast<uint16_t>(random.below(8)), 12001},
                 {4, 4, 0xffffffff},
                 {16, static_cast<uint16_t>(random.below(8)), 0xffffffff},
                 {32, 0, 0xffffffff}};
  return std::string("\x02\0\0\0", 4) +
         std::string(reinterpret_cast<const char*>(entries), sizeof(entries));
}

void Grower::decorate(int where, const std::string& called) {
  const Fd file(openat(where, called.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  require(file.valid(), called);
  if (random_.chance(50)) {
    const std::string acl = some_acl(random_);
    require(fsetxattr(file.get(), "system.posix_acl_access", acl.data(), acl.size(), 0) == 0,
            called);
  } else {
    char value[200];
    const size_t size = random_.below(sizeof(value));
    fill(value, size, random_.next());
    require(fsetxattr(file.get(), "user.tree", value, size, 0) == 0, called);
  }
}

/** A chain of folders with a path as long as tar can say it. */
void Grower::dig() {
  const std::string called(150, 'p');
  Fd at(dup(folders_[0].get()));
  for (int i = 0; i < 25; i++) {
    require(mkdirat(at.get(), called.c_str(), 0755) == 0, "deep folder");
    at.reset(openat(at.get(), called.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    require(at.valid(), "deep folder");
  }
  make_file(at.get(), "deepest");
  recent_.clear();  // it knows a descriptor that is closed now
}

void Grower::grow(uint64_t files) {
  dig();
  for (made_ = 1; made_ < files; made_++) {
    if (made_ % 100 == 1 && folders_.size() < 500) make_folder();
    const int where = folder();
    const std::string called = name();
    const uint64_t kind = random_.below(100);
    if (kind < 5 && !recent_.empty()) {
      const auto& [from, old] = recent_[random_.below(recent_.size())];
      require(linkat(from, old.c_str(), where, called.c_str(), 0) == 0, called);
    } else if (kind < 7) {
      make_sparse(where, called);
    } else if (kind < 12) {
      make_other(where, called);
    } else {
      make_file(where, called);
      if (random_.chance(5)) decorate(where, called);
    }
  }
  const std::string acl = some_acl(random_);
  for (size_t i = 1; i < folders_.size(); i += 10) {
    require(
        fsetxattr(folders_[i].get(), "system.posix_acl_default", acl.data(), acl.size(), 0) == 0,
        "default ACL");
  }
}

}  // namespace

int run_tree(const Args& args) {
  const Options options = parse_options(args, {{"files", "100000"}, {"seed", "1"}}, 1);
  const int root = open(options.words[0].c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  require(root >= 0, options.words[0]);
  umask(022);
  Grower grower(root, options.number("seed"));
  grower.grow(options.number("files"));
  std::printf("tree: %lu files\n", options.number("files"));
  return 0;
}

}  // namespace holdfast::replica_tool
