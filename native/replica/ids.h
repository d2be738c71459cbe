#pragma once
#include <cstdint>
#include <string>

#include "common/result.h"
#include "replica/record.h"

/**
 * The table of file ids: which file of the local file system a FileId is. It lies in a mapped file
 * (`ids` in the mirror's state folder), so it outlives the process; `sync` makes it outlive the
 * machine, at each checkpoint. The primary uses ids as FUSE node ids too.
 *
 * A FileId is (epoch & 0xffffff) << 40 | counter: never used twice. 1 to 16 are the roots of the
 * replicated directories, in the order of the configuration.
 */
namespace holdfast::replica {

inline constexpr size_t max_handle = 40;

/** A kernel file handle (name_to_handle_at(2)): inode and generation, whatever its names. */
struct Handle {
  int32_t type = 0;
  uint32_t size = 0;
  uint8_t bytes[max_handle] = {};
};

enum IdFlags : uint8_t {
  id_local = 1,     // not replicated: never in a record
  id_unlinked = 2,  // no name left; kept while it is open
  id_nameless = 4,  // and none yet: a record will give it one (secondary; inode records)
};

struct IdEntry {
  FileId id = 0;
  Handle handle;
  uint32_t type = 0;   // S_IFMT bits
  uint8_t volume = 0;  // which replicated directory: 0 …
  uint8_t flags = 0;
  uint32_t opens = 0;  // open files of the kernel on it (primary)
};

class Ids {
 public:
  Ids();
  ~Ids();
  Ids(const Ids&) = delete;
  Ids& operator=(const Ids&) = delete;

  /** Maps the table at `path`, made when absent. EBADMSG: it is not such a table, or damaged. */
  Result<bool> open(const std::string& path);
  /** Every call below is safe from any thread. */
  FileId allocate(uint64_t epoch);
  /** Adds or replaces; ENOSPC when the table cannot grow. */
  int put(const IdEntry& entry);
  bool get(FileId id, IdEntry& out) const;
  /** 0: not known. */
  FileId find(uint8_t volume, const Handle& handle) const;
  void erase(FileId id);
  void set_flags(FileId id, uint8_t set, uint8_t clear);
  /** Opens after the change (delta +1 or -1). */
  uint32_t add_opens(FileId id, int delta);
  uint64_t count() const;
  /** Calls `each(context, entry)` for all entries; entries may be added or erased meanwhile. */
  void for_each(bool (*each)(void* context, const IdEntry& entry), void* context) const;
  /** Forgets all opens and unlinked files: after a mount that no kernel file refers to. */
  void forget_opens();
  /** fdatasync of the table; 0 or errno. */
  int sync();

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace holdfast::replica
