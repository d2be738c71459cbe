#include "replica/dirty_state.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace holdfast::replica {
namespace {

// What a piece takes, with what malloc adds: nodes of the containers, on 64 bits.
constexpr uint64_t file_memory = 48;   // in a set of ids
constexpr uint64_t kinds_memory = 48;  // in kinds_, with its share of the buckets
constexpr uint64_t range_memory = 64;  // one range
constexpr uint64_t ranges_file_memory = 112;
constexpr uint64_t name_memory = 80;  // a short name
constexpr uint64_t parent_memory = 112;
constexpr size_t short_name = 15;  // lies inside the text itself

// Ranges become one when no more than this lies between them; then more and more.
constexpr uint64_t first_gap = 64u << 10;
constexpr uint64_t gap_step = 16;

uint64_t beyond_short(std::string_view name) {
  return name.size() <= short_name ? 0 : name.size() + 32;
}

}  // namespace

void DirtyState::has_not(FileId file, Work what) {
  const auto found = kinds_.find(file);
  if (found == kinds_.end()) return;
  found->second = static_cast<uint8_t>(found->second & ~bit(what));
  if (found->second == 0) kinds_.erase(found);
}

void DirtyState::add_file(Work what, FileId file) {
  if (!files(what).insert(file).second) return;
  has(file, what);
  if (what == Work::listing) drop_names(file);
  shrink();
}

void DirtyState::add_name(FileId parent, std::string_view name) {
  // All of the directory's names are there anyhow.
  if (files(Work::listing).contains(parent)) return;
  auto& set = names_[parent];
  if (!set.emplace(name).second) return;
  name_count_++;
  name_bytes_ += beyond_short(name);
  has(parent, Work::entry);
  shrink();
}

void DirtyState::add_range(Work what, FileId file, uint64_t from, uint64_t to) {
  constexpr uint64_t last = to_the_end - dirty_grain;
  from -= from % dirty_grain;
  to = to > last ? to_the_end : (to + dirty_grain - 1) / dirty_grain * dirty_grain;
  if (from >= to) return;
  change(what, ranges(what)[file], [&](Intervals& set) { set.add(from, to); });
  has(file, what);
  shrink();
}

void DirtyState::add(const WorkItem& item) {
  switch (item.what) {
    case Work::inode:
    case Work::listing:
    case Work::compare_inode:
      return add_file(item.what, item.file);
    case Work::entry:
      return add_name(item.parent, item.name);
    case Work::data:
    case Work::compare:
      return add_range(item.what, item.file, item.from, item.to);
    case Work::compare_all:
      return add_everything();
    case Work::none:
      return;
  }
}

void DirtyState::merge(const DirtyState& other) {
  other.for_each([this](const WorkItem& item) { add(item); });
  coarsened_ += other.coarsened_;
}

void DirtyState::drop_names(FileId parent) {
  const auto found = names_.find(parent);
  if (found == names_.end()) return;
  name_count_ -= found->second.size();
  for (const std::string& name : found->second) name_bytes_ -= beyond_short(name);
  names_.erase(found);
  has_not(parent, Work::entry);
}

void DirtyState::forget(FileId file) {
  if (!kinds_.contains(file)) return;
  for (const Work what : of_files) files(what).erase(file);
  for (const Work what : of_ranges) {
    const auto found = ranges(what).find(file);
    if (found == ranges(what).end()) continue;
    change(what, found->second, [](Intervals& set) { set = Intervals(); });
    ranges(what).erase(found);
  }
  drop_names(file);
  kinds_.erase(file);
}

bool DirtyState::take_file(Work what, WorkItem& out) {
  std::set<FileId>& set = files(what);
  if (set.empty()) return false;
  out.what = what;
  out.file = *set.begin();
  set.erase(set.begin());
  has_not(out.file, what);
  return true;
}

bool DirtyState::take_name(WorkItem& out) {
  if (names_.empty()) return false;
  const auto first = names_.begin();
  out.what = Work::entry;
  out.parent = first->first;
  out.name = std::move(first->second.extract(first->second.begin()).value());
  name_count_--;
  name_bytes_ -= beyond_short(out.name);
  if (first->second.empty()) drop_names(out.parent);
  return true;
}

bool DirtyState::take_range(Work what, uint64_t limit, WorkItem& out) {
  Ranges& all = ranges(what);
  if (all.empty()) return false;
  const auto first = all.begin();
  out.what = what;
  out.file = first->first;
  change(what, first->second, [&](Intervals& set) { set.take_front(limit, out.from, out.to); });
  if (first->second.empty()) {
    all.erase(first);
    has_not(out.file, what);
  }
  return true;
}

bool DirtyState::take_everything(WorkItem& out) {
  if (!everything_) return false;
  out.what = Work::compare_all;
  everything_ = false;
  return true;
}

bool DirtyState::take(WorkItem& out, uint64_t limit, bool directories_last) {
  out = WorkItem();
  limit = std::max(limit - limit % dirty_grain, dirty_grain);
  return take_file(Work::inode, out) || take_name(out) ||
         (!directories_last && take_file(Work::listing, out)) ||
         take_range(Work::data, limit, out) || take_file(Work::compare_inode, out) ||
         take_range(Work::compare, limit, out) || take_file(Work::listing, out) ||
         take_everything(out);
}

bool DirtyState::covers(FileId file, uint64_t size) const {
  if (files_[at(Work::listing)].contains(file)) return true;
  const auto found = ranges(Work::data).find(file);
  if (found == ranges(Work::data).end()) return size == 0;
  const auto& [from, to] = *found->second.begin();
  return from == 0 && to >= size;
}

DirtyTotals DirtyState::totals() const {
  DirtyTotals out;
  out.bytes = bytes_;
  out.files = kinds_.size();
  out.names = name_count_;
  out.items = range_count_ + name_count_;
  for (const Work what : of_files) out.items += files_[at(what)].size();
  out.memory = memory();
  out.coarsened = coarsened_;
  out.everything = everything_;
  return out;
}

uint64_t DirtyState::names_memory() const {
  return name_count_ * name_memory + name_bytes_ + names_.size() * parent_memory;
}

uint64_t DirtyState::ranges_memory() const {
  return range_count_ * range_memory + (ranges_[0].size() + ranges_[1].size()) * ranges_file_memory;
}

uint64_t DirtyState::files_memory() const {
  uint64_t sets = 0;
  for (const Work what : of_files) sets += files_[at(what)].size();
  return sets * file_memory + kinds_.size() * kinds_memory;
}

/** False: every file has one range already. */
bool DirtyState::close_gaps(uint64_t& gap) {
  const uint64_t files = ranges_[0].size() + ranges_[1].size();
  if (range_count_ <= files) return false;
  for (const Work what : of_ranges) {
    for (auto& [file, all] : ranges(what)) {
      change(what, all, [&](Intervals& set) { set.close_gaps(gap); });
    }
  }
  gap = gap > to_the_end / gap_step ? to_the_end : gap * gap_step;
  return true;
}

/** The names of the directories that have the most become those directories. False: no names. */
bool DirtyState::fold_names() {
  size_t most = 0;
  for (const auto& [parent, set] : names_) most = std::max(most, set.size());
  if (most == 0) return false;
  std::vector<FileId> large;
  for (const auto& [parent, set] : names_) {
    if (set.size() * 2 >= most) large.push_back(parent);
  }
  for (const FileId parent : large) {
    drop_names(parent);
    files(Work::listing).insert(parent);
    has(parent, Work::listing);
  }
  return true;
}

/** Down to three quarters of the limit at once, so that it is seldom needed. What takes more room,
 * names or ranges, is kept coarser first. */
void DirtyState::shrink() {
  if (memory() <= max_memory_) return;
  coarsened_++;
  uint64_t gap = first_gap;
  while (memory() > max_memory_ / 4 * 3) {
    if (ranges_memory() >= names_memory() && close_gaps(gap)) continue;
    if (fold_names() || close_gaps(gap)) continue;
    DirtyState none(max_memory_);
    none.coarsened_ = coarsened_;
    none.everything_ = true;
    *this = std::move(none);
  }
}

}  // namespace holdfast::replica
