#pragma once
#include <array>
#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "replica/dirty.h"
#include "replica/intervals.h"

/** The inside of Dirty, without its lock. */
namespace holdfast::replica {

class DirtyState {
 public:
  explicit DirtyState(uint64_t max_memory) : max_memory_(max_memory) {}

  void add_file(Work what, FileId file);  // inode, listing, compare_inode
  void add_name(FileId parent, std::string_view name);
  void add_range(Work what, FileId file, uint64_t from, uint64_t to);  // data, compare
  void add_everything() { everything_ = true; }
  void add(const WorkItem& item);
  void merge(const DirtyState& other);
  void forget(FileId file);
  bool take(WorkItem& out, uint64_t limit, bool directories_last);
  bool empty() const { return kinds_.empty() && !everything_; }
  bool covers(FileId file, uint64_t size) const;
  DirtyTotals totals() const;

  /** Calls `each(const WorkItem&)` for all of it, ranges whole. */
  template <typename Each>
  void for_each(Each each) const;

 private:
  using Ranges = std::map<FileId, Intervals>;
  static constexpr Work of_files[] = {Work::inode, Work::listing, Work::compare_inode};
  static constexpr Work of_ranges[] = {Work::data, Work::compare};

  static size_t at(Work what) { return static_cast<size_t>(what); }
  static uint8_t bit(Work what) { return static_cast<uint8_t>(1u << at(what)); }
  std::set<FileId>& files(Work what) { return files_[at(what)]; }
  Ranges& ranges(Work what) { return ranges_[what == Work::data ? 0 : 1]; }
  const Ranges& ranges(Work what) const { return ranges_[what == Work::data ? 0 : 1]; }

  void has(FileId file, Work what) { kinds_[file] |= bit(what); }
  void has_not(FileId file, Work what);
  void drop_names(FileId parent);
  /** Makes a change to the ranges of a file, and keeps the figures right. */
  template <typename Change>
  void change(Work what, Intervals& of, Change make) {
    range_count_ -= of.count();
    if (what == Work::data) bytes_ -= of.bytes();
    make(of);
    range_count_ += of.count();
    if (what == Work::data) bytes_ += of.bytes();
  }
  uint64_t memory() const { return names_memory() + ranges_memory() + files_memory(); }
  bool take_file(Work what, WorkItem& out);
  bool take_name(WorkItem& out);
  bool take_range(Work what, uint64_t limit, WorkItem& out);
  bool take_everything(WorkItem& out);
  uint64_t names_memory() const;
  uint64_t ranges_memory() const;
  uint64_t files_memory() const;
  void shrink();
  bool close_gaps(uint64_t& gap);
  bool fold_names();

  uint64_t max_memory_;
  std::array<std::set<FileId>, 8> files_;  // by Work; empty for other kinds
  std::array<Ranges, 2> ranges_;
  std::map<FileId, std::set<std::string, std::less<>>> names_;
  std::unordered_map<FileId, uint8_t> kinds_;  // which of the above a file is in; never 0
  bool everything_ = false;
  uint64_t range_count_ = 0, bytes_ = 0, name_count_ = 0, name_bytes_ = 0, coarsened_ = 0;
};

template <typename Each>
void DirtyState::for_each(Each each) const {
  WorkItem item;
  for (const Work what : of_files) {
    item.what = what;
    for (const FileId file : files_[at(what)]) {
      item.file = file;
      each(item);
    }
  }
  for (const Work what : of_ranges) {
    item.what = what;
    for (const auto& [file, set] : ranges(what)) {
      item.file = file;
      for (const auto& [from, to] : set) {
        item.from = from;
        item.to = to;
        each(item);
      }
    }
  }
  item = WorkItem();
  item.what = Work::entry;
  for (const auto& [parent, set] : names_) {
    item.parent = parent;
    for (const std::string& name : set) {
      item.name = name;
      each(item);
    }
  }
  if (!everything_) return;
  item = WorkItem();
  item.what = Work::compare_all;
  each(item);
}

}  // namespace holdfast::replica
