#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/result.h"
#include "link/address.h"
#include "link/netlink.h"

namespace holdfast::link {

struct Device {
  int index = 0;
  std::string name;
  Mac mac{};
  /** Switched on and with carrier. */
  bool up = false;
  uint32_t mtu = 0;
};

struct DeviceAddress {
  int index = 0;
  Address address;
  uint8_t prefix = 0;
};

enum class Allowed : uint8_t { fdb, promiscuous };

/** Addresses and MAC filters of this network namespace by rtnetlink. For one thread. */
class Engine {
 public:
  Result<std::vector<Device>> devices();
  Result<std::vector<DeviceAddress>> addresses();

  /** Adds; IPv6 without duplicate address detection, no prefix route. Already there: no error. */
  Result<int> add_address(const std::string& device, const Address& address, uint8_t prefix);
  /** Removes. Not there, or no such device: no error. */
  Result<int> remove_address(const std::string& device, const Address& address, uint8_t prefix);

  /**
   * Lets frames to a further MAC, unicast or multicast, through the card's filter: an fdb "self"
   * entry (net/core/rtnetlink.c, ndo_dflt_fdb_add), or promiscuous mode where the driver has none.
   * Either outlives this process.
   */
  Result<Allowed> allow_mac(const std::string& device, const Mac& mac);
  /** Takes it back. Promiscuous mode ends with the last MAC that this engine needed it for. */
  Result<int> disallow_mac(const std::string& device, const Mac& mac);

 private:
  Result<int> change_address(const std::string& device, const Address& address, uint8_t prefix,
                             bool add);
  Result<int> change_fdb(int index, const Mac& mac, bool add);

  Netlink route_{NETLINK_ROUTE};
  /** MACs for which this engine switched a device to promiscuous mode. */
  std::map<std::string, std::set<Mac>> promiscuous_;
};

/** The device that an RTM_NEWLINK or RTM_DELLINK message speaks of. */
Device device_from(const nlmsghdr* message);
/** The address that an RTM_NEWADDR or RTM_DELADDR message speaks of. */
DeviceAddress address_from(const nlmsghdr* message);

/** MAC of a device of this namespace. */
Result<Mac> mac_of(const std::string& device);

}  // namespace holdfast::link
