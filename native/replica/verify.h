#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "replica/ids.h"
#include "replica/record.h"
#include "replica/tree.h"

/**
 * `holdfast verify`: both copies compared at one LSN each, while the application runs. The primary
 * hashes a piece of a file under the file's lock and appends the hashes as a check record; the
 * secondary, when it applies that record, has the file in exactly that state and hashes its own.
 */
namespace holdfast::replica {

class Log;
class Locks;

inline constexpr size_t leaf_size = 64u << 10;
inline constexpr uint32_t leaves_per_check = 16;  // 1 MiB of a file per record

enum class Check : uint32_t {
  data = 1,        // leaves of a regular file; hashes: XXH3-128 of each
  attributes = 2,  // type, mode, owner, device, size, mtime, link target, xattrs; one hash
  entries = 3,     // of a directory: name and FileId of each, by name; one hash
  end = 4,         // a comparison is over; file = 1
};

/** Body of a check record; then `count` hashes of 16 bytes. */
struct CheckBody {
  uint32_t kind;    // Check
  uint32_t count;   // of hashes
  uint64_t run;     // number of the comparison
  uint64_t offset;  // data: of the first leaf; a multiple of leaf_size
  uint64_t size;    // data: of the file; entries: how many; end: files compared
};
static_assert(sizeof(CheckBody) == 32);

struct Hash {
  uint64_t low = 0, high = 0;
  bool operator==(const Hash&) const = default;
};
static_assert(sizeof(Hash) == 16);

/** A difference that was found, or (kind end) the end of a comparison. Travels as a `differs`
 * frame, as it is. */
struct CheckResult {
  uint32_t kind;  // Check
  int32_t error;  // errno of a failed read, ESTALE: the file is not there, 0: other content
  uint64_t run;
  FileId file;
  Lsn lsn;
  uint64_t offset;       // data: of the first leaf that differs
  uint64_t differences;  // end: how many were found in this run
};
static_assert(sizeof(CheckResult) == 48);

/** A descriptor of its own, not out of the cache, that changes no access time. 0 or errno. */
int open_quietly(const Tree& tree, const IdEntry& entry, FileRef& out);
/** Hashes of the leaves from `offset` on (at most `count`); `size`: of the file. 0 or errno. */
int hash_leaves(int fd, uint64_t offset, uint32_t count, std::vector<Hash>& out, uint64_t& size);
/** Of everything about a file but its names, its data and its access times. 0 or errno. */
int hash_attributes(const OpenFile& file, Hash& out);
/** Of a directory's entries that have an id and are replicated. 0 or errno. */
int hash_entries(const Tree& tree, const Ids& ids, const OpenFile& directory, Hash& out,
                 uint64_t& entries);

/** False: the bytes are not those of a check record. */
bool parse_check(std::span<const uint8_t> bytes, CheckBody& body, std::span<const uint8_t>& hashes);
/** Compares; true: equal. Otherwise `result` says what differs (all fields but run and lsn). */
bool compare(const Tree& tree, const Ids& ids, FileId file, const CheckBody& body,
             std::span<const uint8_t> hashes, CheckResult& result);

struct VerifyOptions {
  uint64_t run = 1;
  uint64_t bytes_per_second = 256u << 20;  // of data read here
};

struct VerifyProgress {
  std::atomic<uint64_t> files{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<bool> stop{false};
};

/**
 * The primary's side: all files with an id that are replicated, one after the other, then an `end`
 * record. Blocks until they are appended (or `progress.stop`); no lock is held for longer than one
 * record takes. 0; ECANCELED: stopped; ENOSPC: the log took no record for `patience_ms`; or the
 * errno of a local read.
 */
int run_verify(const Tree& tree, const Ids& ids, Locks& locks, Log& log,
               const VerifyOptions& options, VerifyProgress& progress, int patience_ms = 60'000);

}  // namespace holdfast::replica
