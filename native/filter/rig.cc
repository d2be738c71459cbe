#include "filter/rig.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "filter/pins.h"

namespace holdfast::filter {

bool test_run(int program, std::span<const uint8_t> packet, uint32_t repeat, TestRun* run,
              std::string* why) {
  run->packet.resize(packet.size() + 256);
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(), .data_out = run->packet.data(),
              .data_size_in = static_cast<__u32>(packet.size()),
              .data_size_out = static_cast<__u32>(run->packet.size()),
              .repeat = static_cast<int>(repeat));
  int error = bpf_prog_test_run_opts(program, &options);
  if (error != 0) {
    *why = sentence("the test run failed", -error);
    return false;
  }
  run->verdict = options.retval;
  run->ns = options.duration;
  run->packet.resize(options.data_size_out);
  return true;
}

bool enter_sandbox(std::string* why) {
  if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) {
    *why = sentence("cannot make namespaces", errno);
    return false;
  }
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700") != 0) {
    *why = sentence("cannot mount a bpffs", errno);
    return false;
  }
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  memcpy(request.ifr_name, "lo", 3);
  request.ifr_flags = IFF_UP;
  if (!socket.valid() || ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) {
    *why = sentence("cannot set the loopback device up", errno);
    return false;
  }
  return true;
}

namespace {

/* Real-time priority while it lives, so that other processes do not count as packets. */
class Undisturbed {
 public:
  Undisturbed() {
    sched_param now{.sched_priority = 1};
    policy_ = sched_getscheduler(0);
    changed_ = sched_getparam(0, &before_) == 0 && sched_setscheduler(0, SCHED_FIFO, &now) == 0;
  }
  Undisturbed(const Undisturbed&) = delete;
  Undisturbed& operator=(const Undisturbed&) = delete;
  ~Undisturbed() {
    if (changed_) sched_setscheduler(0, policy_, &before_);
  }

 private:
  int policy_ = SCHED_OTHER;
  sched_param before_{};
  bool changed_ = false;
};

}  // namespace

int64_t send_live(int program, int ifindex, std::span<const uint8_t> frame, uint32_t count,
                  std::string* why) {
  xdp_md context{};
  context.data_end = static_cast<__u32>(frame.size());
  context.ingress_ifindex = static_cast<__u32>(ifindex);
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
              .data_size_in = static_cast<__u32>(frame.size()), .ctx_in = &context,
              .ctx_size_in = sizeof(context), .repeat = static_cast<int>(count),
              .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
  Undisturbed undisturbed;
  int error = bpf_prog_test_run_opts(program, &options);
  if (error == 0) return int64_t{options.duration};
  *why = sentence("the kernel sends no live frames", -error);
  return -1;
}

bool set_gro(const std::string& device, bool on, std::string* why) {
  ethtool_value value{.cmd = ETHTOOL_SGRO, .data = on ? 1u : 0u};
  ifreq request{};
  memcpy(request.ifr_name, device.c_str(), std::min(device.size(), size_t{IFNAMSIZ - 1}));
  request.ifr_data = reinterpret_cast<char*>(&value);
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (socket.valid() && ioctl(socket.get(), SIOCETHTOOL, &request) == 0) return true;
  *why = sentence("cannot set receive offload of " + device, errno);
  return false;
}

Fd load_program(const std::string& path, const std::string& name, std::string* why) {
  std::unique_ptr<bpf_object, void (*)(bpf_object*)> object(
      bpf_object__open_file(path.c_str(), nullptr), bpf_object__close);
  if (!object || bpf_object__load(object.get()) != 0) {
    *why = sentence("cannot load " + path, errno);
    return {};
  }
  const bpf_program* program = bpf_object__find_program_by_name(object.get(), name.c_str());
  if (program == nullptr) {
    *why = path + " has no program " + name;
    return {};
  }
  return Fd(dup(bpf_program__fd(program)));
}

}  // namespace holdfast::filter
