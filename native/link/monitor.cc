#include "link/monitor.h"

#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>

#include "link/engine.h"

namespace holdfast::link {

Result<int> Monitor::start(std::function<void()> ring) {
  socket_ = Fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  wake_ = Fd(eventfd(0, EFD_CLOEXEC));
  if (!socket_.valid() || !wake_.valid()) return Result<int>::failure(errno, "socket");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
  if (bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return Result<int>::failure(errno, "bind");
  }
  ring_ = std::move(ring);
  thread_ = std::thread([this] { run(); });
  pthread_setname_np(thread_.native_handle(), "hf-link");
  return Result<int>::success(0);
}

void Monitor::stop() {
  stopping_.store(true);
  if (!thread_.joinable()) return;
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void Monitor::run() {
  while (!stopping_.load()) {
    pollfd wait[2] = {{socket_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (poll(wait, 2, -1) < 0 && errno != EINTR) return;
    if (wait[0].revents != 0 && !take()) return;
  }
}

bool Monitor::take() {
  alignas(nlmsghdr) char buffer[32768];
  const ssize_t got = recv(socket_.get(), buffer, sizeof buffer, 0);
  if (got < 0 && errno == ENOBUFS) {
    overrun_.store(true);
    if (!rung_.exchange(true)) ring_();
    return true;
  }
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  auto left = static_cast<uint32_t>(got);
  for (auto* at = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(at, left);
       at = NLMSG_NEXT(at, left)) {
    take_message(at);
  }
  return true;
}

void Monitor::take_message(const void* message) {
  const auto* header = static_cast<const nlmsghdr*>(message);
  MonitorEvent event{};
  if (header->nlmsg_type == RTM_NEWLINK || header->nlmsg_type == RTM_DELLINK) {
    const Device device = device_from(header);
    event.kind = MonitorEvent::Kind::link;
    event.on = header->nlmsg_type == RTM_NEWLINK && device.up;
    event.index = device.index;
    std::strncpy(event.name, device.name.c_str(), sizeof event.name - 1);
  } else if (header->nlmsg_type == RTM_NEWADDR || header->nlmsg_type == RTM_DELADDR) {
    const DeviceAddress found = address_from(header);
    event.kind = MonitorEvent::Kind::address;
    event.on = header->nlmsg_type == RTM_NEWADDR;
    event.index = found.index;
    event.address = found.address;
    char name[IF_NAMESIZE] = "";
    if_indextoname(static_cast<unsigned>(found.index), name);
    std::memcpy(event.name, name, sizeof event.name);
  } else {
    return;
  }
  push(event);
}

void Monitor::push(const MonitorEvent& event) {
  if (!events_.push(event)) overrun_.store(true);
  if (!rung_.exchange(true)) ring_();
}

uint32_t Monitor::drain(MonitorEvent* out, uint32_t limit) {
  // Cleared before the ring is read: an event that comes after the read rings again.
  rung_.store(false);
  if (limit > 0 && overrun_.exchange(false)) {
    out[0] = {MonitorEvent::Kind::overrun, true, 0, {}, {}};
    return 1 + events_.pop(out + 1, limit - 1);
  }
  return events_.pop(out, limit);
}

}  // namespace holdfast::link
