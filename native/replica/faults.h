#pragma once

/**
 * Bugs that a test plants, to see that the tests would find them. The product has none: the pointer
 * to it is null there.
 */
namespace holdfast::replica {

struct Faults {
  bool ack_without_peer = false;      // the primary acknowledges before the peer has
  bool ack_before_durable = false;    // the secondary acknowledges before its journal is written
  bool skip_journal_check = false;    // recovery takes each well-formed record, whether it follows
  bool reorder_apply = false;         // two changes of one file are applied the other way round
  bool skip_displacement = false;     // what stands in the way in a replay is removed
  bool folder_stays = false;          // one that would go below itself in a replay does not wait
  bool lose_mtime = false;            // the mtimes at the end of a batch are not set
  bool source_by_mtime = false;       // two copies that both went on: the primary is believed
  bool bitmap_cleared_early = false;  // what was sent is clean before the copy counts as in sync
  bool undo_skipped = false;          // a resync changes what the undo log has not
  bool lose_append_offset = false;    // an append is sent as a write at 0
  bool old_over_new = false;          // a resync reads a piece without the lock of its file
  bool mark_after_write = false;      // the primary changes a file before its mark is durable
  bool divert_forgets = false;        // what a distant copy's ring has no room for is not dirty
  bool marks_forget_distant = false;  // marks go though a distant copy lacks what they cover
  bool distant_ends_early = false;    // a distant copy counts while something is dirty
};

/** Those that the environment names; only in the executable for tests (faults_planted.cc). */
[[gnu::weak]] const Faults* faults_of_environment();

/** What is planted in this process: nullptr in the product. */
inline const Faults* planted_faults() {
  return faults_of_environment == nullptr ? nullptr : faults_of_environment();
}

}  // namespace holdfast::replica
