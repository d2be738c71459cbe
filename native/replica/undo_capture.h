#pragma once
#include <sys/stat.h>

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "replica/ids.h"
#include "replica/record.h"
#include "replica/tree.h"
#include "replica/undo_file.h"

/**
 * What the records of a batch are about to change, as it is now, into an undo log (undo.h). All of
 * a batch is looked at before any of it is applied, so a record may speak of a file that one
 * before it makes or takes for its own.
 */
namespace holdfast::replica {

/** A name in a directory, for sets: 128 bits of hash, so no two are taken for one. */
struct NameHash {
  uint64_t low, high;
  bool operator==(const NameHash&) const = default;
  static NameHash of(FileId parent, std::string_view name);
};
struct NameHasher {
  size_t operator()(const NameHash& name) const { return static_cast<size_t>(name.low); }
};

class UndoCapture {
 public:
  UndoCapture(Tree& tree, Ids& ids, UndoFile& file, uint64_t max_memory)
      : tree_(tree), ids_(ids), file_(file), max_memory_(max_memory) {}

  /** Before the first record of a batch. */
  void begin();
  /** 0 or errno. */
  int record(const Record& record);
  /** Nothing counts as saved: the batch did not become durable. */
  void forget();

 private:
  /** A file as the log speaks of it; `file` null: it is not there. */
  struct Subject {
    IdEntry entry;
    FileRef file;
    bool there() const { return file != nullptr; }
    bool is_folder() const { return entry.type == S_IFDIR; }
  };
  struct Saved {
    bool noted = false;
    bool inode = false;
    bool made = false;                    // by the resync: there is nothing to be saved
    uint64_t size = 0;                    // with inode: bytes behind it were not there
    std::map<uint64_t, uint64_t> ranges;  // from, to: of data
  };

  int find(FileId id, Subject& out);
  int open(const IdEntry& entry, Subject& out);
  int identify(uint8_t volume, int directory, const char* name, Subject& out);
  void note(const Subject& subject);
  Saved& saved(FileId id);

  int save_inode(const Subject& subject);
  int save_attributes(const Subject& subject, const struct stat& now);
  int save_values(const Subject& subject, std::span<const uint8_t> xattrs, uint32_t mode);
  int save_data(const Subject& subject, uint64_t from, uint64_t to);
  int save_range(const Subject& subject, const Time& mtime, uint64_t from, uint64_t to);
  int save_hole(const Subject& subject, const Time& mtime, uint64_t from, uint64_t to);
  int save_bytes(const Subject& subject, const Time& mtime, uint64_t from, uint64_t to);
  int save_name(const Subject& folder, std::string_view name);
  int save_name(FileId parent, std::string_view name);
  int save_place(const Subject& subject);
  bool is_orphanage(uint8_t volume, int directory) const;
  int adopt(FileId parent, std::string_view name, FileId id, uint32_t type);

  int allocate(const Record& record, const Subject& subject);
  int attributes(const Record& record, const Subject& subject);
  int create(const Record& record);
  void will_make(FileId id);
  int rename(const Record& record);
  int entry(const Record& record);
  int inode(const Record& record);
  int listing(const Record& record);

  Tree& tree_;
  Ids& ids_;
  UndoFile& file_;
  uint64_t max_memory_;
  uint64_t memory_ = 0;  // about what is below
  std::unordered_map<FileId, Saved> files_;
  std::unordered_set<NameHash, NameHasher> names_;
  // Files without an id that a record gives one: by that id. In this batch, and before it.
  std::unordered_map<FileId, IdEntry> adopting_, adopted_;
  std::vector<FileId> making_;  // in this batch
  std::vector<uint8_t> buffer_;
};

}  // namespace holdfast::replica
