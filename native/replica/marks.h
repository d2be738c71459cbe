#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "common/result.h"
#include "replica/record.h"

/**
 * Which parts of the directories this primary may have changed since its peer last had everything:
 * durable *before* the change, so that after a loss of power it is known what may differ. An
 * activity log (Reisner and Ellenberg, "DRBD v8: Replicated Storage with Shared Disk Semantics",
 * 2005), for files: a mark covers 1 MiB of a file's data, a file's attributes, or a directory's
 * names; all files made since are covered by one number, the first id that is theirs.
 *
 * Marks lie in generations, each a file `marks-N` in the state folder. A change is covered by a
 * mark of the newest generation. An older one is deleted when no change that it covers is under way
 * and the peer has durably what was the last record then. While the primary is alone none is.
 */
namespace holdfast::replica {

class Ids;

inline constexpr uint64_t mark_region = 1u << 20;

enum class MarkWhat : uint32_t {
  data = 1,   // the region of mark_region bytes with this number
  inode = 2,  // attributes, xattrs and size
  names = 3,  // of a directory
};

struct Mark {
  FileId file;
  uint32_t region;  // of data; 0 of all others
  uint32_t what;    // MarkWhat
};
static_assert(sizeof(Mark) == 16);

struct MarksOptions {
  uint32_t generation_marks = 4096;  // a generation of so many is followed by a new one
  uint64_t max_marks = 1u << 20;     // of all generations; beyond it everything counts as marked
};

struct MarksStatus {
  uint64_t generations = 0, marks = 0;
  uint64_t writes = 0;   // to disk; each held a change up
  uint64_t guarded = 0;  // changes that found their marks there
  bool everything = false;
};

/** What the marks of an earlier run cover. */
struct Marked {
  std::vector<Mark> marks;
  FileId first_new = 0;     // all files with this id or a later one; 0: none
  Lsn since = 0;            // `last` of the oldest generation: what changed after it is covered
  bool everything = false;  // damaged, or too many: nothing is known
};

class Marks {
 public:
  Marks(Ids& ids, const MarksOptions& options = {});
  ~Marks();
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  /** What is in the folder, without changing it. A damaged file: `everything`. */
  static Result<Marked> read(const std::string& folder);
  /** Begins a new generation, beside what is there; `last`: LSN of the last record. */
  Result<bool> open(const std::string& folder, Lsn last);

  /** Held from before a change until its record is appended. */
  class Guard {
   public:
    Guard() = default;
    ~Guard() { release(); }
    Guard(Guard&& other) noexcept;
    Guard& operator=(Guard&& other) noexcept;
    void release();

   private:
    friend class Marks;
    Marks* marks_ = nullptr;
    uint64_t generation_ = 0;
  };

  /**
   * Marks that are durable when it returns 0 (at once when they are there already; one write for
   * all threads that wait). An errno: they are not, and the change must not be made.
   */
  int guard(const Mark* marks, size_t count, Guard& out);

  /** The peer has everything up to here, durably: old generations go. `last`: of the records. */
  void peer_has(Lsn durable, Lsn last);
  /** Nothing goes any more (the primary is alone), or again. */
  void keep(bool all);
  /** Orderly end with a peer that has everything: the folder has no marks. 0 or errno. */
  int clear();
  MarksStatus status() const;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace holdfast::replica
