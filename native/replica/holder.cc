#include "replica/holder.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/clock.h"
#include "replica/shared.h"

extern char** environ;

namespace holdfast::replica {

namespace {

constexpr uint64_t min_ring = 4u << 20;
constexpr uint64_t max_ring = uint64_t{64} << 30;

bool read_number(const char* text, uint64_t& out) {
  char* end = nullptr;
  errno = 0;
  out = strtoull(text, &end, 10);
  return errno == 0 && end != text && *end == 0 && text[0] >= '0' && text[0] <= '9';
}

uint64_t now_ns() {
  return uint64_t(clock_ns(CLOCK_MONOTONIC));
}

/** The holder while it runs. */
struct Holder {
  Options options;
  Fd listener, shared, worker, store, signals;
  Kept kept;
  Backoff backoff;
  bool quit = false;
  bool stopping = false;  // SIGTERM was seen
  uint64_t refused = 0;   // descriptors that could not be kept
};

void take(Holder& holder, StoreMessage& message) {
  const auto name = std::make_pair(message.kind, message.key);
  if (message.verb == StoreVerb::quit) holder.quit = true;
  if (message.verb == StoreVerb::drop) holder.kept.erase(name);
  if (message.verb != StoreVerb::keep) return;
  const bool first = holder.refused == 0;
  if (message.fd.valid() && (holder.kept.size() < max_kept || holder.kept.contains(name)))
    holder.kept[name] = std::move(message.fd);
  else
    holder.refused++;
  if (first && holder.refused > 0)
    fprintf(stderr, "holdfast-replica %s: more open files without a name than can be kept\n",
            holder.options.name.c_str());
}

/** Reads what the worker has sent. False: its end is closed. */
bool drain(Holder& holder) {
  while (holder.store.valid()) {
    StoreMessage message;
    const int error = store_receive(holder.store.get(), false, message);
    if (error == EAGAIN) return true;
    if (error == EPIPE) return false;
    if (error == 0)
      take(holder, message);
    else
      holder.refused++;
  }
  return false;
}

/** Starts a worker and gives it everything. 0 or errno. */
int start_worker(Holder& holder) {
  auto pair = store_pair();
  if (!pair.ok()) return pair.error;
  auto self = open_pidfd(getpid());
  if (!self.ok()) return self.error;
  const int fds[] = {holder.listener.get(), holder.shared.get(), pair.value.second.get(),
                     self.value.get()};
  const auto pid = spawn_self(holder.options, Options::Mode::worker, fds);
  if (!pid.ok()) return pid.error;
  auto pidfd = open_pidfd(pid.value);
  if (!pidfd.ok()) {
    // Without it the worker's death would not be seen, and two might run.
    kill(pid.value, SIGKILL);
    waitpid(pid.value, nullptr, 0);
    return pidfd.error;
  }
  holder.worker = std::move(pidfd.value);
  holder.store = std::move(pair.value.first);
  pair.value.second.reset();
  for (const auto& [name, fd] : holder.kept) {
    // A worker that dies meanwhile is seen by its pidfd.
    if (store_send(holder.store.get(), StoreVerb::here, name.first, name.second, fd.get()) != 0)
      return 0;
  }
  (void)store_send(holder.store.get(), StoreVerb::end, StoreKind::fuse, 0, -1);
  return 0;
}

/** What became of the worker, for the log. */
void log_death(Holder& holder) {
  siginfo_t info{};
  if (waitid(P_PIDFD, id_t(holder.worker.get()), &info, WEXITED | WNOHANG) != 0) info = {};
  if (holder.quit) return;
  // Of a worker that another holder had started, only the death is known.
  const char* how = "ended";
  if (info.si_code == CLD_EXITED) how = "ended with exit code";
  if (info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED) how = "was ended by signal";
  fprintf(stderr, "holdfast-replica %s: worker %llu %s %d\n", holder.options.name.c_str(),
          static_cast<unsigned long long>(holder.options.restarts + 1), how, info.si_status);
}

/** Waits so long, unless SIGTERM comes. */
void pause_ms(Holder& holder, int ms) {
  pollfd poll_signals{holder.signals.get(), POLLIN, 0};
  if (ms > 0 && poll(&poll_signals, 1, ms) > 0) holder.stopping = true;
}

/** The worker is dead: starts the next. False: the holder is to end. */
bool worker_died(Holder& holder) {
  const uint64_t died = now_ns();
  // What it sent before it died counts: no other end of the pair is open any more.
  drain(holder);
  log_death(holder);
  holder.store.reset();
  holder.worker.reset();
  if (holder.quit || holder.stopping) return false;
  pause_ms(holder, holder.backoff.died(died));
  holder.options.restarts++;
  holder.options.died_ns = died;
  while (!holder.stopping) {
    const int error = start_worker(holder);
    if (error == 0) return true;
    fprintf(stderr, "holdfast-replica %s: no worker: %s\n", holder.options.name.c_str(),
            strerror(error));
    pause_ms(holder, holder.backoff.died(now_ns()) + 100);
  }
  return false;
}

void on_signal(Holder& holder) {
  signalfd_siginfo info;
  if (read(holder.signals.get(), &info, sizeof info) != sizeof info) return;
  holder.stopping = true;
  (void)syscall(SYS_pidfd_send_signal, holder.worker.get(), SIGTERM, nullptr, 0);
}

}  // namespace

std::string parse_options(int count, char** arguments, Options& out) {
  for (int i = 1; i < count; i++) {
    const std::string_view name = arguments[i];
    if (name == "--worker" || name == "--adopt") {
      out.mode = name == "--worker" ? Options::Mode::worker : Options::Mode::adopt;
      continue;
    }
    if (i + 1 == count) return "nothing follows " + std::string(name);
    const char* value = arguments[++i];
    bool fine = true;
    if (name == "--control")
      out.control = value;
    else if (name == "--name")
      out.name = value;
    else if (name == "--log")
      out.log = value;
    else if (name == "--ring")
      fine = read_number(value, out.ring) && out.ring >= min_ring && out.ring <= max_ring &&
             out.ring % 4096 == 0;
    else if (name == "--restarts")
      fine = read_number(value, out.restarts);
    else if (name == "--died")
      fine = read_number(value, out.died_ns);
    else
      return "no such option: " + std::string(name);
    if (!fine) return std::string(name) + " cannot be " + value;
  }
  if (out.control.empty() || out.name.empty()) return "--control and --name are needed";
  if (out.control.size() >= sizeof(sockaddr_un::sun_path)) return "--control: too long a path";
  return "";
}

Result<pid_t> spawn_self(const Options& options, Options::Mode mode, std::span<const int> fds) {
  const std::string restarts = std::to_string(options.restarts);
  const std::string died = std::to_string(options.died_ns);
  const char* arguments[] = {"holdfast-replica",
                             mode == Options::Mode::worker ? "--worker" : "--adopt",
                             "--name",
                             options.name.c_str(),
                             "--control",
                             options.control.c_str(),
                             "--restarts",
                             restarts.c_str(),
                             "--died",
                             died.c_str(),
                             nullptr};
  // First out of the way: a source must not be what an earlier dup2 has replaced.
  std::vector<Fd> copies;
  for (const int fd : fds) {
    copies.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 32));
    if (!copies.back().valid()) return Result<pid_t>::failure(errno, "fcntl");
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  int target = listener_fd;
  for (const Fd& copy : copies) posix_spawn_file_actions_adddup2(&actions, copy.get(), target++);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, "/proc/self/exe", &actions, &attributes,
                                const_cast<char**>(arguments), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return Result<pid_t>::failure(error, "posix_spawn");
  return Result<pid_t>::success(pid);
}

Result<Fd> open_pidfd(pid_t pid) {
  const long fd = syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) return Result<Fd>::failure(errno, "pidfd_open");
  return Result<Fd>::success(Fd(int(fd)));
}

int Backoff::died(uint64_t now) {
  constexpr uint64_t second = uint64_t(ns_per_s);
  if (first_ns_ == 0 || now - first_ns_ > second + uint64_t(wait_ms_) * 1'000'000) {
    first_ns_ = now;
    deaths_ = 0;
    wait_ms_ = 0;
  }
  if (++deaths_ <= 5) return 0;
  first_ns_ = now;  // the next one within a second of this one's start counts on
  wait_ms_ = wait_ms_ == 0 ? 100 : std::min(wait_ms_ * 2, 5000);
  return wait_ms_;
}

int run_holder(const Options& options, Fd listener, Fd shared, Fd worker, Fd store) {
  Holder holder;
  holder.options = options;
  holder.listener = std::move(listener);
  holder.shared = std::move(shared);
  holder.worker = std::move(worker);
  holder.store = std::move(store);
  // Every descriptor may become one of ours.
  rlimit limit{max_kept + 1024, max_kept + 1024};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
  signal(SIGPIPE, SIG_IGN);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  holder.signals.reset(signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!holder.worker.valid()) {
    const int error = start_worker(holder);
    if (error != 0) {
      fprintf(stderr, "holdfast-replica %s: no worker: %s\n", options.name.c_str(),
              strerror(error));
      return 1;
    }
  }
  for (bool going = true; going;) {
    pollfd polls[] = {{holder.worker.get(), POLLIN, 0},
                      {holder.store.get(), POLLIN, 0},
                      {holder.signals.get(), POLLIN, 0}};
    if (poll(polls, 3, -1) < 0 && errno != EINTR) return 1;
    if (polls[1].revents != 0 && !drain(holder)) holder.store.reset();
    if (polls[2].revents != 0) on_signal(holder);
    if (polls[0].revents != 0) going = worker_died(holder);
  }
  unlink(options.control.c_str());
  return 0;
}

Result<Fd> listen_control(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Result<Fd>::failure(errno, "socket");
  if (connect(fd.get(), name, sizeof address) == 0)
    return Result<Fd>::failure(EADDRINUSE, "connect");
  fd.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  unlink(path.c_str());
  const mode_t mask = umask(0177);
  const int bound = bind(fd.get(), name, sizeof address);
  const int error = errno;
  umask(mask);
  if (bound != 0) return Result<Fd>::failure(error, "bind");
  if (listen(fd.get(), 64) != 0) return Result<Fd>::failure(errno, "listen");
  return Result<Fd>::success(std::move(fd));
}

Result<Fd> make_shared_memory(uint64_t ring) {
  Fd fd(memfd_create("holdfast-ring", MFD_CLOEXEC));
  if (!fd.valid()) return Result<Fd>::failure(errno, "memfd_create");
  if (ftruncate(fd.get(), off_t(sizeof(Shared) + ring)) != 0)
    return Result<Fd>::failure(errno, "ftruncate");
  const uint64_t head[] = {shared_magic, ring};
  static_assert(offsetof(Shared, ring_size) == sizeof(uint64_t));
  if (pwrite(fd.get(), head, sizeof head, 0) != sizeof head)
    return Result<Fd>::failure(errno, "pwrite");
  return Result<Fd>::success(std::move(fd));
}

}  // namespace holdfast::replica
