// Listings, positions in them, and paths that are deeper than PATH_MAX.
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "posix_util.h"

namespace holdfast::replica_tool {

static std::string numbered(int i) {
  return "entry-" + std::to_string(i);
}

static std::multiset<std::string> names_in(DIR* directory) {
  std::multiset<std::string> names;
  while (const dirent* entry = readdir(directory)) names.insert(entry->d_name);
  return names;
}

static void listings(Table& t) {
  const int count = 1500;
  require(mkdir("big", 0755) == 0, "big");
  for (int i = 0; i < count; i++) make("big/" + numbered(i));
  DIR* directory = opendir("big");
  auto names = names_in(directory);
  t.number("entries", static_cast<long>(names.size()));
  t.truth("with . and ..", names.contains(".") && names.contains(".."));
  t.truth("each once", std::set(names.begin(), names.end()).size() == names.size());
  t.truth("no more at the end", readdir(directory) == nullptr);
  rewinddir(directory);
  t.number("all again", static_cast<long>(names_in(directory).size()));
  make("big/new");
  rewinddir(directory);
  t.truth("a new one after rewinddir", names_in(directory).contains("new"));
  require(unlink("big/new") == 0, "unlink");
  rewinddir(directory);
  std::vector<std::pair<long, std::string>> places;
  for (int i = 0; i < 700; i++) {
    const long place = telldir(directory);
    const dirent* entry = readdir(directory);
    places.emplace_back(place, entry->d_name);
  }
  bool right = true;
  for (const size_t i : {size_t{650}, size_t{3}, size_t{699}, size_t{0}, size_t{350}}) {
    seekdir(directory, places[i].first);
    right = right && readdir(directory)->d_name == places[i].second;
  }
  t.truth("seekdir goes back to telldir", right);
  seekdir(directory, places[600].first);
  t.number("what follows a seekdir", static_cast<long>(names_in(directory).size()));
  closedir(directory);
}

static void removals(Table& t) {
  DIR* directory = opendir("big");
  int removed = 0;
  bool good = true;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    good = good && unlinkat(dirfd(directory), entry->d_name, 0) == 0;
    removed++;
  }
  t.truth("each listed one is removed", good);
  t.number("all are seen while being removed", removed);
  closedir(directory);
  t.did("and the directory is empty", rmdir("big"));
  require(mkdir("half", 0755) == 0, "half");
  for (int i = 0; i < 1000; i++) make("half/" + numbered(i));
  directory = opendir("half");
  std::set<std::string> seen;
  for (int i = 0; i < 100; i++) seen.insert(readdir(directory)->d_name);
  for (int i = 0; i < 1000; i += 2) unlink(("half/" + numbered(i)).c_str());
  for (const auto& name : names_in(directory)) seen.insert(name);
  bool complete = true;
  for (int i = 1; i < 1000; i += 2) complete = complete && seen.contains(numbered(i));
  t.truth("what stays is seen while others go", complete);
  closedir(directory);
}

static void types(Table& t) {
  require(mkdir("types", 0755) == 0 && mkdir("types/d", 0755) == 0, "types");
  make("types/f");
  require(symlink("x", "types/l") == 0 && mkfifo("types/p", 0644) == 0, "types");
  require(mknod("types/c", S_IFCHR | 0644, 0x103) == 0, "types");
  require(mknod("types/s", S_IFSOCK | 0644, 0) == 0, "types");
  DIR* directory = opendir("types");
  std::set<std::string> lines;
  bool inodes = true;
  while (const dirent* entry = readdir(directory)) {
    lines.insert(std::string(entry->d_name) + ":" + std::to_string(entry->d_type));
    const bool own = std::string(entry->d_name) != "..";
    if (own)
      inodes = inodes && stat_of(std::string("types/") + entry->d_name).st_ino == entry->d_ino;
  }
  std::string all;
  for (const auto& line : lines) all += line + " ";
  t.is("types in a listing", all);
  t.truth("inodes in a listing", inodes);
  closedir(directory);
  t.truth("all on one device", stat_of("types").st_dev == stat_of("types/f").st_dev);
  DIR* open_one = opendir("types/d");
  t.did("removed while being read", rmdir("types/d"));
  struct stat attributes {};
  t.did("can still be asked for", fstat(dirfd(open_one), &attributes));
  t.number("has no links", static_cast<long>(attributes.st_nlink));
  closedir(open_one);
  require(mkdir("odd", 0755) == 0, "odd");
  const std::string name = "\x01\xff\n";
  make("odd/" + name);
  directory = opendir("odd");
  t.truth("odd bytes in a listing", names_in(directory).contains(name));
  closedir(directory);
}

void posix_directory(Table& t) {
  listings(t);
  removals(t);
  types(t);
}

void posix_deep(Table& t) {
  const Fd start(open(".", O_RDONLY | O_DIRECTORY));
  const std::string name(200, 'd');
  int made = 0;
  for (; made < 60; made++) {
    if (mkdir(name.c_str(), 0755) != 0 || chdir(name.c_str()) != 0) break;
  }
  t.number("levels of 200 bytes", made);
  t.did("a file down there", shut(open("deepest", O_CREAT | O_RDWR, 0644)));
  t.did("a rename down there", rename("deepest", "deepest2"));
  t.did("a link down there", link("deepest2", "deepest3"));
  t.did("a chmod down there", chmod("deepest2", 0600));
  t.is("mode down there", mode_of("deepest3"));
  require(fchdir(start.get()) == 0, "fchdir");
  std::string path;
  for (int i = 0; i < 21; i++) path += name + "/";
  t.did("a path of more than 4096 bytes", access(path.c_str(), F_OK));
  for (int i = 0; i < made; i++) require(chdir(name.c_str()) == 0, "chdir");
  t.did("still there", access("deepest2", F_OK));
  t.did("unlink down there", unlink("deepest2"));
  t.did("and the other", unlink("deepest3"));
  int removed = 0;
  for (; removed < made; removed++) {
    if (chdir("..") != 0 || rmdir(name.c_str()) != 0) break;
  }
  t.number("levels removed", removed);
  require(fchdir(start.get()) == 0, "fchdir");
  for (int i = 0; i < 500; i++) {
    require(mkdir("n", 0755) == 0 && chdir("n") == 0, "mkdir");
  }
  t.did("five hundred levels", shut(open("f", O_CREAT | O_RDWR, 0644)));
  require(fchdir(start.get()) == 0, "fchdir");
  t.did("the top is moved", rename("n", "m"));
  std::string deep = "m";
  for (int i = 1; i < 500; i++) deep += "/n";
  t.did("and all goes with it", access((deep + "/f").c_str(), F_OK));
}

}  // namespace holdfast::replica_tool
