#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "posix_util.h"

namespace holdfast::replica_tool {

static const std::string longest(255, 'n');

static void errors(Table& t) {
  make("file", 0644, "abc");
  require(mkdir("dir", 0755) == 0 && symlink("file", "to-file") == 0, "set-up");
  require(symlink("nowhere", "dangling") == 0 && symlink("loop", "loop") == 0, "set-up");
  t.did("absent", shut(open("absent", O_RDONLY)));
  t.did("below a file", shut(open("file/x", O_RDONLY)));
  t.did("below nothing", shut(open("absent/x", O_CREAT | O_RDWR, 0644)));
  t.did("file with a slash", shut(open("file/", O_RDONLY)));
  t.did("new file with a slash", shut(open("new/", O_CREAT | O_RDWR, 0644)));
  t.did("directory to write", shut(open("dir", O_WRONLY)));
  t.did("directory to read", shut(open("dir", O_RDONLY)));
  t.did("directory with O_CREAT", shut(open("dir", O_CREAT | O_RDONLY, 0644)));
  t.did("file as directory", shut(open("file", O_RDONLY | O_DIRECTORY)));
  t.did("link not followed", shut(open("to-file", O_RDONLY | O_NOFOLLOW)));
  t.did("loop", shut(open("loop", O_RDONLY)));
  t.did("dangling", shut(open("dangling", O_RDONLY)));
  t.did("dangling, exclusive", shut(open("dangling", O_CREAT | O_EXCL | O_RDWR, 0644)));
  t.did("exclusive over a file", shut(open("file", O_CREAT | O_EXCL | O_RDWR, 0644)));
  t.did("exclusive over a directory", shut(open("dir", O_CREAT | O_EXCL | O_RDWR, 0644)));
  t.did("exclusive over a link", shut(open("to-file", O_CREAT | O_EXCL | O_RDWR, 0644)));
  t.did("dangling, created through", shut(open("dangling", O_CREAT | O_RDWR, 0644)));
  t.did("what was created through it", access("nowhere", F_OK));
  t.did("name of 255", shut(open(longest.c_str(), O_CREAT | O_RDWR, 0644)));
  t.did("name of 256", shut(open((longest + "n").c_str(), O_CREAT | O_RDWR, 0644)));
  t.did("name of 256, looked up", access((longest + "n").c_str(), F_OK));
  t.did("empty name", shut(open("", O_RDONLY)));
  t.did("path of 4096", shut(open(std::string(4096, '/').c_str(), O_RDONLY)));
  t.did("O_PATH", shut(open("file", O_PATH)));
  t.did("O_NOATIME as root", shut(open("file", O_RDONLY | O_NOATIME)));
}

static void modes(Table& t) {
  umask(027);
  t.did("create", shut(open("m1", O_CREAT | O_WRONLY, 0666)));
  t.is("umask", mode_of("m1"));
  t.did("create 07777", shut(open("m2", O_CREAT | O_WRONLY, 07777)));
  t.is("special bits", mode_of("m2"));
  umask(0);
  t.did("create without umask", shut(open("m3", O_CREAT | O_WRONLY, 0666)));
  t.is("no umask", mode_of("m3"));
  t.did("mkdir 01777", mkdir("m4", 01777));
  t.is("mkdir keeps the sticky bit", mode_of("m4"));
  t.did("mkdir 06777", mkdir("m5", 06777));
  t.is("mkdir drops setuid and setgid", mode_of("m5"));
  const int fd = open("m6", O_CREAT | O_RDWR, 0);
  t.did("create 0000 for writing", fd);
  t.number("write to mode 0000", write(fd, "x", 1));
  t.did("close", shut(fd));
  t.is("mode 0000", mode_of("m6"));
  umask(022);
  t.did("new file", shut(open("m7", O_CREAT | O_RDWR, 0644)));
  t.number("one link", static_cast<long>(stat_of("m7").st_nlink));
  t.number("no blocks", stat_of("m7").st_blocks);
  t.number("block size", stat_of("m7").st_blksize);
  t.truth("regular", S_ISREG(stat_of("m7").st_mode));
  require(mkdir("m8", 0755) == 0, "m8");
  t.number("two links of a directory", static_cast<long>(stat_of("m8").st_nlink));
  require(mkdir("m8/a", 0755) == 0 && mkdir("m8/b", 0755) == 0, "m8/a");
  t.number("each subdirectory is a link", static_cast<long>(stat_of("m8").st_nlink));
}

static void access_modes(Table& t) {
  make("rw", 0644, "0123456789");
  char c = 0;
  const Fd r(open("rw", O_RDONLY)), w(open("rw", O_WRONLY)), p(open("rw", O_PATH));
  t.did("write to O_RDONLY", write(r.get(), "x", 1));
  t.did("read from O_WRONLY", read(w.get(), &c, 1));
  t.did("read from O_PATH", read(p.get(), &c, 1));
  t.did("ftruncate of O_RDONLY", ftruncate(r.get(), 1));
  t.did("ftruncate of O_PATH", ftruncate(p.get(), 1));
  t.did("fallocate of O_RDONLY", fallocate(r.get(), 0, 0, 10));
  t.did("fchmod of O_PATH", fchmod(p.get(), 0600));
  t.did("fsync of O_RDONLY", fsync(r.get()));
  t.did("pread at -1", pread(r.get(), &c, 1, -1));
  t.did("seek before the start", lseek(r.get(), -1, SEEK_SET));
  t.number("seek behind the end", lseek(r.get(), 100, SEEK_SET));
  t.number("read behind the end", read(r.get(), &c, 1));
  t.number("SEEK_END", lseek(r.get(), -3, SEEK_END));
  t.number("read at SEEK_END - 3", read(r.get(), &c, 1));
  t.is("what was there", std::string(1, c));
  t.did("O_TRUNC", shut(open("rw", O_WRONLY | O_TRUNC)));
  t.number("size after O_TRUNC", stat_of("rw").st_size);
  make("rt", 0644, "abc");
  t.did("O_TRUNC with O_CREAT", shut(open("rt", O_WRONLY | O_CREAT | O_TRUNC, 0600)));
  t.is("mode stays", mode_of("rt"));
  t.number("size is 0", stat_of("rt").st_size);
  const Fd directory(open(".", O_RDONLY));
  t.did("read of a directory", read(directory.get(), &c, 1));
  t.did("fsync of a directory", fsync(directory.get()));
  t.did("fdatasync of a directory", fdatasync(directory.get()));
  t.did("ftruncate of a directory", ftruncate(directory.get(), 0));
  t.did("truncate of a directory", truncate(".", 0));
  t.did("truncate of nothing", truncate("none", 0));
  t.did("truncate to -1", truncate("rw", -1));
}

// A copy of a program of the system, below its own name.
static void copy_program(const std::string& name) {
  std::string program;
  const Fd folder(open("/usr/bin", O_PATH | O_DIRECTORY | O_CLOEXEC));
  require(read_file(folder.get(), name.c_str(), program), name);
  make(name, 0755, program);
}

static int run_program(const char* name) {
  return in_child([name] {
    execl(name, name, nullptr);
    return errno == ETXTBSY ? 100 : 101;
  });
}

static void programs(Table& t) {
  copy_program("true");
  t.number("runs", run_program("./true"));
  const Fd writer(open("true", O_RDWR | O_CLOEXEC));
  t.number("is not run while open for writing", run_program("./true"));
  copy_program("sleep");
  int ends[2];
  require(pipe2(ends, O_CLOEXEC) == 0, "pipe");
  const pid_t pid = fork();
  if (pid == 0) {
    execl("./sleep", "sleep", "60", nullptr);
    _exit(1);
  }
  close(ends[1]);
  char c = 0;
  require(read(ends[0], &c, 1) == 0, "the program starts");  // closed by exec
  close(ends[0]);
  t.did("write to a running program", shut(open("sleep", O_WRONLY)));
  t.did("truncate a running program", truncate("sleep", 0));
  t.did("O_TRUNC of a running program", shut(open("sleep", O_RDONLY | O_TRUNC)));
  t.did("unlink a running program", unlink("sleep"));
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  make("no-x", 0644, "#!/bin/sh\n");
  t.number("no x bit", run_program("./no-x"));
}

static void temporary(Table& t) {
  const Fd fd(open(".", O_TMPFILE | O_RDWR, 0640));
  t.did("O_TMPFILE", fd.get());
  if (!fd.valid()) return;
  struct stat attributes {};
  require(fstat(fd.get(), &attributes) == 0, "fstat");
  t.number("O_TMPFILE has no links", static_cast<long>(attributes.st_nlink));
  t.number("O_TMPFILE is written", write(fd.get(), "hello", 5));
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  t.did("O_TMPFILE gets a name",
        linkat(AT_FDCWD, path.c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
  t.is("its content", content_of("named"));
  t.is("its mode", mode_of("named"));
  t.number("its links", static_cast<long>(stat_of("named").st_nlink));
  const Fd closed(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0640));
  const std::string other = "/proc/self/fd/" + std::to_string(closed.get());
  t.did("O_TMPFILE | O_EXCL gets none",
        linkat(AT_FDCWD, other.c_str(), AT_FDCWD, "named2", AT_SYMLINK_FOLLOW));
  t.did("O_TMPFILE read-only", shut(open(".", O_TMPFILE | O_RDONLY, 0640)));
  t.did("O_TMPFILE in a file", shut(open("named", O_TMPFILE | O_RDWR, 0640)));
}

void posix_open(Table& t) {
  errors(t);
  modes(t);
  access_modes(t);
  programs(t);
  temporary(t);
}

}  // namespace holdfast::replica_tool
