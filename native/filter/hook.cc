#include "filter/hook.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "filter/pins.h"

namespace holdfast::filter {

namespace {

/* "HF": tells our tc filters from others'. Priority 1: before all that did not ask for it too. */
constexpr __u32 tc_handle = 0x4846;
constexpr __u32 tc_priority = 1;

bpf_tc_attach_point point_of(Direction direction) {
  return direction == Direction::ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
}

const char* direction_name(Direction direction) {
  return direction == Direction::ingress ? "ingress" : "egress";
}

std::string xdp_refusal(const Device& device, Hook hook, int error) {
  std::string mode = hook == Hook::xdp_native ? "native" : "generic";
  switch (error) {
    case EOPNOTSUPP:
      return "the driver of " + device.name + " has no " + mode + " XDP";
    case EBUSY:
    case EEXIST:
      return device.name + " already runs another XDP program";
    case EINVAL:
    case ERANGE:
      return "the driver of " + device.name + " refuses " + mode +
             " XDP as it is set up now (MTU, queues or offloads)";
    case EPERM:
      return "this process may not attach XDP programs to " + device.name;
    default:
      return sentence(mode + " XDP on " + device.name + " failed", error);
  }
}

}  // namespace

const char* hook_name(Hook hook) {
  switch (hook) {
    case Hook::xdp_native:
      return "xdp-native";
    case Hook::xdp_generic:
      return "xdp-generic";
    case Hook::tc:
      break;
  }
  return "tc";
}

bool read_device(const std::string& name, Device* device, std::string* why) {
  ifreq request{};
  if (name.empty() || name.size() >= sizeof(request.ifr_name)) {
    *why = "\"" + name + "\" is no name of a network device";
    return false;
  }
  memcpy(request.ifr_name, name.c_str(), name.size());
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid() || ioctl(socket.get(), SIOCGIFINDEX, &request) != 0) {
    *why = sentence("there is no network device " + name, errno);
    return false;
  }
  device->name = name;
  device->index = request.ifr_ifindex;
  if (ioctl(socket.get(), SIOCGIFHWADDR, &request) != 0 ||
      (request.ifr_hwaddr.sa_family != ARPHRD_ETHER &&
       request.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK)) {
    *why = name + " is not an Ethernet device";
    return false;
  }
  memcpy(device->mac.data(), request.ifr_hwaddr.sa_data, device->mac.size());
  return true;
}

XdpState query_xdp(int ifindex) {
  LIBBPF_OPTS(bpf_xdp_query_opts, options);
  XdpState state;
  if (bpf_xdp_query(ifindex, 0, &options) != 0) return state;
  state.program = options.prog_id;
  if (state.program == 0) {
    state.program = options.drv_prog_id != 0 ? options.drv_prog_id : options.skb_prog_id;
  }
  state.hook = options.attach_mode == XDP_ATTACHED_SKB ? Hook::xdp_generic : Hook::xdp_native;
  return state;
}

Fd attach_xdp(const Device& device, int program, Hook hook, std::string* why) {
  XdpState there = query_xdp(device.index);
  if (there.program != 0) {
    *why = device.name + " already runs another XDP program (id " + std::to_string(there.program) +
           ")";
    return {};
  }
  LIBBPF_OPTS(bpf_link_create_opts, options,
              .flags = hook == Hook::xdp_native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
  int fd = bpf_link_create(program, device.index, BPF_XDP, &options);
  if (fd < 0) {
    *why = xdp_refusal(device, hook, -fd);
    return {};
  }
  return Fd(fd);
}

bool attach_tc(const Device& device, int program, Direction direction, std::string* why) {
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = device.index, .attach_point = point_of(direction));
  int error = bpf_tc_hook_create(&hook);
  if (error == 0 || error == -EEXIST) {
    LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program, .flags = BPF_TC_F_REPLACE,
                .handle = tc_handle, .priority = tc_priority);
    error = bpf_tc_attach(&hook, &options);
  }
  if (error == 0) return true;
  *why = sentence(std::string("tc ") + direction_name(direction) + " on " + device.name + " failed",
                  -error);
  return false;
}

void detach_tc(const Device& device, Direction direction) {
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = device.index, .attach_point = point_of(direction));
  LIBBPF_OPTS(bpf_tc_opts, options, .handle = tc_handle, .priority = tc_priority);
  bpf_tc_detach(&hook, &options);
}

uint32_t query_tc(int ifindex, Direction direction) {
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point_of(direction));
  LIBBPF_OPTS(bpf_tc_opts, options, .handle = tc_handle, .priority = tc_priority);
  return bpf_tc_query(&hook, &options) == 0 ? options.prog_id : 0;
}

uint32_t program_id(int program) {
  bpf_prog_info info{};
  __u32 size = sizeof(info);
  return bpf_obj_get_info_by_fd(program, &info, &size) == 0 ? info.id : 0;
}

bool link_is_on(int link, int ifindex) {
  bpf_link_info info{};
  __u32 size = sizeof(info);
  return bpf_obj_get_info_by_fd(link, &info, &size) == 0 && info.type == BPF_LINK_TYPE_XDP &&
         info.xdp.ifindex == static_cast<__u32>(ifindex);
}

Fd attach_pass(const std::string& name, std::string* why) {
  Device device;
  if (!read_device(name, &device, why)) return {};
  const bpf_insn pass[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = XDP_PASS},
      {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
  };
  Fd program(bpf_prog_load(BPF_PROG_TYPE_XDP, "farm_pass", "GPL", pass, 2, nullptr));
  if (!program.valid()) {
    *why = sentence("the kernel refuses a program that passes everything", errno);
    return {};
  }
  return attach_xdp(device, program.get(), Hook::xdp_native, why);
}

}  // namespace holdfast::filter
