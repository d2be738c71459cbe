// A lab host: one process that is pid 1 of its own pid, mount, network, UTS and IPC namespaces.
// Whatever runs on the host lives in that pid namespace, so that SIGKILL of this one process is a
// power cut: the kernel ends every other process of the namespace with it. Nothing has a name in
// the file system; when the process is gone, so are its mounts, devices and addresses.

#include <fcntl.h>
#include <linux/mount.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "lab/commands.h"
#include "lab/util.h"

namespace holdfast::lab {
namespace {

void make_folder(const std::string& path) {
  for (size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    std::string part = path.substr(0, at);
    require(mkdir(part.c_str(), 0755) == 0 || errno == EEXIST, "mkdir " + part);
    if (at != std::string::npos) at++;
  }
}

void mount_over(const std::string& source, const std::string& target, const char* type,
                unsigned long flags, const char* data = nullptr) {
  require(mount(source.c_str(), target.c_str(), type, flags, data) == 0, "mount " + target);
}

// A fresh /sys shows this network namespace's devices. The cgroup mounts below the old one move to
// the new one; bpffs is this host's own, so that pins of two hosts never meet.
void mount_sys() {
  int cgroups = static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, "/sys/fs/cgroup",
                                         OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
  Fd tree(cgroups);
  mount_over("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  if (tree.valid()) {
    syscall(SYS_move_mount, tree.get(), "", AT_FDCWD, "/sys/fs/cgroup", MOVE_MOUNT_F_EMPTY_PATH);
  }
  mount_over("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700");
}

// The disk folder is real and survives a power cut; /run is memory and does not.
void mount_disk(const std::string& disk) {
  const std::pair<const char*, const char*> binds[] = {
      {"/etc", "/etc/holdfast"}, {"/var", "/var/lib/holdfast"}, {"/log", "/var/log/holdfast"}};
  for (const auto& [from, to] : binds) {
    make_folder(disk + from);
    make_folder(to);
    mount_over(disk + from, to, nullptr, MS_BIND);
  }
}

// A host that is switched on again has another boot id, as a real one: what its disk remembers of
// the boot before (ids of mounts, which the kernel gives out again) is then known to be of no use.
void mount_boot_id() {
  const char* random = "/proc/sys/kernel/random/boot_id";
  const char* own = "/run/lab_boot_id";
  char id[64];
  Fd from(open("/proc/sys/kernel/random/uuid", O_RDONLY | O_CLOEXEC));
  const ssize_t size = read(from.get(), id, sizeof id);
  require(size > 0, "read a uuid");
  Fd to(open(own, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
  require(write(to.get(), id, static_cast<size_t>(size)) == size, "write the boot id");
  mount_over(own, random, nullptr, MS_BIND);
}

void mount_all(const std::string& disk) {
  require(mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "make mounts private");
  mount_over("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  mount_sys();
  if (disk.empty()) return;
  mount_disk(disk);
  mount_over("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
  make_folder("/run/holdfast");
  make_folder("/run/lock");
  mount_boot_id();
}

void loopback_up() {
  Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK;
  require(ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0, "lo up");
}

// Reaps whatever is orphaned to us until the lifeline (the owner's end of stdin) closes.
[[noreturn]] void init_loop(bool lifeline) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  Fd signals(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  pollfd wait[2] = {{signals.get(), POLLIN, 0}, {lifeline ? STDIN_FILENO : -1, POLLIN, 0}};
  while (true) {
    if (poll(wait, 2, -1) < 0) continue;
    char bytes[1024];
    while (read(signals.get(), bytes, sizeof bytes) > 0) continue;
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
    if (wait[1].revents != 0 && read(STDIN_FILENO, bytes, sizeof bytes) <= 0) _exit(0);
  }
}

[[noreturn]] void become_init(const Options& options, Fd ready) {
  // Here and not before the fork: the parent must keep the /proc that it reports from.
  require(unshare(CLONE_NEWNS) == 0, "unshare mounts");
  const std::string& name = options.at("name");
  require(sethostname(name.c_str(), name.size()) == 0, "sethostname");
  mount_all(options.at("disk"));
  loopback_up();
  setsid();
  require(chdir("/") == 0, "chdir");
  Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  bool persist = options.at("persist") == "1";
  if (persist) dup2(null.get(), STDIN_FILENO);
  require(write(ready.get(), "r", 1) == 1, "report ready");
  ready.reset();
  dup2(null.get(), STDOUT_FILENO);
  dup2(null.get(), STDERR_FILENO);
  null.reset();
  init_loop(!persist);
}

}  // namespace

// lab_tool host name=N disk=DIR|"" persist=0|1
// Starts a host and prints {"pid":P,"start":S}. With persist=0 stdin must be a pipe: its closing
// ends the host, so a lab never outlives a killed owner.
int run_host(const Args& args) {
  Options options = parse_options(args, {{"name", ""}, {"disk", ""}, {"persist", "0"}});
  int pipes[2];
  require(pipe2(pipes, O_CLOEXEC) == 0, "pipe");
  Fd ready_in(pipes[0]);
  Fd ready_out(pipes[1]);
  require(unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID) == 0, "unshare");
  pid_t child = fork();
  require(child >= 0, "fork");
  if (child == 0) {
    ready_in.reset();
    become_init(options, std::move(ready_out));
  }
  ready_out.reset();
  char byte = 0;
  if (read(ready_in.get(), &byte, 1) != 1) die("the host could not be set up");
  write_line("{\"pid\":" + std::to_string(child) +
             ",\"start\":" + std::to_string(start_time(child)) + "}");
  // The owner's end of stdin stays open as long as this process does (Node closes it at our exit).
  if (options["persist"] != "1") waitpid(child, nullptr, 0);
  return 0;
}

namespace {

pid_t forward_to = 0;

void forward(int signal) {
  if (forward_to > 0) kill(forward_to, signal);
}

void forward_signals(pid_t child) {
  forward_to = child;
  struct sigaction action {};
  action.sa_handler = forward;
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH}) {
    sigaction(signal, &action, nullptr);
  }
}

[[noreturn]] void become_command(bool detach, const std::string& out, const std::string& cwd,
                                 const Args& argv) {
  if (detach) {
    setsid();
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0) dup2(null, STDIN_FILENO);
  } else {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  if (!out.empty()) {
    int file = open(out.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    require(file >= 0, "open " + out);
    dup2(file, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
  }
  std::signal(SIGPIPE, SIG_DFL);
  if (chdir(cwd.c_str()) != 0) require(chdir("/") == 0, "chdir");
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  std::fprintf(stderr, "lab_tool: %s: %s\n", words[0], std::strerror(errno));
  _exit(127);
}

}  // namespace

// lab_tool net PID:START COMMAND…
// Runs a command in the host's network namespace only: same files, same pids as outside.
int run_net(const Args& args) {
  if (args.size() < 2) die("usage: net PID:START COMMAND…");
  enter_net(args[0]);
  become_command(false, "", ".", Args(args.begin() + 1, args.end()));
}

// lab_tool exec PID:START detach=0|1 out=FILE cwd=DIR pid_fd=N -- COMMAND…
// Runs a command on a host. Writes "PID\n" (as the outside sees it) to pid_fd where that is not -1.
// Not detached: forwards signals, dies together with the command, returns its code or 128 + signal.
int run_exec(const Args& args) {
  size_t dash = 1;
  while (dash < args.size() && args[dash] != "--") dash++;
  if (dash + 1 >= args.size()) die("usage: exec PID:START [options] -- COMMAND…");
  auto at = [&args](size_t index) { return args.begin() + static_cast<long>(index); };
  Options options = parse_options(Args(at(1), at(dash)),
                                  {{"detach", "0"}, {"out", ""}, {"cwd", "/"}, {"pid_fd", "-1"}});
  Args argv(at(dash + 1), args.end());
  int pid_fd = std::atoi(options["pid_fd"].c_str());
  if (pid_fd >= 0) fcntl(pid_fd, F_SETFD, FD_CLOEXEC);
  Process target = open_process(args[0]);
  if (!target.pidfd.valid()) die("the host is gone");
  int spaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID;
  require(setns(target.pidfd.get(), spaces) == 0, "setns");
  bool detach = options["detach"] == "1";
  pid_t child = fork();
  require(child >= 0, "fork");
  if (child == 0) become_command(detach, options["out"], options["cwd"], argv);
  if (!detach) forward_signals(child);
  if (pid_fd >= 0) {
    std::string line = std::to_string(child) + "\n";
    require(write(pid_fd, line.data(), line.size()) > 0, "report the pid");
    close(pid_fd);
  }
  if (detach) return 0;
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) die("waitpid", errno);
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace holdfast::lab
