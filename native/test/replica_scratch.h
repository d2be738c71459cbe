#pragma once
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "common/fd.h"

/** Folders for the replica tests: on memory, so that thousands of them cost little. */
namespace holdfast::replica::test {

/** Removes what `name` in `directory` is, with everything below it. */
inline void remove_tree(int directory, const char* name) {
  if (unlinkat(directory, name, 0) == 0 || (errno != EISDIR && errno != EPERM)) return;
  const int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0) {
    DIR* entries = fdopendir(fd);
    while (const dirent* entry = readdir(entries)) {
      if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) {
        remove_tree(fd, entry->d_name);
      }
    }
    closedir(entries);
  }
  unlinkat(directory, name, AT_REMOVEDIR);
}

/** A folder of its own, removed at the end. HOLDFAST_TEST_FOLDER says where (default /dev/shm). */
class Scratch {
 public:
  explicit Scratch(const char* otherwise = "/dev/shm") {
    const char* base = std::getenv("HOLDFAST_TEST_FOLDER");
    path = std::string(base != nullptr ? base : otherwise) + "/holdfast-test-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) std::abort();
  }
  ~Scratch() { remove_tree(AT_FDCWD, path.c_str()); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path;
  std::string at(const std::string& name) const { return path + "/" + name; }
  Fd folder(const std::string& name) const {
    mkdir(at(name).c_str(), 0755);
    return Fd(open(at(name).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
};

inline bool is_root() {
  return geteuid() == 0;
}

}  // namespace holdfast::replica::test
