// Which actions change which timestamps.
#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "common/clock.h"
#include "posix_util.h"

namespace holdfast::replica_tool {

static void content_times(Table& t) {
  make("f", 0644, "0123456789");
  const Fd fd(open("f", O_RDWR));
  char c = 0;
  const auto ignore = [](long) {};
  t.is("write", moved("f", [&] { ignore(pwrite(fd.get(), "x", 1, 0)); }));
  t.is("write of nothing", moved("f", [&] { ignore(pwrite(fd.get(), "x", 0, 0)); }));
  t.is("write behind the end", moved("f", [&] { ignore(pwrite(fd.get(), "x", 1, 100)); }));
  t.is("truncate", moved("f", [&] { ignore(truncate("f", 5)); }));
  t.is("truncate to the same size", moved("f", [&] { ignore(truncate("f", 5)); }));
  t.is("ftruncate to the same size", moved("f", [&] { ignore(ftruncate(fd.get(), 5)); }));
  t.is("ftruncate", moved("f", [&] { ignore(ftruncate(fd.get(), 10)); }));
  t.is("O_TRUNC", moved("f", [&] { shut(open("f", O_WRONLY | O_TRUNC)); }));
  t.is("O_TRUNC of an empty file", moved("f", [&] { shut(open("f", O_WRONLY | O_TRUNC)); }));
  t.is("fallocate", moved("f", [&] { ignore(fallocate(fd.get(), 0, 0, 8192)); }));
  t.is("fallocate, size kept",
       moved("f", [&] { ignore(fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 8192, 8192)); }));
  t.is("punch", moved("f", [&] {
         ignore(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
       }));
  t.is("zero range",
       moved("f", [&] { ignore(fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, 0, 4096)); }));
  t.is("open", moved("f", [&] { shut(open("f", O_RDWR)); }));
  t.is("fsync", moved("f", [&] { ignore(fsync(fd.get())); }));
  t.is("read of nothing", moved("f", [&] { ignore(pread(fd.get(), &c, 0, 0)); }));
  make("source", 0644, "abc");
  const Fd source(open("source", O_RDONLY));
  off_t from = 0, to = 0;
  t.is("copy_file_range to it",
       moved("f", [&] { ignore(copy_file_range(source.get(), &from, fd.get(), &to, 3, 0)); }));
}

static void attribute_times(Table& t) {
  make("g", 0644, "x");
  const auto ignore = [](long) {};
  t.is("chmod", moved("g", [&] { ignore(chmod("g", 0600)); }));
  t.is("chmod to the same", moved("g", [&] { ignore(chmod("g", 0600)); }));
  t.is("chown", moved("g", [&] { ignore(chown("g", alice, staff)); }));
  t.is("chown of nothing",
       moved("g", [&] { ignore(chown("g", static_cast<uid_t>(-1), static_cast<gid_t>(-1))); }));
  t.is("setxattr", moved("g", [&] { ignore(setxattr("g", "user.a", "1", 1, 0)); }));
  t.is("setxattr to the same", moved("g", [&] { ignore(setxattr("g", "user.a", "1", 1, 0)); }));
  t.is("removexattr", moved("g", [&] { ignore(removexattr("g", "user.a")); }));
  t.is("removexattr of none", moved("g", [&] { ignore(removexattr("g", "user.a")); }));
  t.is("link", moved("g", [&] { ignore(link("g", "g2")); }));
  t.is("unlink of one name", moved("g", [&] { ignore(unlink("g2")); }));
  t.is("rename", moved("g", [&] {
         ignore(rename("g", "g3"));
         ignore(rename("g3", "g"));
       }));
  t.is("failed chmod", moved("g", [&] { ignore(chmod("none", 0600)); }));
  t.is("stat", moved("g", [&] { stat_of("g"); }));
  t.is("access", moved("g", [&] { ignore(access("g", R_OK)); }));
}

static void directory_times(Table& t) {
  require(mkdir("d", 0755) == 0 && mkdir("e", 0755) == 0, "mkdir");
  const auto ignore = [](long) {};
  t.is("create in it", moved("d", [&] { make("d/a"); }));
  t.is("open of what is there", moved("d", [&] { shut(open("d/a", O_CREAT | O_RDWR, 0644)); }));
  t.is("write to a file in it", moved("d", [&] {
         const Fd fd(open("d/a", O_WRONLY));
         ignore(write(fd.get(), "x", 1));
       }));
  t.is("mkdir in it", moved("d", [&] { ignore(mkdir("d/b", 0755)); }));
  t.is("failed mkdir in it", moved("d", [&] { ignore(mkdir("d/b", 0755)); }));
  t.is("rmdir in it", moved("d", [&] { ignore(rmdir("d/b")); }));
  t.is("symlink in it", moved("d", [&] { ignore(symlink("x", "d/s")); }));
  t.is("mkfifo in it", moved("d", [&] { ignore(mkfifo("d/p", 0644)); }));
  t.is("link in it", moved("d", [&] { ignore(link("d/a", "d/l")); }));
  t.is("unlink in it", moved("d", [&] { ignore(unlink("d/l")); }));
  t.is("rename in it", moved("d", [&] { ignore(rename("d/a", "d/c")); }));
  t.is("rename onto itself", moved("d", [&] { ignore(rename("d/c", "d/c")); }));
  t.is("rename out of it", moved("d", [&] { ignore(rename("d/c", "e/c")); }));
  t.is("rename into it", moved("d", [&] { ignore(rename("e/c", "d/c")); }));
  t.is("rename out of it, for the other", moved("e", [&] { ignore(rename("d/c", "e/c")); }));
  require(mkdir("d/sub", 0755) == 0, "sub");
  t.is("a directory that moves", moved("e", [&] { ignore(rename("d/sub", "e/sub")); }));
  t.is("the moved one itself", moved("d", [&] { ignore(rename("e/sub", "d/sub")); }));
  t.is("lookup in it", moved("d", [&] { ignore(access("d/none", F_OK)); }));
  t.is("chmod of it", moved("d", [&] { ignore(chmod("d", 0750)); }));
  tick();
  shut(open("d/born", O_CREAT | O_RDWR, 0644));
  const struct stat born = stat_of("d/born"), parent = stat_of("d");
  t.truth("born with its parent's mtime", born.st_mtim.tv_sec == parent.st_mtim.tv_sec &&
                                              born.st_mtim.tv_nsec == parent.st_mtim.tv_nsec);
  t.truth("born with three equal times", born.st_mtim.tv_nsec == born.st_ctim.tv_nsec &&
                                             born.st_mtim.tv_nsec == born.st_atim.tv_nsec);
  const int64_t age = wall_ns() - (born.st_mtim.tv_sec * ns_per_s + born.st_mtim.tv_nsec);
  t.truth("born now", age >= 0 && age < 10 * ns_per_s);
}

// relatime: a read counts when the last one is not after the last change (mount(8)).
static void access_times(Table& t) {
  make("r", 0644, std::string(10000, 'r'));
  char buffer[100];
  const auto read_it = [&] {
    const Fd fd(open("r", O_RDONLY));
    static_cast<void>(!read(fd.get(), buffer, sizeof(buffer)));
  };
  const timespec old[2] = {{1000, 0}, {2000, 0}};
  require(utimensat(AT_FDCWD, "r", old, 0) == 0, "utimensat");
  t.is("first read after a change", moved("r", read_it));
  t.is("second read", moved("r", read_it));
  const timespec fresh[2] = {{1000, 0}, {500, 0}};
  require(utimensat(AT_FDCWD, "r", fresh, 0) == 0, "utimensat");
  t.is("read a day later", moved("r", read_it));
  require(mkdir("rd", 0755) == 0, "rd");
  make("rd/x");
  const auto list_it = [] {
    DIR* directory = opendir("rd");
    while (readdir(directory) != nullptr) continue;
    closedir(directory);
  };
  require(utimensat(AT_FDCWD, "rd", old, 0) == 0, "utimensat");
  t.is("first listing after a change", moved("rd", list_it));
  t.is("second listing", moved("rd", list_it));
  require(symlink("x", "rs") == 0, "rs");
  require(utimensat(AT_FDCWD, "rs", old, AT_SYMLINK_NOFOLLOW) == 0, "utimensat");
  t.is("first readlink",
       moved("rs", [&] { static_cast<void>(!readlink("rs", buffer, sizeof(buffer))); }));
  require(utimensat(AT_FDCWD, "r", old, 0) == 0, "utimensat");
  t.is("O_NOATIME read", moved("r", [&] {
         const Fd fd(open("r", O_RDONLY | O_NOATIME));
         static_cast<void>(!read(fd.get(), buffer, sizeof(buffer)));
       }));
}

void posix_times(Table& t) {
  content_times(t);
  attribute_times(t);
  directory_times(t);
  access_times(t);
}

static std::string times_of(const std::string& name) {
  const struct stat s = stat_of(name);
  return std::to_string(s.st_atim.tv_sec) + "." + std::to_string(s.st_atim.tv_nsec) + " " +
         std::to_string(s.st_mtim.tv_sec) + "." + std::to_string(s.st_mtim.tv_nsec);
}

static bool recent(const timespec& time) {
  const int64_t age = wall_ns() - (time.tv_sec * ns_per_s + time.tv_nsec);
  return age >= 0 && age < 10 * ns_per_s;
}

void posix_utimens(Table& t) {
  make("f", 0644, "x");
  const timespec set[2] = {{11, 123456789}, {22, 987654321}};
  t.did("set both", utimensat(AT_FDCWD, "f", set, 0));
  t.is("to the nanosecond", times_of("f"));
  const timespec access_only[2] = {{33, 1}, {0, UTIME_OMIT}};
  t.did("atime, mtime omitted", utimensat(AT_FDCWD, "f", access_only, 0));
  t.is("only atime", times_of("f"));
  const timespec change_only[2] = {{0, UTIME_OMIT}, {44, 2}};
  t.did("mtime, atime omitted", utimensat(AT_FDCWD, "f", change_only, 0));
  t.is("only mtime", times_of("f"));
  const timespec none[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
  t.is("both omitted", moved("f", [&] { t.did("omit both", utimensat(AT_FDCWD, "f", none, 0)); }));
  const timespec now_and_set[2] = {{0, UTIME_NOW}, {55, 0}};
  t.did("atime now", utimensat(AT_FDCWD, "f", now_and_set, 0));
  t.truth("atime is now", recent(stat_of("f").st_atim));
  t.number("mtime as said", stat_of("f").st_mtim.tv_sec);
  const timespec set_and_now[2] = {{66, 0}, {0, UTIME_NOW}};
  t.did("mtime now", utimensat(AT_FDCWD, "f", set_and_now, 0));
  t.truth("mtime is now", recent(stat_of("f").st_mtim));
  t.number("atime as said", stat_of("f").st_atim.tv_sec);
  t.did("both now", utimensat(AT_FDCWD, "f", nullptr, 0));
  t.truth("both are now", recent(stat_of("f").st_atim) && recent(stat_of("f").st_mtim));
  const timespec early[2] = {{-100, 0}, {-200, 5}};
  t.did("before 1970", utimensat(AT_FDCWD, "f", early, 0));
  t.is("negative seconds", times_of("f"));
  const timespec late[2] = {{4102444800, 0}, {4102444801, 0}};
  t.did("year 2100", utimensat(AT_FDCWD, "f", late, 0));
  t.is("after 2038", times_of("f"));
  const timespec wrong[2] = {{0, 1'000'000'000}, {0, 0}};
  t.did("a whole second of nanoseconds", utimensat(AT_FDCWD, "f", wrong, 0));
  t.did("of nothing", utimensat(AT_FDCWD, "none", set, 0));
  require(symlink("f", "s") == 0 && mkdir("d", 0755) == 0, "set-up");
  t.did("of a symbolic link", utimensat(AT_FDCWD, "s", set, AT_SYMLINK_NOFOLLOW));
  t.is("its times", times_of("s"));
  t.is("not the target's", times_of("f"));
  t.did("of a directory", utimensat(AT_FDCWD, "d", set, 0));
  t.is("the directory's", times_of("d"));
  const Fd fd(open("f", O_RDONLY));
  t.did("futimens of a read-only descriptor", futimens(fd.get(), set));
  t.is("took", times_of("f"));
  t.is("ctime moves", moved("f", [&] { futimens(fd.get(), set); }));
  require(chown("f", alice, staff) == 0, "chown");
  t.as(alice, staff, {}, [&] { t.did("the owner sets a time", utimensat(AT_FDCWD, "f", set, 0)); });
  t.as(bob, staff, {}, [&] {
    t.did("another omits both", utimensat(AT_FDCWD, "f", none, 0));
    t.did("another sets now", utimensat(AT_FDCWD, "f", nullptr, 0));
  });
}

}  // namespace holdfast::replica_tool
