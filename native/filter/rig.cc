#include "filter/rig.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "common/clock.h"
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

int64_t send_live(int program, int ifindex, std::span<const uint8_t> frame, uint32_t count,
                  std::string* why) {
  xdp_md context{};
  context.data_end = static_cast<__u32>(frame.size());
  context.ingress_ifindex = static_cast<__u32>(ifindex);
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
              .data_size_in = static_cast<__u32>(frame.size()), .ctx_in = &context,
              .ctx_size_in = sizeof(context), .repeat = static_cast<int>(count),
              .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
  int64_t began = clock_ns(CLOCK_MONOTONIC);
  int error = bpf_prog_test_run_opts(program, &options);
  int64_t took = clock_ns(CLOCK_MONOTONIC) - began;
  if (error == 0) return took;
  *why = sentence("the kernel sends no live frames", -error);
  return -1;
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
