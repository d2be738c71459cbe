#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"

/* What tests and benches need beside the filter itself. Nothing here is used by the agent. */
namespace holdfast::filter {

struct TestRun {
  uint32_t verdict = 0;        /* XDP_* or TC_ACT_* */
  uint32_t ns = 0;             /* mean per run */
  std::vector<uint8_t> packet; /* as the program left it */
};

/** BPF_PROG_TEST_RUN of an XDP or tc program with one frame. */
bool test_run(int program, std::span<const uint8_t> packet, uint32_t repeat, TestRun* run,
              std::string* why);

/** Moves the calling thread (and processes it starts from now on) into network and mount namespaces
 * of its own, loopback up, with its own bpffs at /sys/fs/bpf. */
bool enter_sandbox(std::string* why);

/**
 * Sends `count` frames out of the device `ifindex` by an XDP program that ends in XDP_TX
 * (BPF_F_TEST_XDP_LIVE_FRAMES: real frames, no socket buffers). On veth this call also runs the
 * receiving side. Returns the ns per frame by the kernel's own clock, which leaves its preparations
 * out (they end with an RCU grace period, 20 ms), or -1.
 */
int64_t send_live(int program, int ifindex, std::span<const uint8_t> frame, uint32_t count,
                  std::string* why);

/** Sets generic receive offload; with it veth receives live frames without an XDP program too. */
bool set_gro(const std::string& device, bool on, std::string* why);

/** One XDP program by name out of an object file without maps that need pins. */
Fd load_program(const std::string& path, const std::string& name, std::string* why);

}  // namespace holdfast::filter
