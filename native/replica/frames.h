#pragma once
#include <cstdint>

#include "replica/record.h"

/**
 * What travels between two replica engines, inside TLS 1.3. The primary connects; both sides show
 * a certificate of the cluster. Each frame: FrameHead, then `size` bytes. Little-endian.
 */
namespace holdfast::replica {

inline constexpr uint32_t stream_magic = 0x31524648;  // "HFR1"
inline constexpr uint32_t stream_version = 1;
inline constexpr uint32_t max_frame = 4u << 20;

enum class Frame : uint32_t {
  hello = 1,     // primary, first: HelloBody
  welcome = 2,   // secondary's answer: WelcomeBody
  refuse = 3,    // either: RefuseBody, then it closes
  records = 4,   // primary: whole records, no pads
  barrier = 5,   // primary: BarrierBody: make durable and acknowledge
  ack = 6,       // secondary: AckBody
  space = 7,     // secondary, each second: SpaceBody for every volume
  leave = 8,     // either: LeaveBody: this copy leaves, in order, and says why
  ping = 9,      // either, each second when nothing else was sent: nothing
  differs = 10,  // secondary: what a check record found (verify.h)
};
inline constexpr Frame last_frame = Frame::differs;

struct FrameHead {
  uint32_t type;
  uint32_t size;
};

struct HelloBody {
  uint32_t magic;
  uint32_t version;
  uint8_t set[16];
  uint32_t node;
  uint32_t volumes;
  uint64_t epoch;
  Lsn first;  // first record that the primary still has; last + 1: none
  Lsn last;
  uint32_t flags;  // HelloFlags
  uint32_t reserved;
};

enum HelloFlags : uint32_t {
  // Acknowledge receipt at once, before the journal is written: for strict and async="second".
  // Without it there is one acknowledgement for each write of the journal.
  hello_receipts = 1,
};

struct WelcomeBody {
  uint64_t epoch;  // of the last record it has
  Lsn durable;
  uint64_t chain;  // at `durable`
  uint32_t node;
  uint32_t reserved;
};

struct RefuseBody {
  uint32_t reason;  // Refusal
  uint32_t reserved;
};

enum class Refusal : uint32_t {
  set = 1,  // another mirror
  version = 2,
  epoch = 3,    // the caller's epoch is older
  role = 4,     // not a secondary
  history = 5,  // what it has does not lie in the caller's ring: a resync is needed
  state = 6,    // outdated or failed
  volumes = 7,  // another number of directories
};

struct BarrierBody {
  Lsn lsn;
};

struct AckBody {
  Lsn received;
  Lsn durable;
  Lsn applied;
};

struct SpaceBody {
  uint64_t blocks, free_blocks, files, free_files;
  uint32_t block_size;
  uint32_t volume;
};

struct LeaveBody {
  uint32_t error;   // errno, 0: asked for
  uint32_t reason;  // Leave
  Lsn durable;
};

enum class Leave : uint32_t {
  stop = 1,      // stopped in order
  journal = 2,   // its journal cannot be written
  apply = 3,     // a change cannot be applied
  protocol = 4,  // a record that does not follow, a frame that is none
};

}  // namespace holdfast::replica
