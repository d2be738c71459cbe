#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "replica/ids.h"
#include "replica/tree.h"
#include "replica/undo_file.h"

/**
 * Where files were before a resync, by its undo log: what the quarantine calls them. Of each file
 * one name is remembered, and of at most `max_names` files.
 */
namespace holdfast::replica {

class UndoPaths {
 public:
  UndoPaths(Tree& tree, const Ids& ids) : tree_(tree), ids_(ids) {}

  /** Reads the log. 0 or errno. */
  int read(UndoFile& file);
  /** Path below its volume's root, "dir/name"; empty: not known. `id` 0: a file without one. */
  std::string path_of(uint8_t volume, FileId id, const Handle& handle) const;
  /** Files whose name was not remembered. */
  uint64_t forgotten() const { return forgotten_; }

 private:
  struct Place {
    FileId parent;
    std::string name;
  };
  bool place_of(FileId id, Place& out) const;

  Tree& tree_;
  const Ids& ids_;
  std::unordered_map<FileId, Place> places_;
  std::unordered_map<std::string, FileId> own_;  // by handle: ids of the log's own
  std::unordered_map<FileId, IdEntry> own_files_;
  uint64_t forgotten_ = 0;
};

}  // namespace holdfast::replica
