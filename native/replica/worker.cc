#include "replica/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "common/clock.h"
#include "replica/control.h"
#include "replica/role.h"

namespace holdfast::replica {

namespace {

struct Job {
  uint64_t client = 0;
  Request request;
};

constexpr size_t max_jobs = 64;

/** What the process asks of the kernel for itself; what it does not get is said in `status`. */
struct Features {
  std::string have, missing;

  void note(const char* name, bool there) {
    std::string& list = there ? have : missing;
    if (!list.empty()) list += ',';
    list += name;
  }
};

bool write_text(const char* path, const char* text) {
  Fd fd(open(path, O_WRONLY | O_CLOEXEC));
  return fd.valid() && write(fd.get(), text, strlen(text)) == ssize_t(strlen(text));
}

Features prepare_process() {
  Features features;
  umask(0);
  signal(SIGPIPE, SIG_IGN);
  // Threads take this over, so it comes before any. (PR_SET_IO_FLUSHER(2const), CAP_SYS_RESOURCE)
  features.note("io_flusher", prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0);
  features.note("memory_locked", mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0);
  const rlimit wanted{1u << 20, 1u << 20};
  bool raised = setrlimit(RLIMIT_NOFILE, &wanted) == 0;
  if (!raised) {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    raised = setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max >= max_kept * 2;
  }
  features.note("open_files", raised);
  features.note("oom_score", write_text("/proc/self/oom_score_adj", "-900"));
  return features;
}

/** One worker at a time, by a lock that goes with the process, however it ends. */
bool lock_shared() {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  while (fcntl(shared_fd, F_SETLKW, &whole) != 0)
    if (errno != EINTR) return false;
  return true;
}

class Worker final : public ControlHandler {
 public:
  explicit Worker(const Options& options) : options_(options), store_(Fd(store_fd)) {}
  int run();
  void request(uint64_t client, Request request) override;

 private:
  bool map_shared();
  Failure resize_ring(uint64_t bytes);
  void watch_holder();
  void start_holder();
  void serve();
  void serve_one(Job& job);
  void resume();
  Failure open_role(const Request& request, bool resumed);
  Failure close_role();
  Failure for_role(const Request& request);
  std::string status();
  void post(uint64_t client, Request request);

  Options options_;
  Features features_;
  Store store_;
  Control control_;
  Shared* shared_ = nullptr;
  size_t mapped_ = 0;
  Fd holder_{other_fd};  // pidfd
  std::atomic<pid_t> holder_pid_{getppid()};
  Backoff holder_deaths_;
  std::atomic<uint64_t> holders_started_{0};
  Fd stop_monitor_;
  std::thread monitor_;

  std::mutex jobs_mutex_;
  std::condition_variable jobs_ready_;
  std::deque<Job> jobs_;

  mutable std::mutex role_mutex_;  // role_: changed by the main thread, read by the control thread
  std::shared_ptr<Role> role_;
  const char* phase_ = "none";  // none, opening, open, closing, resuming
  bool quit_ = false;
};

/** Maps the shared memory; a layout of another version is emptied. */
bool Worker::map_shared() {
  struct stat attributes;
  if (fstat(shared_fd, &attributes) != 0) return false;
  mapped_ = size_t(attributes.st_size);
  void* at = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
  if (at == MAP_FAILED) return false;
  shared_ = static_cast<Shared*>(at);
  const uint64_t ring = mapped_ - sizeof(Shared);
  if (shared_->magic != shared_magic || shared_->ring_size != ring) {
    memset(at, 0, sizeof(Shared));
    shared_->ring_size = ring;
    shared_->magic = shared_magic;
  }
  return true;
}

/** Before a role: a ring of another size, empty. */
Failure Worker::resize_ring(uint64_t bytes) {
  if (bytes == 0 || bytes == shared_->ring_size) return {};
  if (bytes < (4u << 20) || bytes % 4096 != 0)
    return Failure::of(EINVAL, "ring= is at least 4 MiB, in whole 4 KiB");
  munmap(shared_, mapped_);
  const bool sized = ftruncate(shared_fd, off_t(sizeof(Shared) + bytes)) == 0;
  const int error = errno;
  if (!map_shared()) abort();  // it was mapped a moment ago, and cannot be done without
  return sized ? Failure{} : Failure::of(error, "the ring's memory");
}

void Worker::request(uint64_t client, Request request) {
  if (request.verb == "status") {
    control_.answer(client, status());
    return;
  }
  post(client, std::move(request));
}

void Worker::post(uint64_t client, Request request) {
  {
    std::lock_guard lock(jobs_mutex_);
    if (client == 0 || jobs_.size() < max_jobs) {
      jobs_.push_back({client, std::move(request)});
      jobs_ready_.notify_one();
      return;
    }
  }
  control_.answer(client, Line::error(EBUSY, "too many requests wait"));
}

std::string Worker::status() {
  std::shared_ptr<Role> role;
  Line line("ok");
  {
    std::lock_guard lock(role_mutex_);
    role = role_;
    line.add("phase", phase_);
  }
  line.add("name", options_.name).add("worker", uint64_t(getpid()));
  line.add("holder", uint64_t(holder_pid_.load()));
  line.add("restarts", options_.restarts).add("holders_started", holders_started_.load());
  line.add("kept", store_.count());
  line.add("features", features_.have).add("missing", features_.missing);
  line.add("events_lost", control_.events_lost());
  line.add("clients_dropped", control_.clients_dropped());
  if (role)
    role->status(line);
  else
    line.add("role", "none");
  return line.text();
}

/** The holder died: another one, with everything this worker has. */
void Worker::start_holder() {
  (void)waitid(P_PIDFD, id_t(holder_.get()), nullptr, WEXITED | WNOHANG);
  holder_.reset();
  auto pair = store_pair();
  auto self = open_pidfd(getpid());
  int error = pair.ok() ? self.error : pair.error;
  if (error == 0) {
    const int fds[] = {listener_fd, shared_fd, pair.value.second.get(), self.value.get()};
    const auto pid = spawn_self(options_, Options::Mode::adopt, fds);
    error = pid.error;
    if (pid.ok()) {
      auto pidfd = open_pidfd(pid.value);
      error = pidfd.error;
      holder_ = std::move(pidfd.value);
      holder_pid_ = pid.value;
    }
  }
  pair.value.second.reset();
  (void)lock_shared();  // closing a copy of the descriptor has unlocked it (fcntl(2))
  if (error == 0) error = store_.replace(std::move(pair.value.first));
  if (error == 0)
    holders_started_.fetch_add(1);
  else
    control_.warning("the holder died and cannot be replaced", error);
}

/** Thread: ends with stop_monitor_. */
void Worker::watch_holder() {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  Fd signals(signalfd(-1, &ends, SFD_CLOEXEC));
  for (;;) {
    pollfd polls[] = {
        {stop_monitor_.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}, {holder_.get(), POLLIN, 0}};
    if (poll(polls, 3, holder_.valid() ? -1 : 1000) < 0) continue;
    if (polls[0].revents != 0) return;
    signalfd_siginfo info;
    if (polls[1].revents != 0 && read(signals.get(), &info, sizeof info) == sizeof info) {
      Request request;
      request.verb = "quit";
      post(0, std::move(request));
    }
    if (polls[2].revents == 0 && holder_.valid()) continue;
    if (holder_.valid()) control_.warning("the holder died: another one is started");
    const int wait_ms = holder_deaths_.died(uint64_t(clock_ns(CLOCK_MONOTONIC)));
    pollfd stop{stop_monitor_.get(), POLLIN, 0};
    if (wait_ms > 0 && poll(&stop, 1, wait_ms) > 0) return;
    start_holder();
  }
}

Failure Worker::open_role(const Request& request, bool resumed) {
  if (role_) return Failure::of(EBUSY, "a role is open: close it first");
  OpenLine line;
  if (Failure wrong = parse_open(request, line); wrong.failed()) return wrong;
  if (!resumed) {
    for (const std::string& path : line.tocheck)
      if (access(path.c_str(), F_OK) != 0) return Failure::of(errno, "tocheck=" + path);
    if (Failure wrong = resize_ring(line.ring); wrong.failed()) return wrong;
  }
  RoleContext context{control_,      store_, shared_, reinterpret_cast<uint8_t*>(shared_ + 1),
                      options_.name, resumed};
  std::shared_ptr<Role> role = make_role(context, line);
  {
    std::lock_guard lock(role_mutex_);
    role_ = role;
    phase_ = resumed ? "resuming" : "opening";
  }
  // From here on a new worker would have to clean up after this one.
  if (!resumed) {
    memcpy(shared_->resume, request.line.data(), request.line.size());
    shared_->resume_used = uint32_t(request.line.size());
  }
  const Failure failure = role->open();
  if (failure.failed()) (void)role->close();
  std::lock_guard lock(role_mutex_);
  if (failure.failed()) {
    role_.reset();
    phase_ = "none";
    shared_->role = 0;
    shared_->resume_used = 0;
    return failure;
  }
  phase_ = "open";
  shared_->role = uint32_t(line.role);
  return {};
}

Failure Worker::close_role() {
  if (!role_) return {};
  {
    std::lock_guard lock(role_mutex_);
    phase_ = "closing";
  }
  const Failure failure = role_->close();
  shared_->role = 0;
  shared_->resume_used = 0;
  std::lock_guard lock(role_mutex_);
  role_.reset();
  phase_ = "none";
  return failure;
}

/** Requests that need a role. */
Failure Worker::for_role(const Request& request) {
  if (!role_) return Failure::of("ROLE", "no role is open");
  char* end = nullptr;
  const std::string text(request.get(request.verb == "cut" ? "ms" : "epoch", "0"));
  const uint64_t number = strtoull(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != 0) return Failure::of(EINVAL, "not a number: " + text);
  if (request.verb == "alone") return role_->alone(number);
  if (request.verb == "joined") return role_->joined(number);
  if (request.verb == "verify") return role_->verify();
  if (request.verb == "cut") return role_->cut(uint32_t(std::min<uint64_t>(number, 3'600'000)));
  return Failure::of(EINVAL, "no such verb: " + request.verb);
}

void Worker::serve_one(Job& job) {
  const Request& request = job.request;
  Failure failure;
  if (request.verb == "open")
    failure = open_role(request, false);
  else if (request.verb == "close")
    failure = close_role();
  else if (request.verb == "quit") {
    failure = close_role();
    quit_ = true;
  } else
    failure = for_role(request);
  const std::string answer =
      failure.failed() ? Line::error(failure.code, failure.text) : std::string("ok");
  if (job.client != 0) control_.answer(job.client, answer);
}

/** Goes on with what the last worker did. */
void Worker::resume() {
  if (shared_->resume_used == 0) return;
  Request request;
  const std::string wrong = parse_request(
      std::string_view(shared_->resume, std::min<size_t>(shared_->resume_used, max_line)), request);
  const Failure failure =
      wrong.empty() ? open_role(request, true) : Failure::of(EINVAL, "resume: " + wrong);
  if (failure.failed()) {
    control_.event("warning",
                   {{"text", "the role is lost: " + failure.text}, {"code", failure.code}});
    control_.event("role", {{"role", "none"}});
    return;
  }
  const uint64_t now = uint64_t(clock_ns(CLOCK_MONOTONIC));
  const uint64_t pause_us = options_.died_ns == 0 ? 0 : (now - options_.died_ns) / 1000;
  control_.event("resumed", {{"pause_us", pause_us}, {"restarts", options_.restarts}});
}

void Worker::serve() {
  resume();
  while (!quit_) {
    Job job;
    {
      std::unique_lock lock(jobs_mutex_);
      jobs_ready_.wait(lock, [this] { return !jobs_.empty(); });
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    serve_one(job);
  }
}

int Worker::run() {
  prctl(PR_SET_NAME, "replica-worker", 0, 0, 0);
  // One worker at a time: the lock goes with the process, however it ends.
  struct flock whole {};
  whole.l_type = F_WRLCK;
  while (fcntl(shared_fd, F_SETLKW, &whole) != 0)
    if (errno != EINTR) return 3;
  features_ = prepare_process();
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  stop_monitor_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (const int error = store_.load(); error != 0) {
    fprintf(stderr, "holdfast-replica %s: fd store: %s\n", options_.name.c_str(), strerror(error));
    return 3;
  }
  if (!map_shared()) return 3;
  if (shared_->resume_used != 0) phase_ = "resuming";
  // The holder may have to give the listener to a new one: this one's own copy stays open.
  const auto started = control_.start(Fd(fcntl(listener_fd, F_DUPFD_CLOEXEC, 16)), *this);
  if (!started.ok()) return 3;
  monitor_ = std::thread([this] { watch_holder(); });
  serve();
  const uint64_t one = 1;
  if (write(stop_monitor_.get(), &one, sizeof one) != sizeof one) return 3;
  monitor_.join();
  (void)store_.quit();
  control_.stop(1000);
  return 0;
}

}  // namespace

int run_worker(const Options& options) {
  // Not freed: threads of the engine may end later than this scope would.
  auto* worker = new Worker(options);
  const int code = worker->run();
  fflush(nullptr);
  _exit(code);
}

}  // namespace holdfast::replica
