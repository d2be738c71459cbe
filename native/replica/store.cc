#include "replica/store.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>

namespace holdfast::replica {

namespace {

constexpr int buffer_bytes = 1 << 20;
/** A holder that is stopped must not stop the file system for ever. */
constexpr timeval send_timeout{5, 0};

bool known_kind(uint32_t kind) {
  return kind >= uint32_t(StoreKind::fuse) && kind <= uint32_t(StoreKind::open_file);
}

}  // namespace

Result<std::pair<Fd, Fd>> store_pair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return Result<std::pair<Fd, Fd>>::failure(errno, "socketpair");
  for (const int end : ends) {
    // Both are wishes: the kernel's defaults do, only with fewer messages under way.
    (void)setsockopt(end, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    (void)setsockopt(end, SOL_SOCKET, SO_SNDTIMEO, &send_timeout, sizeof send_timeout);
  }
  return Result<std::pair<Fd, Fd>>::success({Fd(ends[0]), Fd(ends[1])});
}

int store_send(int socket, StoreVerb verb, StoreKind kind, uint64_t key, int fd) {
  StoreHead head{uint32_t(verb), uint32_t(kind), key};
  iovec part{&head, sizeof head};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  }
  for (;;) {
    if (sendmsg(socket, &message, MSG_NOSIGNAL) >= 0) return 0;
    if (errno == ECONNRESET) return EPIPE;
    if (errno != EINTR) return errno;
  }
}

int store_receive(int socket, bool wait, StoreMessage& out) {
  StoreHead head{};
  iovec part{&head, sizeof head};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const int flags = MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT);
  ssize_t size;
  do size = recvmsg(socket, &message, flags);
  while (size < 0 && errno == EINTR);
  if (size < 0) return errno == ECONNRESET ? EPIPE : errno;
  if (size == 0) return EPIPE;
  out.fd.reset();
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      out.fd.reset(fd);
    }
  }
  const bool whole = size == sizeof head && (message.msg_flags & MSG_TRUNC) == 0;
  if (!whole || head.verb < 1 || head.verb > uint32_t(StoreVerb::quit) || !known_kind(head.kind))
    return EBADMSG;
  out.verb = StoreVerb(head.verb);
  out.kind = StoreKind(head.kind);
  out.key = head.key;
  return 0;
}

int Store::load() {
  std::lock_guard lock(mutex_);
  for (;;) {
    StoreMessage message;
    if (const int error = store_receive(socket_.get(), true, message); error != 0) return error;
    if (message.verb == StoreVerb::end) return 0;
    if (message.verb != StoreVerb::here) return EBADMSG;
    // The kernel leaves the descriptor out when this process may not open more.
    if (!message.fd.valid()) return EMFILE;
    kept_[{message.kind, message.key}] = std::move(message.fd);
  }
}

int Store::keep(StoreKind kind, uint64_t key, int fd) {
  Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 16));
  if (!copy.valid()) return errno;
  std::lock_guard lock(mutex_);
  if (kept_.size() >= max_kept && !kept_.contains({kind, key})) return ENFILE;
  const int error = store_send(socket_.get(), StoreVerb::keep, kind, key, copy.get());
  kept_[{kind, key}] = std::move(copy);
  return error == EPIPE ? 0 : error;
}

void Store::drop(StoreKind kind, uint64_t key) {
  std::lock_guard lock(mutex_);
  if (kept_.erase({kind, key}) == 0) return;
  (void)store_send(socket_.get(), StoreVerb::drop, kind, key, -1);
}

void Store::drop_all(StoreKind kind) {
  std::lock_guard lock(mutex_);
  for (auto at = kept_.begin(); at != kept_.end();) {
    if (at->first.first != kind) {
      ++at;
      continue;
    }
    (void)store_send(socket_.get(), StoreVerb::drop, kind, at->first.second, -1);
    at = kept_.erase(at);
  }
}

Fd Store::get(StoreKind kind, uint64_t key) const {
  std::lock_guard lock(mutex_);
  const auto at = kept_.find({kind, key});
  if (at == kept_.end()) return Fd();
  return Fd(fcntl(at->second.get(), F_DUPFD_CLOEXEC, 16));
}

size_t Store::count() const {
  std::lock_guard lock(mutex_);
  return kept_.size();
}

int Store::replace(Fd socket) {
  std::lock_guard lock(mutex_);
  socket_ = std::move(socket);
  for (const auto& [name, fd] : kept_) {
    const int error = store_send(socket_.get(), StoreVerb::keep, name.first, name.second, fd.get());
    if (error != 0) return error;
  }
  return store_send(socket_.get(), StoreVerb::end, StoreKind::fuse, 0, -1);
}

int Store::quit() {
  std::lock_guard lock(mutex_);
  return store_send(socket_.get(), StoreVerb::quit, StoreKind::fuse, 0, -1);
}

}  // namespace holdfast::replica
