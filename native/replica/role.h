#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "replica/control.h"
#include "replica/events.h"
#include "replica/shared.h"
#include "replica/store.h"

/** What a worker does after `open`: one of three roles, each in a file of its own. */
namespace holdfast::replica {

/** Why something was refused: a code for the control line and a sentence. No code: it was not. */
struct Failure {
  std::string code;
  std::string text;

  bool failed() const { return !code.empty(); }
  static Failure of(int error, const std::string& text);
  static Failure of(const char* code, const std::string& text) { return {code, text}; }
};

enum class RoleKind : uint32_t { none = 0, prim = 1, second = 2, mount = 3 };

inline constexpr size_t max_distant = 4;

/** The values of an `open` line. */
struct OpenLine {
  RoleKind role = RoleKind::none;
  uint8_t set[16] = {};
  uint32_t node = 0;
  uint64_t epoch = 0;
  std::string state;                 // folder of super, journal, ids
  std::vector<std::string> dirs;     // real paths
  std::string peer, listen;          // ADDR:PORT
  std::vector<std::string> distant;  // prim: ADDR:PORT of each distant copy
  std::string cert, key, ca;         // PEM files
  bool async_second = false;         // async="second": received is enough
  bool strict = false;               // ack="strict"
  uint64_t ring = 0;                 // bytes, 0: as the holder was told
  uint64_t journal = 256u << 20;     // bytes
  uint32_t sendtimeout_ms = 30'000;
  uint32_t locktimeout_ms = 3'000;
  uint32_t threads = 8;       // that read requests, per directory
  uint32_t marks = 1u << 14;  // prim: of a generation (marks.h)
  uint64_t resyncrate = 0;    // prim: bytes per second of a resync, 0: no limit
  bool fullsync = false;      // second: its history is forgotten, it becomes a first copy
  bool discard = false;       // second: what was acknowledged alone is rolled back (a fork's loser)
  bool force = false;    // prim: also with a copy that is outdated, or in the middle of a resync
  bool decided = false;  // prim: only `alone` goes on without the peer, also when that has failed
  std::vector<std::string> skip;
  std::vector<std::string> tocheck;  // what must be there: a file system that is to be mounted, say
};

/** Reads the line's values. EINVAL with what is wrong. */
Failure parse_open(const Request& request, OpenLine& out);

/** What a role works with; all of it outlives the role. */
struct RoleContext {
  Events& events;
  Store& store;
  Shared* shared;
  uint8_t* arena;  // the ring's bytes
  std::string name;
  /** A new worker goes on with what the last one did: mounts stand, descriptors are kept. */
  bool resume = false;
};

class Role {
 public:
  virtual ~Role() = default;
  /** Takes the role; what was done is undone when it fails. */
  virtual Failure open() = 0;
  /** Orderly end. Also after a failure in it the role is gone. */
  virtual Failure close() = 0;
  /** Any thread, also while `open` or `close` runs. */
  virtual void status(Line& line) const = 0;
  virtual Failure alone(uint64_t epoch);
  virtual Failure joined(uint64_t epoch);
  virtual Failure verify();
  virtual Failure cut(uint32_t ms);
};

std::unique_ptr<Role> make_role(RoleContext context, const OpenLine& line);
std::unique_ptr<Role> make_mount_role(RoleContext context, const OpenLine& line);
std::unique_ptr<Role> make_prim_role(RoleContext context, const OpenLine& line);
std::unique_ptr<Role> make_second_role(RoleContext context, const OpenLine& line);

}  // namespace holdfast::replica
