#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "common/result.h"
#include "replica/ids.h"
#include "replica/record.h"
#include "replica/tree.h"

/**
 * How the target of a resync was before it: file `undo` in the state folder. Before a batch of
 * records is applied, what they change is written there as statements (record.h) of how it is, and
 * made durable; a thing that was written once is not written again. If the source dies midway the
 * statements are applied, the last batch first, and the copy is what it was.
 *
 * A file that loses its last name while an undo log is open is moved to the orphanage instead.
 */
namespace holdfast::replica {

class Changes;
class UndoPaths;

struct UndoStatus {
  uint64_t bytes = 0;  // of the file
  uint64_t batches = 0;
};

class Undo {
 public:
  /** `memory`: bytes for what was saved already, 0: 64 MiB; beyond it things are saved again. */
  Undo(Tree& tree, Ids& ids, uint64_t memory = 0);
  ~Undo();
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;

  /** Begins one, or goes on with what is there. EBADMSG: it is damaged before its end. */
  Result<bool> open(const std::string& path);
  bool is_open() const;
  /**
   * Writes how everything is that these records change; durable when it returns 0. ENOSPC …: it is
   * not, and they must not be applied.
   */
  int before(std::span<const Record> records);
  /**
   * Everything back, by `changes` in a replay, and durable; safe to be cut short and begun again,
   * until the log is discarded. 0 or errno. EUCLEAN: a file did not find its place, it stays in the
   * orphanage.
   */
  int take_back(Changes& changes);
  /** Where files were before the resync, for the quarantine. 0 or errno. */
  int paths(UndoPaths& out);
  /** The resync is over: the file goes. 0 or errno. */
  int discard();
  UndoStatus status() const;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace holdfast::replica
