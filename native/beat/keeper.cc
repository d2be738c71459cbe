#include "beat/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>

#include "beat/notify.h"
#include "beat/process.h"
#include "common/clock.h"

namespace holdfast::beat {
namespace {

// The agent refuses to run here (another one holds the state folder, say): do not try again.
constexpr int exit_refused = 64;
constexpr int exit_failed = 1;
// An agent that lived this long died of something new: start it again at once.
constexpr int64_t settled_ns = 10 * ns_per_s;
constexpr int64_t backoff_first_ns = 100 * ns_per_ms;
constexpr int64_t backoff_max_ns = 5 * ns_per_s;
constexpr int64_t retry_interval_ns = ns_per_s;

/** First quick death: at once; then 100 ms, 200 ms, ... 5 s. */
int64_t backoff_ns(uint32_t quick_deaths) {
  if (quick_deaths <= 1) return 0;
  const uint32_t doublings = std::min(quick_deaths - 2, 10U);
  return std::min(backoff_first_ns << doublings, backoff_max_ns);
}

}  // namespace

Keeper::~Keeper() {
  delete control_;
  delete thread_;
}

void Keeper::log(const char* level, const char* what, const char* format, ...) const {
  char fields[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(fields, sizeof fields, format, arguments);
  va_end(arguments);
  char line[512];
  const int size =
      snprintf(line, sizeof line,
               "{\"time\":%lld,\"level\":\"%s\",\"name\":\"holdfastd\",\"msg\":\"%s\"%s%s}\n",
               static_cast<long long>(wall_ns() / ns_per_ms), level, what,
               fields[0] == 0 ? "" : ",", fields);
  // One write, so that lines of several processes do not mix. A full log is no reason to stop.
  [[maybe_unused]] const ssize_t written =
      write(STDERR_FILENO, line, static_cast<size_t>(std::min(size, int{sizeof line - 1})));
}

int Keeper::prepare() {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&handled, signal);
  sigprocmask(SIG_BLOCK, &handled, nullptr);
  signals_.reset(signalfd(-1, &handled, SFD_NONBLOCK | SFD_CLOEXEC));
  shm_.reset(memfd_create("holdfastd", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!signals_.valid() || !shm_.valid() || ftruncate(shm_.get(), sizeof(Shared)) != 0) {
    return errno;
  }
  // An agent that shrank the file could kill this process by SIGBUS.
  fcntl(shm_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, shm_.get(), 0);
  if (memory == MAP_FAILED) return errno;
  shared_ = static_cast<Shared*>(memory);  // all zero is its initial state
  shared_->magic = shm_magic;
  shared_->size = sizeof(Shared);
  uint64_t boot = 0;
  while (boot == 0) {
    if (getrandom(&boot, sizeof boot, 0) != sizeof boot) return errno;
  }
  // The number that the doorbell keeps; each agent's socket is put in its place.
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return errno;
  doorbell_.reset(pair[0]);
  close(pair[1]);
  locked_ = mlockall(MCL_CURRENT | MCL_FUTURE) == 0;
  thread_ = new (std::nothrow) HeartbeatThread(boot, *shared_, doorbell_.get(), locked_);
  if (thread_ == nullptr) return ENOMEM;
  control_ = new (std::nothrow) Control(*thread_);
  if (control_ == nullptr) return ENOMEM;
  return thread_->start();
}

int Keeper::run() {
  const int error = prepare();
  if (error != 0) {
    log("fatal", "holdfastd cannot start", "\"error\":\"%s\"", strerror(error));
    return exit_failed;
  }
  watchdog_ns_ = watchdog_interval_ns();
  log("info", "heartbeat thread runs", "\"pid\":%d,\"realtime\":%s,\"locked\":%s", getpid(),
      thread_->realtime() ? "true" : "false", locked_ ? "true" : "false");
  start();
  while (!done_) turn();
  thread_->stop();
  log("info", "holdfastd ends", "\"code\":%d", exit_code_);
  return exit_code_;
}

void Keeper::start() {
  int pair[2];
  restart_at_ = 0;
  started_at_ = boot_ns();
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    log("error", "no socket for the agent", "\"error\":\"%s\"", strerror(errno));
    restart_at_ = started_at_ + backoff_max_ns;
    return;
  }
  const Fd own(pair[0]);
  const Fd theirs(pair[1]);
  // Replaces the old socket in one step: the heartbeat thread may be ringing right now.
  dup3(own.get(), doorbell_.get(), O_CLOEXEC);
  control_->forget_input();
  connected_ = true;
  // The first agent has a whole deadline to come up. A later one has what is left of it: only the
  // agent itself says that it lives, or a crash loop would pass for life.
  if (restarts_ == 0) {
    shared_->agent_alive_ns.store(static_cast<uint64_t>(started_at_), std::memory_order_relaxed);
  }
  agent_ = start_agent(options_.command, theirs.get(), shm_.get());
  if (agent_ < 0) {
    agent_ = 0;
    log("error", "agent cannot be forked", "\"error\":\"%s\"", strerror(errno));
    restart_at_ = started_at_ + backoff_max_ns;
    return;
  }
  log("info", "agent started", "\"pid\":%d,\"restarts\":%u", agent_, restarts_);
}

int64_t Keeper::next_due(int64_t now) const {
  int64_t due = now + 60 * ns_per_s;
  for (const int64_t at : {restart_at_, kill_at_, watchdog_ns_ > 0 ? watchdog_at_ : 0}) {
    if (at > 0) due = std::min(due, at);
  }
  if (control_->wants_retry()) due = std::min(due, retry_at_);
  return due;
}

void Keeper::turn() {
  pollfd polled[2] = {{signals_.get(), POLLIN, 0}, {connected_ ? doorbell_.get() : -1, POLLIN, 0}};
  int64_t now = boot_ns();
  const timespec timeout = to_timespec(std::max(next_due(now) - now, int64_t{0}));
  ppoll(polled, 2, &timeout, nullptr);
  signalfd_siginfo signal;
  while (read(signals_.get(), &signal, sizeof signal) == sizeof signal) take_signal(signal);
  if (connected_ && polled[1].revents != 0) {
    const Control::Outcome outcome = control_->read(doorbell_.get());
    if (outcome == Control::Outcome::broken) {
      // The agent sees the end of its socket, ends itself, and is started again.
      log("error", "agent sent a command that makes no sense", "\"pid\":%d", agent_);
      shutdown(doorbell_.get(), SHUT_RDWR);
    }
    if (outcome != Control::Outcome::more) connected_ = false;
  }
  if (control_->take_ready()) notify_service_manager("READY=1");
  control_->sweep();
  now = boot_ns();
  if (now >= retry_at_) {
    control_->retry();
    retry_at_ = now + retry_interval_ns;
  }
  if (restart_at_ > 0 && now >= restart_at_ && !stopping_) start();
  if (kill_at_ > 0 && now >= kill_at_) {
    log("error", "agent did not end in time", "\"pid\":%d", agent_);
    kill_at_ = 0;
    if (agent_ > 0) kill(agent_, SIGKILL);
  }
  feed_watchdog(now);
}

void Keeper::take_signal(const signalfd_siginfo& signal) {
  switch (signal.ssi_signo) {
    case SIGCHLD:
      reap();
      break;
    case SIGHUP:
      if (agent_ > 0) kill(agent_, SIGHUP);
      break;
    default:
      stop_agent();
  }
}

void Keeper::stop_agent() {
  if (stopping_) return;
  stopping_ = true;
  notify_service_manager("STOPPING=1");
  if (agent_ == 0) {
    done_ = true;
    return;
  }
  log("info", "stopping", "\"pid\":%d", agent_);
  kill_at_ = boot_ns() + options_.stop_timeout_ns;
  kill(agent_, SIGTERM);
}

void Keeper::reap() {
  int status = 0;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid == agent_) agent_ended(status);
  }
}

void Keeper::agent_ended(int status) {
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  const int64_t now = boot_ns();
  const int64_t lived = now - started_at_;
  const bool refused = code == exit_refused;
  log(stopping_ ? "info" : "warn", "agent ended",
      "\"pid\":%d,\"code\":%d,\"signal\":%d,\"lived_ms\":%lld", agent_, code, signal,
      static_cast<long long>(lived / ns_per_ms));
  agent_ = 0;
  connected_ = false;
  if (stopping_ || refused) {
    done_ = true;
    exit_code_ = refused ? exit_refused : std::max(code, 0);
    // An agent that had no time to handle SIGTERM yet ended as it was told to.
    if (signal != 0 && signal != SIGTERM) exit_code_ = exit_failed;
    return;
  }
  restarts_++;
  thread_->set_agent_restarts(restarts_);
  quick_deaths_ = lived < settled_ns ? quick_deaths_ + 1 : 0;
  restart_at_ = now + backoff_ns(quick_deaths_);
}

/** The service manager hears of life only while the heartbeat thread turns. */
void Keeper::feed_watchdog(int64_t now) {
  if (watchdog_ns_ == 0 || now < watchdog_at_) return;
  watchdog_at_ = now + watchdog_ns_ / 4;
  if (now - thread_->last_turn() < std::max(watchdog_ns_ / 2, 2 * ns_per_s)) {
    notify_service_manager("WATCHDOG=1");
  }
}

}  // namespace holdfast::beat
