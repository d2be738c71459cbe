#include "replica/dirty.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "replica/dirty_file.h"
#include "replica/dirty_state.h"
#include "replica/verify.h"

namespace holdfast::replica {

struct Dirty::Impl {
  explicit Impl(uint64_t max) : max_memory(max), state(max) {}

  mutable std::mutex mutex;
  const uint64_t max_memory;
  DirtyState state;
};

namespace {

void touch_data_of(DirtyState& state, FileId file, uint64_t from, uint64_t to) {
  state.add_file(Work::inode, file);
  state.add_range(Work::data, file, from, to);
}

void compare_data_of(DirtyState& state, FileId file, uint64_t from, uint64_t to) {
  state.add_file(Work::compare_inode, file);
  state.add_range(Work::compare, file, from, to);
}

void touch_rename(DirtyState& state, const Record& record) {
  state.add_name(record.rename.parent, record.name);
  state.add_name(record.rename.new_parent, record.second);
  if ((record.head.flags & flag_last_name) != 0 && record.rename.replaced != 0) {
    state.forget(record.rename.replaced);
  }
}

/** A comparison whose answer may never come has to be made again. */
void touch_check(DirtyState& state, const Record& record) {
  CheckBody body;
  if (record.data.size() < sizeof body) return;
  std::memcpy(&body, record.data.data(), sizeof body);
  const FileId file = record.head.file;
  switch (static_cast<Check>(body.kind)) {
    case Check::data:
      state.add_file(Work::compare_inode, file);
      body.offset = std::min(body.offset, to_the_end - leaf_size);
      return state.add_range(Work::compare, file, body.offset,
                             body.offset + std::max(1u, body.count) * leaf_size);
    case Check::attributes:
      return state.add_file(Work::compare_inode, file);
    case Check::entries:
      return state.add_file(Work::listing, file);
    case Check::end:
      return;
  }
}

void touch_record(DirtyState& state, const Record& record) {
  const FileId file = record.head.file;
  switch (record.kind) {
    case Kind::write:
      return touch_data_of(state, file, record.write.offset,
                           record.write.offset + record.data.size());
    case Kind::attributes:
      state.add_file(Work::inode, file);
      // What lies behind the new size must not come back when the file grows again.
      if ((record.attributes.mask & attribute_size) == 0) return;
      return state.add_range(Work::data, file, record.attributes.size, to_the_end);
    case Kind::create:
      state.add_file(Work::inode, file);
      // Whatever gets into it comes later.
      if (S_ISDIR(record.create.mode)) state.add_file(Work::listing, file);
      return state.add_name(record.create.parent, record.name);
    case Kind::link:
      return state.add_name(record.link.parent, record.name);
    case Kind::unlink:
      state.add_name(record.unlink.parent, record.name);
      if ((record.head.flags & flag_last_name) != 0) state.forget(file);
      return;
    case Kind::rename:
      return touch_rename(state, record);
    case Kind::allocate:
      return touch_data_of(state, file, record.allocate.offset,
                           record.allocate.offset + record.allocate.length);
    case Kind::set_xattr:
    case Kind::remove_xattr:
      return state.add_file(Work::inode, file);
    case Kind::check:
      return touch_check(state, record);
    case Kind::entry:
      return state.add_name(record.entry.parent, record.name);
    case Kind::inode:
      // It sets the size, so it cuts off what is behind.
      state.add_file(Work::inode, file);
      if ((record.inode.mode & S_IFMT) != S_IFREG) return;
      return state.add_range(Work::data, file, record.inode.size, to_the_end);
    case Kind::listing:
      return state.add_file(Work::listing, file);
    case Kind::synced:
    case Kind::pad:
      return;
  }
}

}  // namespace

Dirty::Dirty(uint64_t max_memory) : impl_(new Impl(max_memory)) {}

Dirty::~Dirty() {
  delete impl_;
}

void Dirty::touch(const Record& record) {
  const std::lock_guard lock(impl_->mutex);
  touch_record(impl_->state, record);
}

void Dirty::touch_data(FileId file, uint64_t from, uint64_t to) {
  const std::lock_guard lock(impl_->mutex);
  touch_data_of(impl_->state, file, from, to);
}

void Dirty::touch_inode(FileId file) {
  const std::lock_guard lock(impl_->mutex);
  impl_->state.add_file(Work::inode, file);
}

void Dirty::touch_entry(FileId parent, std::string_view name) {
  const std::lock_guard lock(impl_->mutex);
  impl_->state.add_name(parent, name);
}

void Dirty::touch_listing(FileId directory) {
  const std::lock_guard lock(impl_->mutex);
  impl_->state.add_file(Work::listing, directory);
}

void Dirty::compare_data(FileId file, uint64_t from, uint64_t to) {
  const std::lock_guard lock(impl_->mutex);
  compare_data_of(impl_->state, file, from, to);
}

void Dirty::compare_inode(FileId file) {
  const std::lock_guard lock(impl_->mutex);
  impl_->state.add_file(Work::compare_inode, file);
}

void Dirty::compare_all() {
  const std::lock_guard lock(impl_->mutex);
  impl_->state.add_everything();
}

void Dirty::give_back(const WorkItem& item) {
  const std::lock_guard lock(impl_->mutex);
  impl_->state.add(item);
}

void Dirty::merge(const Dirty& other) {
  if (&other == this) return;
  const std::scoped_lock lock(impl_->mutex, other.impl_->mutex);
  impl_->state.merge(other.impl_->state);
}

void Dirty::forget(FileId file) {
  const std::lock_guard lock(impl_->mutex);
  impl_->state.forget(file);
}

void Dirty::clear() {
  const std::lock_guard lock(impl_->mutex);
  impl_->state = DirtyState(impl_->max_memory);
}

bool Dirty::take(WorkItem& out, uint64_t limit, bool directories_last) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.take(out, limit, directories_last);
}

bool Dirty::empty() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.empty();
}

bool Dirty::covers(FileId file, uint64_t size) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.covers(file, size);
}

DirtyTotals Dirty::totals() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state.totals();
}

int Dirty::save(const std::string& path) const {
  const std::lock_guard lock(impl_->mutex);
  return save_dirty(impl_->state, path);
}

int Dirty::load(const std::string& path) {
  DirtyState found(impl_->max_memory);
  if (const int error = load_dirty(path, found); error != 0) return error;
  const std::lock_guard lock(impl_->mutex);
  impl_->state.merge(found);
  return 0;
}

}  // namespace holdfast::replica
