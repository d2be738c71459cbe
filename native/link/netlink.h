#pragma once
#include <linux/netlink.h>

#include <cstdint>
#include <cstring>
#include <functional>

#include "common/fd.h"
#include "common/result.h"

namespace holdfast::link {

/** One netlink request with a body of fixed type and attributes, built in place. */
template <typename Body>
class Message {
 public:
  Message(uint16_t type, uint16_t flags) {
    header()->nlmsg_len = static_cast<uint32_t>(NLMSG_LENGTH(sizeof(Body)));
    header()->nlmsg_type = type;
    header()->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  }
  nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(bytes_); }
  Body& body() { return *static_cast<Body*>(NLMSG_DATA(header())); }

  /** Appends an attribute of at most 32 bytes; the buffer has room for eight. */
  void attribute(uint16_t type, const void* value, size_t size) {
    const size_t at = NLMSG_ALIGN(header()->nlmsg_len);
    nlattr attribute{static_cast<uint16_t>(NLA_HDRLEN + size), type};
    std::memcpy(bytes_ + at, &attribute, sizeof attribute);
    std::memcpy(bytes_ + at + NLA_HDRLEN, value, size);
    header()->nlmsg_len = static_cast<uint32_t>(at + NLA_HDRLEN + size);
  }

 private:
  alignas(nlmsghdr) char bytes_[NLMSG_SPACE(sizeof(Body)) + 8 * (NLA_HDRLEN + 32)] = {};
};

/** Calls `each` with the type, value and size of every attribute that follows a message's body. */
void each_attribute(const nlmsghdr* message, size_t body_size,
                    const std::function<void(uint16_t, const void*, size_t)>& each);

/** A netlink socket for requests, used by one thread at a time. No call waits beyond 5 s. */
class Netlink {
 public:
  /** protocol: NETLINK_ROUTE, NETLINK_SOCK_DIAG. The socket is opened by the first call. */
  explicit Netlink(int protocol) : protocol_(protocol) {}

  /** Sends a request and returns the kernel's verdict (value unused). */
  Result<int> request(nlmsghdr* message, const char* call);

  /** Sends a dump request and calls `each` with every message of the answer. */
  Result<int> dump(nlmsghdr* message, const char* call,
                   const std::function<void(const nlmsghdr*)>& each);

 private:
  Result<int> send(nlmsghdr* message, const char* call);
  /** Reads answers to the last request until its end; `interrupted` when the list changed
   * meanwhile. */
  Result<int> read(const char* call, const std::function<void(const nlmsghdr*)>& each,
                   bool& interrupted);

  int protocol_;
  uint32_t sequence_ = 0;
  Fd socket_;
};

}  // namespace holdfast::link
