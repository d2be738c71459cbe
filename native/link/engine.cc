#include "link/engine.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

namespace holdfast::link {
namespace {

/** An ifreq for a device; false when the name cannot be one. */
bool name_request(const std::string& device, ifreq& request) {
  if (device.empty() || device.size() >= sizeof request.ifr_name) return false;
  std::memcpy(request.ifr_name, device.c_str(), device.size() + 1);
  return true;
}

Result<int> set_promiscuous(const std::string& device, bool on, bool& changed) {
  const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  changed = false;
  if (!name_request(device, request)) return Result<int>::failure(ENODEV, "SIOCGIFFLAGS");
  if (ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) {
    return Result<int>::failure(errno, "SIOCGIFFLAGS");
  }
  const bool is_on = (request.ifr_flags & IFF_PROMISC) != 0;
  if (is_on == on) return Result<int>::success(0);
  request.ifr_flags = static_cast<short>(request.ifr_flags ^ IFF_PROMISC);
  if (ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) {
    return Result<int>::failure(errno, "SIOCSIFFLAGS");
  }
  changed = true;
  return Result<int>::success(0);
}

int index_of(const std::string& device) {
  return static_cast<int>(if_nametoindex(device.c_str()));
}

}  // namespace

Device device_from(const nlmsghdr* message) {
  const auto* info = static_cast<const ifinfomsg*>(NLMSG_DATA(message));
  Device device;
  device.index = info->ifi_index;
  device.up = (info->ifi_flags & IFF_UP) != 0 && (info->ifi_flags & IFF_RUNNING) != 0;
  each_attribute(message, sizeof *info, [&](uint16_t type, const void* value, size_t size) {
    if (type == IFLA_IFNAME && size > 0) {
      device.name = std::string(static_cast<const char*>(value), size - 1);
    } else if (type == IFLA_ADDRESS && size == device.mac.size()) {
      std::memcpy(device.mac.data(), value, size);
    } else if (type == IFLA_MTU && size == sizeof device.mtu) {
      std::memcpy(&device.mtu, value, size);
    }
  });
  return device;
}

DeviceAddress address_from(const nlmsghdr* message) {
  const auto* info = static_cast<const ifaddrmsg*>(NLMSG_DATA(message));
  DeviceAddress found;
  found.index = static_cast<int>(info->ifa_index);
  found.prefix = info->ifa_prefixlen;
  bool local = false;
  // On a point-to-point device IFA_ADDRESS is the far end; IFA_LOCAL, where given, is ours.
  each_attribute(message, sizeof *info, [&](uint16_t type, const void* value, size_t size) {
    if (type != IFA_LOCAL && (type != IFA_ADDRESS || local)) return;
    local = type == IFA_LOCAL;
    found.address = address_from(info->ifa_family, value, size);
  });
  return found;
}

Result<Mac> mac_of(const std::string& device) {
  const Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  if (!name_request(device, request)) return Result<Mac>::failure(ENODEV, "SIOCGIFHWADDR");
  if (ioctl(fd.get(), SIOCGIFHWADDR, &request) != 0) {
    return Result<Mac>::failure(errno, "SIOCGIFHWADDR");
  }
  Mac mac;
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  return Result<Mac>::success(mac);
}

Result<std::vector<Device>> Engine::devices() {
  Message<ifinfomsg> message(RTM_GETLINK, 0);
  std::vector<Device> list;
  const Result<int> result =
      route_.dump(message.header(), "RTM_GETLINK", [&list](const nlmsghdr* each) {
        if (each->nlmsg_type == RTM_NEWLINK) list.push_back(device_from(each));
      });
  if (!result.ok()) return Result<std::vector<Device>>::failure(result.error, result.call);
  return Result<std::vector<Device>>::success(std::move(list));
}

Result<std::vector<DeviceAddress>> Engine::addresses() {
  Message<ifaddrmsg> message(RTM_GETADDR, 0);
  std::vector<DeviceAddress> list;
  const Result<int> result =
      route_.dump(message.header(), "RTM_GETADDR", [&list](const nlmsghdr* each) {
        if (each->nlmsg_type == RTM_NEWADDR) list.push_back(address_from(each));
      });
  if (!result.ok()) return Result<std::vector<DeviceAddress>>::failure(result.error, result.call);
  return Result<std::vector<DeviceAddress>>::success(std::move(list));
}

Result<int> Engine::change_address(const std::string& device, const Address& address,
                                   uint8_t prefix, bool add) {
  Message<ifaddrmsg> message(add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_EXCL : 0);
  const int index = index_of(device);
  const char* call = add ? "RTM_NEWADDR" : "RTM_DELADDR";
  if (index == 0) return Result<int>::failure(ENODEV, call);
  message.body().ifa_family = address.family;
  message.body().ifa_prefixlen = prefix;
  message.body().ifa_index = static_cast<uint32_t>(index);
  message.attribute(IFA_LOCAL, address.bytes.data(), address.size());
  message.attribute(IFA_ADDRESS, address.bytes.data(), address.size());
  if (add) {
    // Duplicate address detection would hold a taken-over address back for a second or more; the
    // prefix is already routed by the device's own address.
    uint32_t flags = IFA_F_NOPREFIXROUTE;
    if (address.family == AF_INET6) flags |= IFA_F_NODAD;
    message.attribute(IFA_FLAGS, &flags, sizeof flags);
  }
  return route_.request(message.header(), call);
}

Result<int> Engine::add_address(const std::string& device, const Address& address, uint8_t prefix) {
  const Result<int> result = change_address(device, address, prefix, true);
  return result.error == EEXIST ? Result<int>::success(0) : result;
}

Result<int> Engine::remove_address(const std::string& device, const Address& address,
                                   uint8_t prefix) {
  const Result<int> result = change_address(device, address, prefix, false);
  const bool gone = result.error == EADDRNOTAVAIL || result.error == ENODEV;
  return gone ? Result<int>::success(0) : result;
}

Result<int> Engine::change_fdb(int index, const Mac& mac, bool add) {
  Message<ndmsg> message(add ? RTM_NEWNEIGH : RTM_DELNEIGH, add ? NLM_F_CREATE | NLM_F_EXCL : 0);
  message.body().ndm_family = AF_BRIDGE;
  message.body().ndm_ifindex = index;
  message.body().ndm_state = NUD_PERMANENT;
  message.body().ndm_flags = NTF_SELF;
  message.attribute(NDA_LLADDR, mac.data(), mac.size());
  return route_.request(message.header(), add ? "RTM_NEWNEIGH" : "RTM_DELNEIGH");
}

Result<Allowed> Engine::allow_mac(const std::string& device, const Mac& mac) {
  const int index = index_of(device);
  if (index == 0) return Result<Allowed>::failure(ENODEV, "RTM_NEWNEIGH");
  const Result<int> added = change_fdb(index, mac, true);
  if (added.ok() || added.error == EEXIST) return Result<Allowed>::success(Allowed::fdb);
  bool changed = false;
  const Result<int> result = set_promiscuous(device, true, changed);
  if (!result.ok()) return Result<Allowed>::failure(result.error, result.call);
  if (changed || promiscuous_.contains(device)) promiscuous_[device].insert(mac);
  return Result<Allowed>::success(Allowed::promiscuous);
}

Result<int> Engine::disallow_mac(const std::string& device, const Mac& mac) {
  const int index = index_of(device);
  if (index == 0) return Result<int>::success(0);
  auto needing = promiscuous_.find(device);
  if (needing == promiscuous_.end() || needing->second.erase(mac) == 0) {
    const Result<int> removed = change_fdb(index, mac, false);
    const bool gone = removed.error == ENOENT || removed.error == EOPNOTSUPP;
    return gone ? Result<int>::success(0) : removed;
  }
  if (!needing->second.empty()) return Result<int>::success(0);
  promiscuous_.erase(needing);
  bool changed = false;
  return set_promiscuous(device, false, changed);
}

}  // namespace holdfast::link
