#include "replica/server.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

#include <cerrno>
#include <list>
#include <thread>

#include "common/clock.h"
#include "replica/core.h"
#include "replica/waits.h"

namespace holdfast::replica {
namespace {

constexpr size_t parked_max = 1024;
constexpr size_t parked_bytes_max = 64u << 20;

/** A request that waits for room, with its bytes. */
struct Parked {
  std::vector<uint8_t> bytes;
  Session* session;
  Intent* left;  // Call::left
};

/** Reads the head of a request. False: it is none. */
bool parse(Session& session, const uint8_t* bytes, size_t size, Call& call) {
  if (size < sizeof call.head) return false;
  std::memcpy(&call.head, bytes, sizeof call.head);
  if (call.head.len < sizeof call.head || call.head.len > size) return false;
  call.session = &session;
  call.body = bytes + sizeof call.head;
  call.size = call.head.len - sizeof call.head;
  call.unique = call.head.unique & ~fuse_unique_resend;
  call.again = (call.head.unique & fuse_unique_resend) != 0;
  call.file = session.file_of(call.head.nodeid);
  return true;
}

/** Wakes a thread that waits in read(2): the handler does nothing, and it is not restarted. */
constexpr int wake_signal = SIGURG;

/** True for what changes something, or makes a change durable. */
bool is_change(uint32_t opcode) {
  switch (opcode) {
    case FUSE_SETATTR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_WRITE:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_CREATE:
    case FUSE_FALLOCATE:
      return true;
    default:
      return false;
  }
}

void on_wake(int) {}

}  // namespace

Handled Core::handle(Call& call) {
  if (call.again) {
    if (!call.waited) again.fetch_add(1, std::memory_order_relaxed);
    if (call.left == nullptr && answer_left(call)) return Handled::yes;
  }
  switch (call.head.opcode) {
    case FUSE_LOOKUP:
      return op_lookup(call);
    case FUSE_FORGET:
      return op_forget(call);
    case FUSE_BATCH_FORGET:
      return op_batch_forget(call);
    case FUSE_GETATTR:
      return op_getattr(call);
    case fuse_op_statx:
      return op_statx(call);
    case FUSE_SETATTR:
      return op_setattr(call);
    case FUSE_READLINK:
      return op_readlink(call);
    case FUSE_SYMLINK:
      return op_symlink(call);
    case FUSE_MKNOD:
      return op_mknod(call);
    case FUSE_MKDIR:
      return op_mkdir(call);
    case FUSE_CREATE:
      return op_create(call);
    case fuse_op_tmpfile:
      return op_tmpfile(call);
    case FUSE_UNLINK:
    case FUSE_RMDIR:
      return op_unlink(call);
    case FUSE_RENAME:
    case FUSE_RENAME2:
      return op_rename(call);
    case FUSE_LINK:
      return op_link(call);
    case FUSE_OPEN:
      return op_open(call);
    case FUSE_READ:
      return op_read(call);
    case FUSE_WRITE:
      return op_write(call);
    case FUSE_STATFS:
      return op_statfs(call);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
      return op_release(call);
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
      return op_fsync(call);
    case FUSE_SETXATTR:
      return op_setxattr(call);
    case FUSE_GETXATTR:
      return op_getxattr(call);
    case FUSE_LISTXATTR:
      return op_listxattr(call);
    case FUSE_REMOVEXATTR:
      return op_removexattr(call);
    case FUSE_OPENDIR:
      return op_opendir(call);
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return op_readdir(call);
    case FUSE_FALLOCATE:
      return op_fallocate(call);
    case FUSE_LSEEK:
      return op_lseek(call);
    case FUSE_COPY_FILE_RANGE:
    case fuse_op_copy_file_range_64:
      return op_copy_file_range(call);
    case FUSE_INIT:
      call.session->answer_init(call.body - sizeof call.head, call.head.len, shared);
      return Handled::yes;
    case FUSE_INTERRUPT:
      // What is under way ends by itself; a change is not taken back.
      return Handled::yes;
    case FUSE_FLUSH:
      // Every write was taken when it came. Not ENOSYS: the kernel would never ask again.
    case FUSE_DESTROY:
      return finish(call, 0, {}), Handled::yes;
    default:
      return fail(call, ENOSYS), Handled::yes;
  }
}

struct Server::Impl {
  std::unique_ptr<Shared> own_shared;  // when nothing is to outlive the process
  Core core;
  std::vector<std::unique_ptr<Session>> sessions;
  std::list<std::thread> threads;
  std::vector<pthread_t> readers;
  std::atomic<size_t> reading{0};
  std::list<Parked> parked;  // under core.room_mutex
  size_t parked_bytes = 0;
  std::atomic<uint64_t> mounts_gone{0};
  RecentTimes change_times;
  bool adopted = false;
  bool mounted = false;
  int bad_rule = 0;

  Impl(Tree& tree, Ids& ids, Log& log, Shared* shared, ServerOptions options, Events& events)
      : own_shared(shared == nullptr ? new Shared() : nullptr),
        core(tree, ids, log, shared == nullptr ? own_shared.get() : shared, std::move(options),
             events) {
    for (const std::string& rule : core.options.skip) {
      if (core.skip.add(rule) != 0) bad_rule = EINVAL;
    }
  }

  void read_requests(Session& session);
  void park(const Call& call);
  void retry_parked();
  int add_session(std::unique_ptr<Session> session);
};

void Server::Impl::park(const Call& call) {
  std::unique_lock lock(core.room_mutex);
  // With the list full this thread reads nothing either: the kernel's own queue is next.
  core.room_changed.wait(lock, [&] {
    return core.stopping || (parked.size() < parked_max && parked_bytes < parked_bytes_max);
  });
  if (core.stopping) return;  // it stays unanswered, for the next process
  const uint8_t* begin = call.body - sizeof call.head;
  parked.push_back({{begin, begin + call.head.len}, call.session, call.left});
  parked_bytes += call.head.len;
  core.parked_now = parked.size();
  core.parked.fetch_add(1, std::memory_order_relaxed);
  // Who was parked only because others were has no waiter of its own.
  core.room_ready = true;
  core.room_changed.notify_all();
}

void Server::Impl::retry_parked() {
  unshare(CLONE_FS);
  std::unique_lock lock(core.room_mutex);
  for (;;) {
    core.room_changed.wait(lock,
                           [&] { return core.stopping || (core.room_ready && !parked.empty()); });
    if (core.stopping) return;
    core.room_ready = false;
    while (!parked.empty() && !core.stopping) {
      Parked& first = parked.front();
      Call call;
      parse(*first.session, first.bytes.data(), first.bytes.size(), call);
      call.waited = true;
      call.left = first.left;
      lock.unlock();
      const Handled handled = core.handle(call);
      if (handled == Handled::yes) core.log.push();
      lock.lock();
      first.left = call.left;
      if (handled == Handled::no_room) break;
      parked_bytes -= first.bytes.size();
      parked.pop_front();
      core.parked_now = parked.size();
      core.room_changed.notify_all();
    }
  }
}

void Server::Impl::read_requests(Session& session) {
  // The umask is the caller's, request by request, so it must not be that of all threads.
  unshare(CLONE_FS);
  const auto buffer = std::make_unique<uint8_t[]>(call_bytes);
  while (!core.stopping && !session.gone) {
    const ssize_t got = read(session.fd(), buffer.get(), call_bytes);
    if (got < 0) {
      if (errno == ENODEV) break;
      // ENOENT: the request was interrupted before it was read.
      if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
      core.events.warning("the FUSE connection cannot be read", errno);
      break;
    }
    Call call;
    if (!parse(session, buffer.get(), static_cast<size_t>(got), call)) continue;
    core.requests.fetch_add(1, std::memory_order_relaxed);
    const bool timed = is_change(call.head.opcode);
    const int64_t began = timed ? boot_ns() : 0;
    if (core.handle(call) == Handled::no_room) {
      park(call);
    } else {
      if (timed) {
        const int64_t now = boot_ns();
        change_times.add(now, now - began);
      }
      core.log.push();
    }
  }
  if (!core.stopping && !session.gone.exchange(true) && !session.ending) {
    mounts_gone.fetch_add(1);
    core.events.event("unmounted", {{"dir", session.path()}});
  }
  reading.fetch_sub(1);
}

int Server::Impl::add_session(std::unique_ptr<Session> session) {
  struct stat root {};
  const int fd = core.tree.root_fd(session->volume());
  if (fd < 0) return EINVAL;
  if (fstat(fd, &root) != 0) return errno;
  session->device = root.st_dev;
  sessions.push_back(std::move(session));
  return 0;
}

Server::Server(Tree& tree, Ids& ids, Log& log, Shared* shared, ServerOptions options,
               Events& events)
    : impl_(new Impl(tree, ids, log, shared, std::move(options), events)) {}

Server::~Server() {
  stop(false);
}

int Server::mount(uint8_t volume, const char* path, Fd& kept) {
  if (impl_->bad_rule != 0) return impl_->bad_rule;
  Result<Fd> fuse = Session::mount(path, "holdfast");
  if (!fuse.ok()) return fuse.error;
  kept.reset(dup(fuse.value.get()));
  auto session = std::make_unique<Session>(volume, std::move(fuse.value), path);
  int error = kept.valid() ? session->negotiate(impl_->core.shared) : errno;
  if (error == 0) error = impl_->add_session(std::move(session));
  if (error != 0) {
    umount2(path, MNT_DETACH);
    kept.reset();
    return error;
  }
  impl_->mounted = true;
  return 0;
}

int Server::adopt(uint8_t volume, const char* path, Fd fuse) {
  if (impl_->bad_rule != 0) return impl_->bad_rule;
  if ((impl_->core.shared->fuse_flags & fuse_has_resend) == 0) return EOPNOTSUPP;
  auto session = std::make_unique<Session>(volume, std::move(fuse), path);
  impl_->adopted = true;
  return impl_->add_session(std::move(session));
}

void Server::adopt_file(FileId id, Fd fd) {
  struct stat now {};
  IdEntry entry;
  if (fstat(fd.get(), &now) != 0 || !impl_->core.ids.get(id, entry)) return;
  Core::Unlinked held;
  held.kept = true;
  held.file = std::make_shared<OpenFile>();
  held.file->fd = std::move(fd);
  held.file->type = now.st_mode & S_IFMT;
  held.file->volume = entry.volume;
  const int flags = fcntl(held.file->fd.get(), F_GETFL);
  held.file->writable = flags >= 0 && (flags & O_ACCMODE) == O_RDWR;
  const std::lock_guard lock(impl_->core.unlinked_mutex);
  impl_->core.unlinked[id] = std::move(held);
  impl_->core.unlinked_count = impl_->core.unlinked.size();
}

int Server::start() {
  Impl& impl = *impl_;
  struct sigaction action {};
  action.sa_handler = on_wake;
  if (sigaction(wake_signal, &action, nullptr) != 0) return errno;
  if (impl.mounted && !impl.adopted) {
    // Nothing of an earlier mount is in use.
    impl.core.ids.forget_opens();
    for (size_t i = 0; i < intent_slots; i++) impl.core.shared->intents[i].phase.store(0);
  } else {
    impl.core.finish_all();
  }
  // Before anything is read: the kernel sends again whatever was read and has no answer, also what
  // this process would have read by then and be doing.
  for (const auto& session : impl.sessions) {
    if (!impl.adopted) break;
    const int error = session->ask_again();
    if (error != 0) return error;
  }
  impl.core.stopping = false;
  impl.threads.emplace_back([&impl] { impl.retry_parked(); });
  const unsigned count = impl.core.options.threads > 0 ? impl.core.options.threads : 1;
  for (const auto& session : impl.sessions) {
    for (unsigned i = 0; i < count; i++) {
      Session& own = *session;
      impl.reading.fetch_add(1);
      impl.threads.emplace_back([&impl, &own] { impl.read_requests(own); });
      impl.readers.push_back(impl.threads.back().native_handle());
    }
  }
  return 0;
}

void Server::stop(bool unmount, int wait_ms) {
  Impl& impl = *impl_;
  if (impl.threads.empty() && impl.sessions.empty()) return;
  for (const auto& session : impl.sessions) {
    if (!unmount || session->gone) continue;
    session->ending = true;
    int error = 0;
    for (int waited = 0; waited <= wait_ms; waited += 20) {
      error = umount2(session->path().c_str(), 0) == 0 ? 0 : errno;
      if (error != EBUSY) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (error == EBUSY) {
      impl.core.events.warning("a directory was in use when it was unmounted: " + session->path(),
                               error);
      umount2(session->path().c_str(), MNT_DETACH);
    }
    session->gone = true;
  }
  {
    const std::lock_guard lock(impl.core.room_mutex);
    impl.core.stopping = true;
    impl.core.room_changed.notify_all();
  }
  // A signal that comes just before read(2) is lost: again until all are out.
  while (impl.reading.load() > 0) {
    for (const pthread_t reader : impl.readers) pthread_kill(reader, wake_signal);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (std::thread& thread : impl.threads) thread.join();
  impl.threads.clear();
  impl.readers.clear();
  // The sessions stay: answers that wait for the peer go to them when the log ends.
}

Locks& Server::locks() {
  return impl_->core.locks;
}

int64_t Server::change_p99_ns() const {
  return impl_->change_times.quantile(0.99, boot_ns());
}

ServerStatus Server::status() const {
  const Core& core = impl_->core;
  ServerStatus status;
  status.minor = core.shared->fuse_minor;
  status.flags = core.shared->fuse_flags;
  status.max_write = core.shared->fuse_max_write;
  status.resend = (status.flags & fuse_has_resend) != 0;
  status.requests = core.requests.load();
  status.changes = core.changes.load();
  status.again = core.again.load();
  status.finished = core.finished.load();
  status.parked = core.parked.load();
  status.parked_now = core.parked_now.load();
  status.sync_failures = core.sync_failures.load();
  status.mounts_gone = impl_->mounts_gone.load();
  return status;
}

}  // namespace holdfast::replica
