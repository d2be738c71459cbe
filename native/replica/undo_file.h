#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "replica/ids.h"
#include "replica/record.h"

/**
 * The bytes of an undo log (undo.h): blocks of whole 4096 bytes, appended. A batch is one block or
 * several; it counts when its last one is there, and what it covers is changed only after that is
 * durable. So what stands behind the last whole batch belongs to changes that were never made.
 */
namespace holdfast::replica {

inline constexpr uint64_t undo_magic = 0x314f444e55464448;  // "HDFUNDO1"
inline constexpr size_t undo_grain = 4096;
inline constexpr size_t undo_piece = 1u << 20;  // a block is written when it holds so much

struct UndoHead {  // then notes, made, records; zeros up to undo_grain
  uint64_t magic;
  uint64_t batch;     // 1 …
  uint32_t index;     // of the block in its batch: 0 …
  uint32_t last;      // 1: the batch ends with it
  uint32_t notes;     // that many UndoNote
  uint32_t made;      // that many FileId: files that were not there before
  uint32_t records;   // bytes of statements
  uint32_t body_crc;  // CRC-32C of all three
  uint32_t reserved[5];
  uint32_t crc;  // CRC-32C of the head before it
};
static_assert(sizeof(UndoHead) == 64);

/** Which file a statement speaks of: an IdEntry at that moment. */
struct UndoNote {
  FileId id;  // undo_own: of a file that has none
  int32_t handle_type;
  uint8_t handle_size;
  uint8_t type;  // S_IFMT bits >> 12
  uint8_t volume;
  uint8_t flags;  // IdFlags
  uint8_t handle[max_handle];
  uint64_t reserved;
};
static_assert(sizeof(UndoNote) == 64);

/** Ids for files that have none, valid in the log alone; no primary gives them (ids.h: epochs). */
inline constexpr FileId undo_own = FileId{0xffffff} << 40;

class UndoFile {
 public:
  struct Block {
    std::span<const UndoNote> notes;
    std::span<const FileId> made;
    std::span<const uint8_t> records;
  };

  /**
   * Makes the file, or finds the end of what is there and cuts off a batch that has none. EBADMSG:
   * what is damaged is not at the end.
   */
  Result<bool> open(const std::string& path);
  bool is_open() const { return fd_.valid(); }
  /** Closes it; that it was removed is durable when it returns 0. */
  int close_removed(const std::string& path);

  // One batch at a time; errno of the disk, after which `drop_batch`.
  void add_note(const UndoNote& note) { notes_.push_back(note); }
  void add_made(FileId id) { made_.push_back(id); }
  int add_record(Kind kind, FileId file, std::span<const iovec> payload);
  /** What was added is durable when it returns 0; nothing added: nothing is written. */
  int end_batch();
  /** What was added to the batch is not there. */
  void drop_batch();

  size_t batches() const { return batches_.size(); }
  uint64_t bytes() const { return end_; }
  FileId next_own() { return next_own_++; }
  /** The blocks of batch `number` (0 …) in their order, until `each` returns an errno. */
  int read(size_t number, const std::function<int(const Block&)>& each);

 private:
  struct Place {
    uint64_t from, end;
  };
  int write_block(bool last);
  int read_block(uint64_t at, UndoHead& head, std::vector<uint8_t>& body) const;
  Result<bool> scan(uint64_t size);
  bool later_batch(uint64_t at, uint64_t size, uint64_t batch) const;

  Fd fd_;
  std::vector<Place> batches_;
  uint64_t end_ = 0;    // of the last whole batch
  uint64_t write_ = 0;  // of what was written of this one
  uint32_t index_ = 0;
  FileId next_own_ = undo_own + 1;
  Tail tail_;
  std::vector<UndoNote> notes_;
  std::vector<FileId> made_;
  std::vector<uint8_t> records_;
  std::vector<uint8_t> buffer_;
};

}  // namespace holdfast::replica
