// Device settings that iproute2 has no words for, and the power cut.

#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "lab/commands.h"
#include "lab/util.h"

namespace holdfast::lab {
namespace {

ifreq request_for(const std::string& device) {
  ifreq request{};
  if (device.size() >= sizeof request.ifr_name) die("device name too long: " + device);
  std::strcpy(request.ifr_name, device.c_str());
  return request;
}

// Checksum and segmentation offloads off: every frame on the wire is then a real frame of at most
// the MTU with a valid checksum, which counting tests and the relay need.
void offloads_off(const std::string& device) {
  Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  for (uint32_t command :
       {ETHTOOL_STXCSUM, ETHTOOL_SSG, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO}) {
    ethtool_value value{command, 0};
    ifreq request = request_for(device);
    request.ifr_data = reinterpret_cast<char*>(&value);
    if (ioctl(fd.get(), SIOCETHTOOL, &request) != 0 && errno != EOPNOTSUPP) {
      die("offloads of " + device, errno);
    }
  }
}

// "r0 = XDP_PASS; exit": loaded by hand because libbpf for two instructions would be a dependency.
Fd load_pass() {
  bpf_insn code[2] = {};
  code[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  code[0].dst_reg = BPF_REG_0;
  code[0].imm = XDP_PASS;
  code[1].code = BPF_JMP | BPF_EXIT;
  bpf_attr attr{};
  attr.prog_type = BPF_PROG_TYPE_XDP;
  attr.insn_cnt = 2;
  attr.insns = reinterpret_cast<uint64_t>(code);
  attr.license = reinterpret_cast<uint64_t>("GPL");
  return Fd(static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr)));
}

// RTM_SETLINK with IFLA_XDP {IFLA_XDP_FD, IFLA_XDP_FLAGS}: the program stays with the device, so
// no process has to hold it.
struct [[gnu::packed]] XdpMessage {
  nlmsghdr header;
  ifinfomsg info;
  rtattr nest;
  rtattr fd_attr;
  int32_t fd;
  rtattr flags_attr;
  uint32_t flags;
};

int attach_pass(const std::string& device) {
  Fd program = load_pass();
  if (!program.valid()) return errno;
  Fd netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  XdpMessage message{};
  message.header = {sizeof message, RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0};
  message.info.ifi_index = static_cast<int>(if_nametoindex(device.c_str()));
  message.nest = {sizeof(rtattr) * 3 + 8, IFLA_XDP | NLA_F_NESTED};
  message.fd_attr = {sizeof(rtattr) + 4, IFLA_XDP_FD};
  message.fd = program.get();
  message.flags_attr = {sizeof(rtattr) + 4, IFLA_XDP_FLAGS};
  message.flags = XDP_FLAGS_DRV_MODE;
  require(send(netlink.get(), &message, sizeof message, 0) > 0, "netlink");
  char reply[4096];
  ssize_t got = recv(netlink.get(), reply, sizeof reply, 0);
  if (got < static_cast<ssize_t>(sizeof(nlmsghdr) + sizeof(nlmsgerr))) return EPROTO;
  auto* error = reinterpret_cast<nlmsgerr*>(reply + sizeof(nlmsghdr));
  return -error->error;
}

}  // namespace

// lab_tool device PID:START offloads-off|xdp-pass DEVICE…
// xdp-pass lets the far end of a veth use XDP_TX in native mode (the kernel asks for a program on
// both ends).
int run_device(const Args& args) {
  if (args.size() < 3) die("usage: device PID:START offloads-off|xdp-pass DEVICE…");
  enter_net(args[0]);
  for (size_t i = 2; i < args.size(); i++) {
    if (args[1] == "offloads-off") {
      offloads_off(args[i]);
    } else if (args[1] == "xdp-pass") {
      int error = attach_pass(args[i]);
      if (error != 0) die("XDP program on " + args[i], error);
    } else {
      die("unknown setting: " + args[1]);
    }
  }
  return 0;
}

// lab_tool power SWITCH_PID:START INIT_PID:START PORT…
// A power cut: the host's switch ports go down first, so that no FIN or RST of a dying process
// leaves, and at once every process of the host ends.
int run_power(const Args& args) {
  if (args.size() < 2) die("usage: power SWITCH INIT PORT…");
  Process init = open_process(args[1]);
  enter_net(args[0]);
  Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  for (size_t i = 2; i < args.size(); i++) {
    ifreq request = request_for(args[i]);
    if (ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) continue;
    request.ifr_flags = static_cast<short>(request.ifr_flags & ~IFF_UP);
    require(ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0, "port down");
  }
  if (!init.pidfd.valid()) return 0;
  if (syscall(SYS_pidfd_send_signal, init.pidfd.get(), SIGKILL, nullptr, 0) != 0 &&
      errno != ESRCH) {
    die("kill", errno);
  }
  return 0;
}

}  // namespace holdfast::lab
