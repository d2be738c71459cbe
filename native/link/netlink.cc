#include "link/netlink.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <vector>

namespace holdfast::link {
namespace {

/** The kernel answers at once; this bounds a broken case, as it holds up the caller's thread. */
constexpr timeval answer_timeout = {5, 0};
/** A dump of a list that changes while it is read is made again, this many times. */
constexpr int dump_tries = 5;
/** The kernel fills dump buffers of up to 32 KiB (NLMSG_GOODSIZE and what a reader offers). */
constexpr size_t buffer_size = 32768;

}  // namespace

void each_attribute(const nlmsghdr* message, size_t body_size,
                    const std::function<void(uint16_t, const void*, size_t)>& each) {
  const char* at = reinterpret_cast<const char*>(message) + NLMSG_SPACE(body_size);
  const char* end = reinterpret_cast<const char*>(message) + message->nlmsg_len;
  while (end - at >= NLA_HDRLEN) {
    nlattr head;
    std::memcpy(&head, at, sizeof head);
    if (head.nla_len < NLA_HDRLEN || head.nla_len > end - at) return;
    each(head.nla_type & NLA_TYPE_MASK, at + NLA_HDRLEN,
         static_cast<size_t>(head.nla_len - NLA_HDRLEN));
    at += NLA_ALIGN(head.nla_len);
  }
}

Result<int> Netlink::send(nlmsghdr* message, const char* call) {
  if (!socket_.valid()) {
    socket_ = Fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol_));
    if (!socket_.valid()) return Result<int>::failure(errno, "socket");
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &answer_timeout, sizeof answer_timeout);
  }
  message->nlmsg_seq = ++sequence_;
  if (::send(socket_.get(), message, message->nlmsg_len, 0) < 0) {
    return Result<int>::failure(errno, call);
  }
  return Result<int>::success(0);
}

Result<int> Netlink::read(const char* call, const std::function<void(const nlmsghdr*)>& each,
                          bool& interrupted) {
  std::vector<char> buffer(buffer_size);
  while (true) {
    const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno == EAGAIN ? ETIMEDOUT : errno;
      // What comes after this belongs to a request that was given up.
      socket_.reset();
      return Result<int>::failure(error, call);
    }
    auto left = static_cast<uint32_t>(got);
    for (auto* at = reinterpret_cast<nlmsghdr*>(buffer.data()); NLMSG_OK(at, left);
         at = NLMSG_NEXT(at, left)) {
      if (at->nlmsg_seq != sequence_) continue;
      if ((at->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
      if (at->nlmsg_type == NLMSG_ERROR) {
        const int error = -static_cast<nlmsgerr*>(NLMSG_DATA(at))->error;
        return error == 0 ? Result<int>::success(0) : Result<int>::failure(error, call);
      }
      if (at->nlmsg_type == NLMSG_DONE) return Result<int>::success(0);
      each(at);
    }
  }
}

Result<int> Netlink::request(nlmsghdr* message, const char* call) {
  message->nlmsg_flags |= NLM_F_ACK;
  const Result<int> sent = send(message, call);
  bool interrupted = false;
  return sent.ok() ? read(
                         call, [](const nlmsghdr*) {}, interrupted)
                   : sent;
}

Result<int> Netlink::dump(nlmsghdr* message, const char* call,
                          const std::function<void(const nlmsghdr*)>& each) {
  message->nlmsg_flags |= NLM_F_DUMP;
  for (int attempt = 1;; attempt++) {
    const Result<int> sent = send(message, call);
    if (!sent.ok()) return sent;
    std::vector<std::vector<char>> messages;
    bool interrupted = false;
    const Result<int> result = read(
        call,
        [&messages](const nlmsghdr* each_message) {
          const char* from = reinterpret_cast<const char*>(each_message);
          messages.emplace_back(from, from + each_message->nlmsg_len);
        },
        interrupted);
    if (!result.ok()) return result;
    if (interrupted && attempt < dump_tries) continue;
    for (const auto& bytes : messages) each(reinterpret_cast<const nlmsghdr*>(bytes.data()));
    return result;
  }
}

}  // namespace holdfast::link
