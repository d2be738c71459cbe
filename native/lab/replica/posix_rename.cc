#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>

#include "posix_util.h"

namespace holdfast::replica_tool {

static long long links(const char* name) {
  return static_cast<long long>(stat_of(name).st_nlink);
}

static void directory(const char* name) {
  require(mkdir(name, 0755) == 0, name);
}

static void files(Table& t) {
  make("a", 0644, "a");
  make("b", 0644, "b");
  const ino_t inode = stat_of("a").st_ino;
  t.did("to a new name", rename("a", "a2"));
  t.truth("same inode", stat_of("a2").st_ino == inode);
  t.did("old name is gone", access("a", F_OK));
  t.did("onto itself", rename("a2", "a2"));
  t.did("over a file", rename("a2", "b"));
  t.is("has its content", content_of("b"));
  t.did("first name is gone", access("a2", F_OK));
  t.did("of nothing", rename("none", "x"));
  t.did("of nothing over a file", rename("none", "b"));
  t.did("the file stays", access("b", F_OK));
  t.did("below nothing", rename("b", "none/b"));
  t.did("below a file", rename("b", "b/c"));
  make("h1", 0644, "h");
  require(link("h1", "h2") == 0, "h2");
  t.did("over a hard link of itself", rename("h1", "h2"));
  t.did("leaves the old name", access("h1", F_OK));
  t.did("leaves the new name", access("h2", F_OK));
  t.number("leaves two links", links("h1"));
  make("victim", 0644, "victim");
  require(link("victim", "victim2") == 0, "victim2");
  make("over", 0644, "over");
  t.did("over a file of two names", rename("over", "victim"));
  t.number("one name is left", links("victim2"));
  t.is("with its content", content_of("victim2"));
  const Fd open_victim(open("victim", O_RDWR));
  make("over2", 0644, "over2");
  t.did("over an open file", rename("over2", "victim"));
  t.is("which still can be read", bytes_at(open_victim.get(), 0, 100));
  struct stat attributes {};
  require(fstat(open_victim.get(), &attributes) == 0, "fstat");
  t.number("and has no links", static_cast<long>(attributes.st_nlink));
  t.number("and can be written", pwrite(open_victim.get(), "X", 1, 0));
  t.is("unlike the new one", content_of("victim"));
  require(symlink("victim", "sym") == 0, "sym");
  t.did("over a symbolic link", rename("victim2", "sym"));
  t.truth("replaces the link", S_ISREG(stat_of("sym").st_mode));
  t.did("not its target", access("victim", F_OK));
}

static void directories(Table& t) {
  directory("d1");
  directory("d2");
  directory("full");
  make("full/x");
  make("f");
  t.did("directory over an empty one", rename("d1", "d2"));
  t.did("directory over a full one", rename("d2", "full"));
  t.did("directory over a file", rename("d2", "f"));
  t.did("file over a directory", rename("f", "d2"));
  t.did("file over a full directory", rename("f", "full"));
  t.did("into its own subtree", rename("full", "full/sub"));
  directory("full/s");
  directory("full/s/t");
  t.did("into its own deep subtree", rename("full", "full/s/t/u"));
  t.did("over its own ancestor", rename("full/s/t", "full"));
  t.did("of .", rename(".", "x"));
  t.did("of ..", rename("..", "x"));
  t.did("to .", rename("d2", "."));
  t.did("to ..", rename("d2", ".."));
  t.did("file to a name with a slash", rename("f", "g/"));
  t.did("directory to a name with a slash", rename("d2", "d3/"));
  directory("p");
  directory("q");
  directory("p/child");
  make("p/child/file", 0644, "x");
  const long long before = links("p");
  t.did("directory to another parent", rename("p/child", "q/child"));
  t.truth("a link less there", links("p") == before - 1);
  t.number("a link more here", links("q"));
  t.truth(".. is the new parent", stat_of("q/child/..").st_ino == stat_of("q").st_ino);
  t.is("what is in it", content_of("q/child/file"));
  directory("p/empty");
  t.did("directory over an empty one elsewhere", rename("q/child", "p/empty"));
  t.number("links of the source", links("q"));
  t.number("links of the destination", links("p"));
  const Fd inside(open("p/empty", O_RDONLY | O_DIRECTORY));
  t.did("an open directory", rename("p/empty", "q/moved"));
  t.did("is still the same", faccessat(inside.get(), "file", F_OK, 0));
  t.did("creating through it", shut(openat(inside.get(), "new", O_CREAT | O_RDWR, 0644)));
  t.did("is seen at the new place", access("q/moved/new", F_OK));
  const Fd cwd(open(".", O_RDONLY | O_DIRECTORY));
  require(chdir("q/moved") == 0, "chdir");
  t.did("the working directory", renameat(cwd.get(), "q/moved", cwd.get(), "p/here"));
  t.did("still works", access("file", F_OK));
  require(fchdir(cwd.get()) == 0, "fchdir");
}

static void by_others(Table& t) {
  directory("theirs");
  make("theirs/f", 0644);
  directory("theirs/d");
  require(chmod("theirs", 0777) == 0, "chmod");
  t.as(alice, staff, {}, [&] {
    t.did("another's file in an open directory", rename("theirs/f", "theirs/f2"));
    t.did("another's directory, same parent", rename("theirs/d", "theirs/d2"));
    t.did("another's directory, other parent", rename("theirs/d2", "d2"));
    t.did("into a closed directory", rename("theirs/f2", "p/f2"));
  });
}

void posix_rename(Table& t) {
  files(t);
  directories(t);
  by_others(t);
}

void posix_rename_flags(Table& t) {
  make("a", 0640, "a");
  make("b", 0600, "bb");
  directory("d");
  make("d/in", 0644, "in");
  directory("e");
  const auto flagged = [](const char* from, const char* to, unsigned flags) {
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
  };
  t.did("NOREPLACE over a file", flagged("a", "b", RENAME_NOREPLACE));
  t.is("left as it was", content_of("b"));
  t.did("NOREPLACE over a directory", flagged("a", "d", RENAME_NOREPLACE));
  t.did("NOREPLACE onto itself", flagged("a", "a", RENAME_NOREPLACE));
  t.did("NOREPLACE to a new name", flagged("a", "a2", RENAME_NOREPLACE));
  t.did("NOREPLACE of nothing", flagged("none", "x", RENAME_NOREPLACE));
  t.did("EXCHANGE of two files", flagged("a2", "b", RENAME_EXCHANGE));
  t.is("one", content_of("a2"));
  t.is("the other", content_of("b"));
  t.is("modes go with them", mode_of("a2") + " " + mode_of("b"));
  t.did("EXCHANGE with nothing", flagged("a2", "none", RENAME_EXCHANGE));
  t.did("EXCHANGE onto itself", flagged("a2", "a2", RENAME_EXCHANGE));
  t.did("EXCHANGE of a file and a full directory", flagged("a2", "d", RENAME_EXCHANGE));
  t.truth("types are exchanged", S_ISDIR(stat_of("a2").st_mode) && S_ISREG(stat_of("d").st_mode));
  t.is("with what is in it", content_of("a2/in"));
  directory("e/sub");
  make("e/file");
  t.did("EXCHANGE over two parents", flagged("e/sub", "d", RENAME_EXCHANGE));
  t.number("links of one parent", links("e"));
  t.truth("links of the other", links(".") == 2 + 3);
  t.did("EXCHANGE with its own child", flagged("e", "e/file", RENAME_EXCHANGE));
  t.did("EXCHANGE of its child with it", flagged("e/file", "e", RENAME_EXCHANGE));
  t.did("EXCHANGE and NOREPLACE", flagged("a2", "b", RENAME_EXCHANGE | RENAME_NOREPLACE));
  t.did("unknown flag", flagged("a2", "b", 1u << 10));
  make("h", 0644, "h");
  require(link("h", "h2") == 0, "h2");
  t.did("EXCHANGE of two names of a file", flagged("h", "h2", RENAME_EXCHANGE));
  t.did("NOREPLACE of two names of a file", flagged("h", "h2", RENAME_NOREPLACE));
  t.number("two links", links("h"));
  make("w", 0644, "w");
  t.did("WHITEOUT", flagged("w", "w2", RENAME_WHITEOUT));
}

}  // namespace holdfast::replica_tool
