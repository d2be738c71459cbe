#include "posix_util.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>

#include "common/clock.h"

namespace holdfast::replica_tool {

Table::Table(std::string root) : root_(std::move(root)) {}

void Table::group(const std::string& name) {
  group_ = name;
  require(chdir(root_.c_str()) == 0, root_);
  umask(022);
  require(mkdir(name.c_str(), 0777) == 0, "mkdir " + name);
  require(chdir(name.c_str()) == 0, "chdir " + name);
  require(chmod(".", 0777) == 0, "chmod " + name);
}

void Table::is(const char* name, const std::string& outcome) {
  const std::string start = group_ + "." + name + "=";
  if (("\n" + lines_).find("\n" + start) != std::string::npos) die("twice in the table: " + start);
  lines_ += start + encode(outcome) + "\n";
}

void Table::did(const char* name, long returned) {
  is(name, returned == -1 ? error_name(errno) : "ok");
}

void Table::as(uid_t uid, gid_t gid, const std::vector<gid_t>& groups,
               const std::function<void()>& body) {
  int ends[2];
  require(pipe2(ends, O_CLOEXEC) == 0, "pipe");
  const pid_t pid = fork();
  require(pid >= 0, "fork");
  if (pid == 0) {
    require(setgroups(groups.size(), groups.data()) == 0, "setgroups");
    require(setresgid(gid, gid, gid) == 0, "setresgid");
    require(setresuid(uid, uid, uid) == 0, "setresuid");
    lines_.clear();
    body();
    write_all(ends[1], lines_);
    _exit(0);
  }
  close(ends[1]);
  char buffer[4096];
  ssize_t got = 0;
  while ((got = read(ends[0], buffer, sizeof(buffer))) > 0) {
    lines_.append(buffer, static_cast<size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (status != 0) die("a child of group " + group_ + " ended with " + std::to_string(status));
}

void make(const std::string& name, mode_t mode, const std::string& content) {
  const Fd fd(open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  require(fd.valid(), "make " + name);
  write_all(fd.get(), content);
  require(fchmod(fd.get(), mode) == 0, "chmod " + name);
}

std::string content_of(const std::string& name) {
  std::string out;
  return read_file(AT_FDCWD, name.c_str(), out) ? out : error_name(errno);
}

std::string bytes_at(int fd, off_t offset, size_t size) {
  std::string out(size, '\0');
  const ssize_t got = pread(fd, out.data(), size, offset);
  if (got < 0) return error_name(errno);
  out.resize(static_cast<size_t>(got));
  for (char& c : out) c = c == '\0' ? '.' : c;
  return out;
}

struct stat stat_of(const std::string& name) {
  struct stat attributes {};
  if (lstat(name.c_str(), &attributes) != 0) return {};
  return attributes;
}

std::string mode_of(const std::string& name) {
  char text[16];
  std::snprintf(text, sizeof(text), "%04o", stat_of(name).st_mode & 07777);
  return text;
}

int shut(int fd) {
  if (fd < 0) return -1;
  close(fd);
  return 0;
}

void tick() {
  // File systems stamp with the coarse clock; two of its steps are later than any stamp given so
  // far.
  for (int step = 0; step < 2; step++) {
    const int64_t before = clock_ns(CLOCK_REALTIME_COARSE);
    while (clock_ns(CLOCK_REALTIME_COARSE) == before) {
      const timespec wait{0, 500'000};
      nanosleep(&wait, nullptr);
    }
  }
}

static bool same(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

std::string moved(const std::string& name, const std::function<void()>& action) {
  const struct stat before = stat_of(name);
  tick();
  action();
  const struct stat after = stat_of(name);
  std::string out;
  if (!same(before.st_atim, after.st_atim)) out += 'a';
  if (!same(before.st_mtim, after.st_mtim)) out += 'm';
  if (!same(before.st_ctim, after.st_ctim)) out += 'c';
  return out.empty() ? "-" : out;
}

int in_child(const std::function<int()>& body) {
  const pid_t pid = fork();
  require(pid >= 0, "fork");
  if (pid == 0) _exit(body());
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace holdfast::replica_tool
