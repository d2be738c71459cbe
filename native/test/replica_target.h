#pragma once
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "replica/changes.h"
#include "replica/undo.h"
#include "replica/xattrs.h"
#include "test/replica_copy.h"
#include "test/replica_statements_of.h"

/** The target of a resync: its directories, its ids, its undo log. */
namespace holdfast::replica::test {

/** All that a directory is, as text: one line for each file. */
class Picture {
 public:
  explicit Picture(const Life& life) : life_(life) {
    for (size_t v = 0; v < life.tree.volumes(); v++) {
      const auto volume = static_cast<uint8_t>(v);
      file(volume, "/" + std::to_string(v), Fd(openat(life.tree.root_fd(volume), ".", O_PATH)));
    }
  }
  std::map<std::string, std::string> lines;

  /** The first line that another one has otherwise; empty: none. */
  std::string difference(const Picture& now) const {
    for (const auto& [path, line] : lines) {
      const auto found = now.lines.find(path);
      if (found == now.lines.end()) return path + " is gone";
      if (found->second != line) return path + " was " + line + " and is " + found->second;
    }
    for (const auto& [path, line] : now.lines) {
      if (!lines.contains(path)) return path + " is new: " + line;
    }
    return "";
  }

 private:
  void file(uint8_t volume, const std::string& path, const Fd& fd) {
    struct stat now;
    Handle handle;
    REQUIRE(life_.tree.identify(fd.get(), handle, now) == 0);
    std::ostringstream line;
    line << now.st_ino << " id " << life_.ids.find(volume, handle) << std::oct << " mode "
         << now.st_mode << std::dec << ' ' << now.st_uid << ':' << now.st_gid << " at "
         << now.st_mtim.tv_sec << '.' << now.st_mtim.tv_nsec << " device " << now.st_rdev;
    if (!S_ISDIR(now.st_mode)) line << " links " << now.st_nlink;
    std::vector<uint8_t> xattrs;
    REQUIRE(read_xattrs(ProcPath(fd.get()).text, true, xattrs) == 0);
    line << " xattrs " << std::string(xattrs.begin(), xattrs.end());
    if (S_ISREG(now.st_mode)) {
      const Fd readable(open(ProcPath(fd.get()).text, O_RDONLY));
      std::string content(static_cast<size_t>(now.st_size), 0);
      REQUIRE(pread(readable.get(), content.data(), content.size(), 0) == now.st_size);
      line << " size " << now.st_size << " content " << std::hash<std::string>()(content);
    }
    if (S_ISLNK(now.st_mode)) {
      char target[256];
      const ssize_t size = readlinkat(fd.get(), "", target, sizeof target);
      line << " target " << std::string(target, static_cast<size_t>(size));
    }
    lines[path] = line.str();
    if (!S_ISDIR(now.st_mode)) return;
    std::vector<std::string> names;
    REQUIRE(list_names(fd.get(), names) == 0);
    for (const std::string& name : names) {
      file(volume, path + "/" + name, Fd(openat(fd.get(), name.c_str(), O_PATH | O_NOFOLLOW)));
    }
  }

  const Life& life_;
};

struct Target {
  explicit Target(const Copy& copy, const char* table = "ids", uint64_t memory = 0)
      : life(copy, table),
        undo(life.tree, life.ids, memory),
        changes(life.tree, life.ids, nullptr) {
    REQUIRE(undo.open(copy.file("undo")).ok());
  }
  Life life;
  Undo undo;
  Changes changes;
};

/** One volume, for files that a test makes by hand. */
struct World {
  History history{1, {}};
  Copy copy{history};

  /** Gives a path of the volume an id. */
  void know(Life& life, const std::string& path, FileId id) const {
    IdEntry entry;
    struct stat now;
    const Fd fd(open((copy.scratch.at("v1") + "/" + path).c_str(), O_PATH | O_NOFOLLOW));
    REQUIRE(life.tree.identify(fd.get(), entry.handle, now) == 0);
    entry.id = id;
    entry.type = now.st_mode & S_IFMT;
    REQUIRE(life.ids.put(entry) == 0);
  }
  std::string at(const std::string& path) const { return copy.scratch.at("v1/" + path); }
  void write(const std::string& path, const std::string& content) const {
    std::ofstream(at(path), std::ios::binary) << content;
  }
  std::string read(const std::string& path) const {
    std::ifstream in(at(path), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

}  // namespace holdfast::replica::test
