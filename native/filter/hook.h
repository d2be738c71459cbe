#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "common/fd.h"

namespace holdfast::filter {

/** Where the filter sits, best first. */
enum class Hook { xdp_native, xdp_generic, tc };

const char* hook_name(Hook hook);

struct Device {
  std::string name;
  int index = 0;
  std::array<uint8_t, 6> mac{};
};

/** Reads index and MAC; only Ethernet devices can carry a farm. */
bool read_device(const std::string& name, Device* device, std::string* why);

/** Id of the XDP program on a device and how it is attached; id 0: none. */
struct XdpState {
  uint32_t program = 0;
  Hook hook = Hook::xdp_native;
};
XdpState query_xdp(int ifindex);

/** Attaches by bpf_link; the link must be pinned to outlive this process. */
Fd attach_xdp(const Device& device, int program, Hook hook, std::string* why);

enum class Direction { ingress, egress };

/** Attaches to clsact (made when absent), replacing what an earlier process of ours left there. */
bool attach_tc(const Device& device, int program, Direction direction, std::string* why);
void detach_tc(const Device& device, Direction direction);

/** Id of our program at that place; 0: none. */
uint32_t query_tc(int ifindex, Direction direction);

uint32_t program_id(int program);

/** True when the link is an XDP link on this device (and not a leftover of one that is gone). */
bool link_is_on(int link, int ifindex);

/**
 * Attaches an XDP program that passes everything, for the far end of a veth: XDP_TX reaches it only
 * if it has a program of its own. Stays as long as the returned link is open.
 */
Fd attach_pass(const std::string& device, std::string* why);

}  // namespace holdfast::filter
