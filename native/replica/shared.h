#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "replica/record.h"

/**
 * Memory that outlives the worker: a memfd that the holder keeps. It carries what a worker that was
 * killed had promised: the ring of records that the peer may not have, the name changes that were
 * under way, and with what the worker is to go on. One layout, versioned by `magic`; a worker that
 * finds another magic starts anew.
 */
namespace holdfast::replica {

inline constexpr uint64_t shared_magic = 0x3130'4d48'5346'4448;  // "HDFSHM01"
inline constexpr size_t resume_size = 64 * 1024;
inline constexpr size_t intent_slots = 64;
inline constexpr size_t intent_bytes = 2048;

/** A change of names under way. Not finished: the kernel sends it again (FUSE_NOTIFY_RESEND). */
struct Intent {
  std::atomic<uint32_t> phase;  // 0 free, 1 being done, 2 done and in the ring, not yet answered
  uint32_t opcode;
  uint64_t unique;     // of the request, without the resend bit
  uint64_t lsn;        // phase 2
  uint64_t before[4];  // opcode's own: ids and existence before the change
  uint64_t made;       // the FileId that was set aside for a created file
  uint8_t bytes[intent_bytes - 64];
};
static_assert(sizeof(Intent) == intent_bytes);

/** Cursors count bytes from the ring's beginning of time; position = cursor % ring_size. */
struct RingState {
  std::atomic<uint64_t> head;  // end of the last whole record
  std::atomic<uint64_t> tail;  // everything before is durable on the peer, or not wanted
  uint64_t head_lsn, head_epoch, head_chain;  // Tail after the last record
  uint64_t tail_lsn, tail_epoch, tail_chain;  // Tail before the first record
};

struct Shared {
  uint64_t magic;
  uint64_t ring_size;          // bytes, a multiple of 4096
  std::atomic<uint32_t> role;  // 0 none, 1 prim, 2 second: what a new worker goes on with
  uint32_t fuse_minor;         // what was negotiated with the kernel
  uint64_t fuse_flags;
  uint32_t fuse_max_write;
  uint32_t resume_used;
  RingState ring;
  alignas(4096) char resume[resume_size];  // the last `open` command, as it came (control.h)
  Intent intents[intent_slots];
  // then the ring itself, at sizeof(Shared), 4096-aligned
};
static_assert(sizeof(Shared) % 4096 == 0);

}  // namespace holdfast::replica
