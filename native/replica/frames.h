#pragma once
#include <cstdint>

#include "replica/record.h"

/**
 * What travels between two replica engines, inside TLS 1.3. The primary connects; both sides show
 * a certificate of the cluster. Each frame: FrameHead, then `size` bytes. Little-endian.
 */
namespace holdfast::replica {

inline constexpr uint32_t stream_magic = 0x31524648;  // "HFR1"
inline constexpr uint32_t stream_version = 2;
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
  resync = 11,   // primary, after welcome: ResyncBody: records do not go on where the copy is
  touched = 12,  // secondary, after resync: TouchedBody: what only it may have changed
  ready = 13,    // secondary, after that: ReadyBody: it takes statements from here on
  missing = 14,  // secondary: MissingBody: a statement or change is about what it does not have
  whole = 15,    // secondary: ReadyBody: it counts as in sync, durably
};
inline constexpr Frame last_frame = Frame::whole;

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
  uint32_t flags;    // HelloFlags
  uint32_t history;  // that many EpochStart (super.h) follow
  /** In a resync: `applied` of the last acknowledgement that this process has seen, in whatever
   * connection; 0: none. What the target reported for later records it tells again. */
  Lsn applied;
};

enum HelloFlags : uint32_t {
  // Acknowledge receipt at once, before the journal is written: for strict and async="second".
  // Without it there is one acknowledgement for each write of the journal.
  hello_receipts = 1,
};

struct WelcomeBody {
  uint64_t epoch;  // of the last record it has
  Lsn durable;
  uint64_t chain;       // at `durable`
  uint64_t resync;      // number of the resync that is under way on it, 0: none
  uint64_t base_epoch;  // inconsistent: where the undo log leads back to; else 0
  Lsn base_lsn;
  uint32_t node;
  uint32_t state;    // DiskState
  uint32_t flags;    // WelcomeFlags
  uint32_t history;  // that many EpochStart (super.h) follow
};

enum WelcomeFlags : uint32_t {
  // It was primary and not stopped in order: it may have more than it says. Also of the base, while
  // a resync is under way.
  welcome_was_primary = 1,
  welcome_marks_lost = 2,  // and does not know what
};

/**
 * The answer to `welcome`. Without it (`records` or `barrier` comes at once) the records go on
 * where the copy is: it takes the history that `hello` told then, not before, since a fork is
 * refused.
 *
 * With `rejoin` catch_up the records go on there too, but the primary acknowledges without this
 * copy: it is `outdated` from now on (a prefix: no base, no undo log, no statements) until `synced`
 * comes. Otherwise: everything that it has is applied; superblock: inconsistent, with the base that
 * it has already if there is one; the journal begins anew after the tail. The same run again: a new
 * round.
 */
struct ResyncBody {
  uint64_t run;                // number of the resync, never 0
  uint64_t lsn, epoch, chain;  // Tail that the next record follows
  uint32_t rejoin;             // Rejoin (lineage.h)
  uint32_t reserved;
};

/** Then `count` Mark (marks.h). As many frames as are needed, before `ready`; also in the next
 * round of a resync, until the copy is whole. One that says `everything` may also come later:
 * reports of this resync were lost. */
struct TouchedBody {
  uint64_t run;
  FileId first_new;  // it made files with this id and later ones; 0: none
  uint32_t count;
  uint32_t everything;  // 1: it does not know
};

/** A `whole` that is lost with its connection is not told again: the next welcome says in_sync. */
struct ReadyBody {
  uint64_t run;
  Lsn lsn;  // ready: that the next record follows; whole: of the record `synced`
};

/**
 * Then the name. `file` is not there; with a name: and should be that; 0: the target does not know
 * which file that name should be. It comes before the first acknowledgement whose `applied` covers
 * the record that it is about; again on the next connection, until a hello says that this was seen.
 */
struct MissingBody {
  FileId file;
  FileId parent;  // 0: no name was spoken of
  uint32_t name_size;
  uint32_t flags;  // MissingFlags
};

enum MissingFlags : uint32_t {
  missing_adopted = 1,  // a foreign file of that name and type was taken for it: compare
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
  history = 5,  // what it has does not lie in the caller's ring, and the caller cannot resync
  state = 6,    // failed
  volumes = 7,  // another number of directories
  fork = 8,     // from the primary (lineage.h): both acknowledged alone
  behind = 9,   // only the copy went on: the caller must not be the primary
  unrelated = 10,
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
