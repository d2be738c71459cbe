// flock, POSIX locks and open file description locks, between processes.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "posix_util.h"

namespace holdfast::replica_tool {

static long lock(int fd, int command, short type, off_t start = 0, off_t length = 0) {
  struct flock range {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  return fcntl(fd, command, &range);
}

// What another process meets: its outcome as the name of an errno.
static std::string other(const std::function<long()>& action) {
  return error_name(in_child([&] { return action() == -1 ? errno : 0; }));
}

static void whole_files(Table& t) {
  make("f");
  const Fd one(open("f", O_RDWR)), two(open("f", O_RDONLY));
  t.did("shared", flock(one.get(), LOCK_SH));
  t.did("shared by another", flock(two.get(), LOCK_SH | LOCK_NB));
  t.did("not exclusive then", flock(one.get(), LOCK_EX | LOCK_NB));
  t.did("unlock", flock(two.get(), LOCK_UN));
  t.did("exclusive", flock(one.get(), LOCK_EX | LOCK_NB));
  t.did("not shared then", flock(two.get(), LOCK_SH | LOCK_NB));
  t.is("another process", other([] { return flock(open("f", O_RDWR), LOCK_EX | LOCK_NB); }));
  t.is("an inherited descriptor", other([&] { return flock(one.get(), LOCK_EX | LOCK_NB); }));
  {
    const Fd copy(dup(one.get()));
    t.did("unlock through a copy", flock(copy.get(), LOCK_UN));
  }
  t.did("is free", flock(two.get(), LOCK_EX | LOCK_NB));
  t.is("flock and fcntl do not meet",
       other([] { return lock(open("f", O_RDWR), F_SETLK, F_WRLCK); }));
  const Fd directory(open(".", O_RDONLY));
  t.did("of a directory", flock(directory.get(), LOCK_EX | LOCK_NB));
}

static void ranges(Table& t) {
  make("r", 0644, std::string(100, 'r'));
  const Fd fd(open("r", O_RDWR));
  t.did("write lock", lock(fd.get(), F_SETLK, F_WRLCK, 0, 10));
  t.did("again by the same", lock(fd.get(), F_SETLK, F_WRLCK, 5, 10));
  t.is("another at the same place",
       other([] { return lock(open("r", O_RDWR), F_SETLK, F_WRLCK, 0, 1); }));
  t.is("another reads there",
       other([] { return lock(open("r", O_RDWR), F_SETLK, F_RDLCK, 14, 1); }));
  t.is("another beside it",
       other([] { return lock(open("r", O_RDWR), F_SETLK, F_WRLCK, 15, 10); }));
  const pid_t self = getpid();
  t.number("F_GETLK tells the owner", in_child([&] {
             struct flock found {};
             found.l_type = F_WRLCK;
             found.l_len = 1;
             const Fd mine(open("r", O_RDWR));
             if (fcntl(mine.get(), F_GETLK, &found) != 0) return 1;
             return found.l_pid == self && found.l_type == F_WRLCK && found.l_len == 15 ? 0 : 2;
           }));
  t.did("unlock the middle", lock(fd.get(), F_SETLK, F_UNLCK, 4, 4));
  t.is("the middle is free", other([] { return lock(open("r", O_RDWR), F_SETLK, F_WRLCK, 4, 4); }));
  t.is("the start is not", other([] { return lock(open("r", O_RDWR), F_SETLK, F_WRLCK, 3, 1); }));
  t.did("read lock", lock(fd.get(), F_SETLK, F_RDLCK, 0, 0));
  t.is("others read", other([] { return lock(open("r", O_RDONLY), F_SETLK, F_RDLCK); }));
  t.is("others do not write", other([] { return lock(open("r", O_RDWR), F_SETLK, F_WRLCK); }));
  t.did("closing any descriptor", shut(open("r", O_RDONLY)));
  t.is("gives all locks back", other([] { return lock(open("r", O_RDWR), F_SETLK, F_WRLCK); }));
  const Fd read_only(open("r", O_RDONLY));
  t.did("write lock of a read-only descriptor", lock(read_only.get(), F_SETLK, F_WRLCK));
}

static void descriptions(Table& t) {
  make("o");
  const Fd one(open("o", O_RDWR)), two(open("o", O_RDWR));
  t.did("OFD write lock", lock(one.get(), F_OFD_SETLK, F_WRLCK, 0, 10));
  t.did("another description of this process", lock(two.get(), F_OFD_SETLK, F_WRLCK, 0, 10));
  t.did("beside it", lock(two.get(), F_OFD_SETLK, F_WRLCK, 10, 10));
  t.is("meets POSIX locks", other([] { return lock(open("o", O_RDWR), F_SETLK, F_RDLCK, 0, 1); }));
  t.is("is inherited", other([&] { return lock(one.get(), F_OFD_SETLK, F_UNLCK, 0, 10); }));
  t.did("and was given back there", lock(two.get(), F_OFD_SETLK, F_WRLCK, 0, 10));
}

static void waiting(Table& t) {
  make("w");
  int ready[2], locked[2];
  require(pipe2(ready, O_CLOEXEC) == 0 && pipe2(locked, O_CLOEXEC) == 0, "pipe");
  const pid_t holder = fork();
  if (holder == 0) {
    const Fd fd(open("w", O_RDWR));
    char c = static_cast<char>(lock(fd.get(), F_SETLK, F_WRLCK) == 0 ? 'y' : 'n');
    if (write(ready[1], &c, 1) != 1 || read(locked[0], &c, 1) != 1) _exit(1);
    tick();
    _exit(0);  // gives the lock back
  }
  char c = 0;
  require(read(ready[0], &c, 1) == 1, "the holder");
  const Fd fd(open("w", O_RDWR));
  t.did("is held by another", lock(fd.get(), F_SETLK, F_WRLCK));
  require(write(locked[1], "g", 1) == 1, "the holder");
  t.did("waits until that one ends", lock(fd.get(), F_SETLKW, F_WRLCK));
  waitpid(holder, nullptr, 0);
  const pid_t killed = fork();
  if (killed == 0) {
    const Fd mine(open("w", O_RDWR));
    const char done = static_cast<char>(flock(mine.get(), LOCK_EX) == 0 ? 'y' : 'n');
    if (write(ready[1], &done, 1) == 1) pause();
    _exit(1);
  }
  require(read(ready[0], &c, 1) == 1, "the holder");
  t.did("flock is held", flock(fd.get(), LOCK_EX | LOCK_NB));
  kill(killed, SIGKILL);
  waitpid(killed, nullptr, 0);
  t.did("flock waits for a killed one", flock(fd.get(), LOCK_EX));
  close(ready[0]);
  close(ready[1]);
  close(locked[0]);
  close(locked[1]);
}

void posix_locks(Table& t) {
  whole_files(t);
  ranges(t);
  descriptions(t);
  waiting(t);
}

}  // namespace holdfast::replica_tool
