#pragma once
#include <condition_variable>
#include <mutex>
#include <string_view>

#include "replica/shared.h"

namespace holdfast::replica {

/** What has to be known of a change of names to finish it: in Intent::bytes, names behind it. */
struct IntentPlan {
  FileId parent = 0;
  FileId new_parent = 0;
  uint32_t mode = 0;  // as asked for
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t flags = 0;  // opcode's own
  uint16_t name_size = 0;
  uint16_t new_name_size = 0;
  uint32_t reserved = 0;
};

/** Intent::before of the opcodes that change names. */
enum IntentBefore : size_t {
  before_file = 0,      // the file that is removed, renamed or linked
  before_replaced = 1,  // rename: what stands at the new name
  before_flags = 2,     // IntentFlags
  before_count = 3,     // OPEN, RELEASE: opens of the file
  before_unlinked = 3,  // rename to the other side: LSN of the record about the replaced file
};

enum IntentFlags : uint64_t {
  intent_last_name = 1,  // unlink, rename: the (replaced) file has no other name
  intent_directory = 2,  // what is removed is one
  intent_local = 4,      // the change is in no record
  intent_existed = 8,    // xattr: it was there before
  intent_exchange = 16,  // rename
  intent_publish = 32,   // rename, link: the file becomes replicated
  intent_withdraw = 64,  // rename: the file ceases to be
  intent_replaced_local = 128,
};

/**
 * The slots of shared memory in which a change that must not happen twice stands, from before the
 * local call until after the answer. Phase: 0 free, 1 being done, 2 done and in the ring.
 */
class Intents {
 public:
  explicit Intents(Shared* shared) : shared_(shared) {}

  /** A slot in phase 1; waits when all are taken. `key`: the request (unique and volume). */
  Intent* begin(uint32_t opcode, uint8_t volume, uint64_t unique);
  /** Stores the plan and the two names. */
  static void plan(Intent* intent, IntentPlan plan, std::string_view name,
                   std::string_view new_name);
  static void read_plan(const Intent& intent, IntentPlan& plan, std::string_view& name,
                        std::string_view& new_name);
  /** Done and in the ring. */
  static void done(Intent* intent, Lsn lsn);
  void end(Intent* intent);
  /** The slot that an earlier process left for this request; nullptr: none. */
  Intent* left(uint8_t volume, uint64_t unique);

  static uint32_t opcode_of(const Intent& intent) { return intent.opcode & 0xffffff; }
  static uint8_t volume_of(const Intent& intent) {
    return static_cast<uint8_t>(intent.opcode >> 24);
  }
  /** Marks what is there as an earlier process's. */
  void inherit();
  Intent* slots() { return shared_->intents; }

 private:
  static constexpr uint32_t claimed = 3;  // phase of a slot that is being filled

  Shared* shared_;
  std::mutex mutex_;
  std::condition_variable freed_;
  bool inherited_[intent_slots] = {};
  bool any_inherited_ = false;
  std::atomic<bool> waiting_{false};
};

}  // namespace holdfast::replica
