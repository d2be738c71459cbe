// Names: hard links, unlink, symbolic links, any byte.
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "posix_util.h"

namespace holdfast::replica_tool {

static long long links(const char* name) {
  return static_cast<long long>(stat_of(name).st_nlink);
}

static void hard_links(Table& t) {
  make("a", 0644, "content");
  t.did("link", link("a", "b"));
  t.number("two links", links("a"));
  t.truth("one inode", stat_of("a").st_ino == stat_of("b").st_ino);
  t.did("link over a file", link("a", "b"));
  t.did("link of nothing", link("none", "c"));
  require(mkdir("d", 0755) == 0, "d");
  t.did("link of a directory", link("d", "d2"));
  t.did("link into a directory", link("a", "d/a"));
  t.number("three links", links("b"));
  const Fd fd(open("b", O_WRONLY | O_APPEND));
  t.number("write through one", write(fd.get(), "+", 1));
  t.is("seen through another", content_of("d/a"));
  t.did("chmod through one", chmod("d/a", 0600));
  t.is("mode through another", mode_of("a"));
  t.did("unlink the first", unlink("a"));
  t.number("two are left", links("b"));
  t.is("content stays", content_of("b"));
  t.did("truncate through one", truncate("b", 3));
  t.number("size through another", stat_of("d/a").st_size);
  t.did("unlink the second", unlink("b"));
  t.number("one is left", links("d/a"));
  t.did("link with a slash", link("d/a", "e/"));
  require(symlink("d/a", "s") == 0, "s");
  t.did("link of a symbolic link", link("s", "s2"));
  t.truth("is the link itself", S_ISLNK(stat_of("s2").st_mode) && links("s2") == 2);
  t.did("link of its target", linkat(AT_FDCWD, "s", AT_FDCWD, "s3", AT_SYMLINK_FOLLOW));
  t.truth("is the target", S_ISREG(stat_of("s3").st_mode));
  const Fd target(open("d/a", O_RDONLY));
  t.did("link of a descriptor", linkat(target.get(), "", AT_FDCWD, "f", AT_EMPTY_PATH));
  t.number("counts", links("f"));
  for (int i = 0; i < 100; i++) {
    require(link("f", ("many" + std::to_string(i)).c_str()) == 0, "link");
  }
  t.number("a hundred more", links("f"));
}

static void unlinks(Table& t) {
  require(mkdir("ud", 0755) == 0 && mkdir("ud/x", 0755) == 0, "ud");
  make("uf");
  t.did("unlink of a directory", unlink("ud"));
  t.did("rmdir of a file", rmdir("uf"));
  t.did("rmdir of a full directory", rmdir("ud"));
  t.did("rmdir of .", rmdir("ud/x/."));
  t.did("rmdir of ..", rmdir("ud/x/.."));
  t.did("unlink of nothing", unlink("none"));
  t.did("rmdir of nothing", rmdir("none"));
  t.did("unlink below a file", unlink("uf/x"));
  t.did("unlink with a slash", unlink("uf/"));
  t.did("rmdir of an empty one", rmdir("ud/x"));
  t.number("a link less", links("ud"));
  t.did("mkdir over a file", mkdir("uf", 0755));
  t.did("mkdir over a directory", mkdir("ud", 0755));
  t.did("mkdir below nothing", mkdir("none/x", 0755));
  t.did("mkdir with a slash", mkdir("um/", 0755));
  t.did("mkdir of .", mkdir(".", 0755));
  require(symlink("uf", "us") == 0, "us");
  t.did("unlink of a symbolic link", unlink("us"));
  t.did("leaves its target", access("uf", F_OK));
  const Fd gone(open("um", O_RDONLY | O_DIRECTORY));
  t.did("rmdir of an open directory", rmdir("um"));
  t.did("create in a removed directory", openat(gone.get(), "x", O_CREAT | O_RDWR, 0644));
  t.did("mkdir in a removed directory", mkdirat(gone.get(), "x", 0755));
  struct stat attributes {};
  t.did("fstat of a removed directory", fstat(gone.get(), &attributes));
  t.number("its links", static_cast<long>(attributes.st_nlink));
  t.did("a name that was negative", access("later", F_OK));
  make("later");
  t.did("is there when it was made", access("later", F_OK));
  t.did("and gone", unlink("later"));
  t.did("when it was removed", access("later", F_OK));
}

static void bytes(Table& t) {
  bool all = true;
  for (int c = 1; c < 256; c++) {
    if (c == '/') continue;
    const std::string name = std::string("n") + static_cast<char>(c);
    all = all && shut(open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0644)) == 0;
  }
  t.truth("every byte is made", all);
  for (int c = 1; c < 256; c++) {
    if (c == '/') continue;
    const std::string name = std::string("n") + static_cast<char>(c);
    all = all && access(name.c_str(), F_OK) == 0 && unlink(name.c_str()) == 0;
  }
  t.truth("and found and removed", all);
  const std::string odd = "\xff\xfe new\nline \t*?\"'\\ \xc3\x28";
  t.did("odd name", mkdir(odd.c_str(), 0755));
  t.did("below the odd name", shut(open((odd + "/\n").c_str(), O_CREAT | O_RDWR, 0644)));
  t.did("names differ by case", shut(open("Case", O_CREAT | O_EXCL | O_RDWR, 0644)));
  t.did("lower case", shut(open("case", O_CREAT | O_EXCL | O_RDWR, 0644)));
  t.did("three dots", mkdir("...", 0755));
  t.did("leading dot", shut(open(".hidden", O_CREAT | O_RDWR, 0644)));
  const std::string longest(255, '\xee');
  t.did("255 odd bytes", mkdir(longest.c_str(), 0755));
  t.did("rename of 255 bytes", rename(longest.c_str(), std::string(255, '\xed').c_str()));
  t.did("rename to 256 bytes", rename("...", std::string(256, 'x').c_str()));
  t.did("link to 256 bytes", link("case", std::string(256, 'x').c_str()));
  t.did("symlink of 256 bytes", symlink("x", std::string(256, 'x').c_str()));
  t.did("mkdir of 256 bytes", mkdir(std::string(256, 'x').c_str(), 0755));
  t.did("unlink of 256 bytes", unlink(std::string(256, 'x').c_str()));
}

void posix_names(Table& t) {
  hard_links(t);
  unlinks(t);
  bytes(t);
}

static std::string target_of(const char* name) {
  std::string out(8192, '\0');
  const ssize_t got = readlink(name, out.data(), out.size());
  if (got < 0) return error_name(errno);
  out.resize(static_cast<size_t>(got));
  return out;
}

void posix_links(Table& t) {
  t.did("symlink", symlink("to/somewhere", "s"));
  t.is("its target", target_of("s"));
  t.number("its size", stat_of("s").st_size);
  t.is("its mode", mode_of("s"));
  t.did("symlink over a link", symlink("x", "s"));
  t.did("empty target", symlink("", "empty"));
  t.did("target of 1000", symlink(std::string(1000, 'l').c_str(), "l1000"));
  t.number("its length", static_cast<long>(target_of("l1000").size()));
  t.did("target of 4095", symlink(std::string(4095, 'l').c_str(), "l4095"));
  t.number("that length", static_cast<long>(target_of("l4095").size()));
  t.truth("that target", target_of("l4095") == std::string(4095, 'l'));
  t.did("target of 4096", symlink(std::string(4096, 'l').c_str(), "l4096"));
  t.did("target of 59", symlink(std::string(59, 'f').c_str(), "l59"));
  t.did("target of 60", symlink(std::string(60, 'f').c_str(), "l60"));
  t.truth("both read back", target_of("l59").size() == 59 && target_of("l60").size() == 60);
  t.did("odd bytes", symlink("\xff\n\x01", "odd"));
  t.is("odd bytes come back", target_of("odd"));
  make("file", 0644, "through");
  char small[4];
  t.did("readlink of a file", readlink("file", small, sizeof(small)));
  t.number("readlink into a small buffer", readlink("s", small, sizeof(small)));
  require(symlink("file", "c0") == 0, "c0");
  for (int i = 1; i < 45; i++) {
    const std::string to = "c" + std::to_string(i - 1), name = "c" + std::to_string(i);
    require(symlink(to.c_str(), name.c_str()) == 0, name);
  }
  t.is("40 links", content_of("c0"));
  t.did("chain of 40", access("c39", F_OK));
  t.did("chain of 41", access("c40", F_OK));
  t.did("loop of one", symlink("one", "one"));
  t.did("is not followed for ever", access("one", F_OK));
  t.did("loop of two", symlink("two-b", "two-a"));
  t.did("its other half", symlink("two-a", "two-b"));
  t.did("is neither", access("two-a", F_OK));
  t.did("chmod through a link", chmod("c3", 0600));
  t.is("changes the file", mode_of("file"));
  t.did("lchown of a link", lchown("s", alice, staff));
  t.number("owner of the link", stat_of("s").st_uid);
  t.did("rename of a link", rename("s", "s2"));
  t.is("keeps its target", target_of("s2"));
  t.did("opening a link through O_PATH", shut(open("s2", O_PATH | O_NOFOLLOW)));
  t.did("setxattr user.* of a link", lsetxattr("s2", "user.x", "1", 1, 0));
  t.did("setxattr trusted.* of a link", lsetxattr("s2", "trusted.x", "1", 1, 0));
  t.did("relative through a directory", mkdir("d", 0755));
  t.did("symlink upward", symlink("../file", "d/up"));
  t.did("is found", access("d/up", F_OK));
  t.did("absent directory in the target", symlink("none/x", "broken"));
  t.did("creating through it", shut(open("broken", O_CREAT | O_RDWR, 0644)));
}

}  // namespace holdfast::replica_tool
