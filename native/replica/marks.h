#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/result.h"
#include "replica/faults.h"
#include "replica/record.h"

/**
 * Which parts of the directories this primary may have changed since its peer last had everything:
 * durable *before* the change, so that after a loss of power it is known what may differ. An
 * activity log (Reisner and Ellenberg, "DRBD v8: Replicated Storage with Shared Disk Semantics",
 * 2005), for files: a mark covers 1 MiB of a file's data, a file's attributes, or a directory's
 * names; all files made since are covered by one number, the first id that is theirs.
 *
 * Marks lie in generations, each a file `marks-N` in the state folder (marks_file.h). A change is
 * covered by a mark of the newest generation. An older one is deleted when
 *  - no change that it covers is under way,
 *  - the peer has durably what was the last record then (with distant copies: each copy), and
 *  - what it covers is durable in the local file system too: what a write without fsync left in the
 *    page cache is lost with the power, while the peer has it.
 * While the primary is alone, or a distant copy does not follow (`keep`), none is deleted, and the
 * newest one grows.
 */
namespace holdfast::replica {

class Ids;

inline constexpr uint64_t mark_region = 1u << 20;
/** The peer, and as many distant copies as there may be. */
inline constexpr uint32_t max_mark_copies = 5;
/** Instead of a region's number: all of a file's data. */
inline constexpr uint32_t mark_whole = UINT32_MAX;

enum class MarkWhat : uint32_t {
  data = 1,   // the region of mark_region bytes with this number
  inode = 2,  // attributes, xattrs and size
  names = 3,  // of a directory, and its mtime
};

struct Mark {
  FileId file;
  uint32_t region;  // of data; 0 of all others
  uint32_t what;    // MarkWhat

  bool operator==(const Mark&) const = default;
  auto operator<=>(const Mark&) const = default;
};
static_assert(sizeof(Mark) == 16);

/** What one change touches: at most mark_set_max marks, whatever its size. */
class MarkSet {
 public:
  static constexpr size_t regions_max = 32;  // of one range; a longer one is the whole file
  static constexpr size_t mark_set_max = regions_max + 8;

  void inode(FileId file) { add({file, 0, uint32_t(MarkWhat::inode)}); }
  void names(FileId directory) { add({directory, 0, uint32_t(MarkWhat::names)}); }
  void whole(FileId file) { add({file, mark_whole, uint32_t(MarkWhat::data)}); }
  /** Bytes from `from` to before `to`; none when there are none. Once for a change. */
  void data(FileId file, uint64_t from, uint64_t to);

  const Mark* marks() const { return marks_; }
  size_t size() const { return size_; }

 private:
  void add(const Mark& mark) {
    if (size_ < mark_set_max) marks_[size_++] = mark;
  }
  Mark marks_[mark_set_max];
  size_t size_ = 0;
};

struct MarksOptions {
  uint64_t epoch = 1;                   // of the ids that this server makes
  uint32_t generation_marks = 1 << 14;  // a generation of so many is followed by a new one …
  int64_t generation_ms = 600'000;      // … and one that is so old and not empty
  uint64_t max_marks = 1u << 20;        // of all generations; beyond it everything counts as marked
  uint32_t copies = 1;                  // that must have what marks cover; up to max_mark_copies
  int64_t tick_ms = 1000;               // how often old generations are looked at; 0: by settle()
  /** LSN of the last record. Any thread, without a lock that a guarded change holds. */
  std::function<Lsn()> last;
  /** Makes the local file systems durable, and the ids; 0 or errno. One thread at a time. */
  std::function<int()> sync;
  const Faults* faults = nullptr;
};

struct MarksStatus {
  uint64_t generations = 0, marks = 0;
  uint64_t writes = 0;   // to disk; each held a change up
  uint64_t guarded = 0;  // changes that found their marks there
  bool everything = false;
};

/** What the marks of an earlier run cover. */
struct Marked {
  std::vector<Mark> marks;  // each once, in the order of their files
  FileId first_new = 0;     // all files and directories with this id or a later one; 0: none
  /** All records up to this one are durable here and at the peer; what came later is covered. */
  Lsn since = 0;
  bool everything = false;   // damaged, or too many: nothing is known
  uint64_t generations = 0;  // files there; a primary that was not stopped in order leaves one
};

class Marks {
 public:
  Marks(Ids& ids, MarksOptions options);
  /** Ends the thread; what is in the folder stays. No guard may be held. */
  ~Marks();
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  /**
   * What is in the folder, without changing it. A damaged file, or one that cannot be read:
   * `everything`. The errno of opendir(3); a folder that is not there has no marks.
   */
  static Result<Marked> read(const std::string& folder);
  /** The folder has no marks: the copy is whole, and none is made. 0 or errno. */
  static int remove(const std::string& folder);

  /**
   * Begins a new generation, beside what is there, which goes together with it: a change that a
   * killed process had begun is made again, and is covered until then.
   */
  Result<bool> open(const std::string& folder);

  /** Held from before a change until its record is appended. */
  class Guard {
   public:
    Guard() = default;
    ~Guard() { release(); }
    Guard(Guard&& other) noexcept : inside_(other.inside_) { other.inside_ = nullptr; }
    Guard& operator=(Guard&& other) noexcept {
      if (this == &other) return *this;
      release();
      inside_ = other.inside_;
      other.inside_ = nullptr;
      return *this;
    }
    void release() {
      if (inside_ != nullptr) inside_->fetch_sub(1, std::memory_order_release);
      inside_ = nullptr;
    }

   private:
    friend class Marks;
    std::atomic<uint64_t>* inside_ = nullptr;  // changes under way, of the generation
  };

  /**
   * Marks that are durable when it returns 0 (at once when they are there already, which takes no
   * lock; one write for all threads that wait). Files made since the generation began need none:
   * they may be named all the same. An errno: they are not durable, and the change must not be
   * made. ENODEV: not open, or cleared. Any thread.
   */
  int guard(const Mark* marks, size_t count, Guard& out);
  int guard(const MarkSet& set, Guard& out) { return guard(set.marks(), set.size(), out); }

  /** The copy (0: the peer) has everything up to here, durably: old generations may go. Any thread;
   * cheap. */
  void peer_has(Lsn durable, uint32_t copy = 0);
  /** From its return on nothing goes any more (the primary is alone, or the copy lacks something
   * that is not in the ring), or again, as far as this copy is concerned. */
  void keep(bool all, uint32_t copy = 0);
  /** There are old generations, which wait for the copies, or for what is under way. */
  bool has_old() const;
  /** Ends the thread; what is in the folder stays. */
  void stop();
  /** Orderly end with a peer that has everything: the folder has no marks. 0 or errno. */
  int clear();
  /** What the thread does at each tick: ends a generation that is due, deletes what may go. 0, or
   * why something stays. */
  int settle();
  MarksStatus status() const;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace holdfast::replica
