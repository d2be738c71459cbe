#include "replica/undo_capture.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "replica/changes.h"
#include "replica/orphanage.h"
#include "replica/scan.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Which records change what. How a thing is saved: undo_save.cc. */
namespace holdfast::replica {
namespace {

constexpr uint64_t file_memory = 200;  // of a Saved in its map
constexpr uint64_t name_memory = 64;

bool is_same(const Handle& a, const Handle& b) {
  return a.type == b.type && a.size == b.size && std::memcmp(a.bytes, b.bytes, a.size) == 0;
}

}  // namespace

NameHash NameHash::of(FileId parent, std::string_view name) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(name.data(), name.size(), parent);
  return {hash.low64, hash.high64};
}

void UndoCapture::begin() {
  // Only what did come true counts from here on.
  for (const auto& [id, was] : adopting_) {
    IdEntry now;
    if (ids_.get(id, now) && is_same(now.handle, was.handle)) adopted_.emplace(id, was);
  }
  adopting_.clear();
  for (const FileId id : making_) {
    IdEntry now;
    if (!ids_.get(id, now)) saved(id).made = false;
  }
  making_.clear();
  if (memory_ > max_memory_) forget();
}

void UndoCapture::forget() {
  files_.clear();
  names_.clear();
  adopting_.clear();
  adopted_.clear();
  making_.clear();
  memory_ = 0;
}

UndoCapture::Saved& UndoCapture::saved(FileId id) {
  const auto [at, fresh] = files_.try_emplace(id);
  if (fresh) memory_ += file_memory;
  return at->second;
}

int UndoCapture::open(const IdEntry& entry, Subject& out) {
  out.entry = entry;
  out.file.reset();
  Result<FileRef> opened = tree_.open_entry(entry);
  if (opened.ok()) out.file = std::move(opened.value);
  return opened.ok() || opened.error == ESTALE ? 0 : opened.error;
}

int UndoCapture::find(FileId id, Subject& out) {
  out = Subject();
  for (const auto* map : {&adopting_, &adopted_}) {
    if (const auto at = map->find(id); at != map->end()) return open(at->second, out);
  }
  if (!ids_.get(id, out.entry)) return 0;
  Result<FileRef> opened = tree_.open(id);
  if (opened.ok()) out.file = std::move(opened.value);
  return opened.ok() || opened.error == ESTALE ? 0 : opened.error;
}

/** What stands at a name; with an id of the log's own when it has none. */
int UndoCapture::identify(uint8_t volume, int directory, const char* name, Subject& out) {
  out = Subject();
  struct stat now;
  const int error = *name == '\0' ? tree_.identify(directory, out.entry.handle, now)
                                  : tree_.identify(directory, name, out.entry.handle, now);
  if (error != 0) return error == ENOENT ? 0 : error;
  const FileId id = ids_.find(volume, out.entry.handle);
  if (id != 0) return find(id, out);
  out.entry.id = file_.next_own();
  out.entry.type = now.st_mode & S_IFMT;
  out.entry.volume = volume;
  return open(out.entry, out);
}

int UndoCapture::record(const Record& record) {
  Subject subject;
  switch (record.kind) {
    case Kind::write:
    case Kind::attributes:
    case Kind::allocate:
    case Kind::set_xattr:
    case Kind::remove_xattr:
      if (const int error = find(record.head.file, subject); error != 0) return error;
      if (!subject.there()) return 0;
      if (record.kind == Kind::allocate) return allocate(record, subject);
      if (record.kind == Kind::attributes) return attributes(record, subject);
      if (record.kind != Kind::write) return save_inode(subject);
      return save_data(subject, record.write.offset, record.write.offset + record.data.size());
    case Kind::create:
      return create(record);
    case Kind::link:
      return save_name(record.link.parent, record.name);
    case Kind::unlink:
      // Also the file: it may be marked as one without a name.
      if (const int error = find(record.head.file, subject); error != 0) return error;
      if (subject.there()) note(subject);
      return save_name(record.unlink.parent, record.name);
    case Kind::rename:
      return rename(record);
    case Kind::entry:
      return entry(record);
    case Kind::inode:
      return inode(record);
    case Kind::listing:
      return listing(record);
    case Kind::pad:
    case Kind::check:
    case Kind::synced:
      break;
  }
  return 0;
}

int UndoCapture::allocate(const Record& record, const Subject& subject) {
  const AllocateBody& body = record.allocate;
  const bool zeros = (body.mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
  if (!zeros) return save_inode(subject);
  return save_data(subject, body.offset, body.offset + body.length);
}

int UndoCapture::attributes(const Record& record, const Subject& subject) {
  const bool size = (record.attributes.mask & attribute_size) != 0;
  return size ? save_data(subject, record.attributes.size, INT64_MAX) : save_inode(subject);
}

int UndoCapture::create(const Record& record) {
  const FileId id = record.head.file;
  Subject subject;
  if (const int error = save_name(record.create.parent, record.name); error != 0) return error;
  if (const int error = find(id, subject); error != 0) return error;
  if (!subject.there() || adopting_.contains(id)) will_make(id);
  return subject.there() ? save_place(subject) : 0;
}

/** The file is not there, and a record makes it, as far as can be seen. */
void UndoCapture::will_make(FileId id) {
  file_.add_made(id);
  // A file that an entry of this batch takes may still turn out to be it.
  if (adopting_.contains(id)) return;
  saved(id).made = true;
  making_.push_back(id);
}

int UndoCapture::rename(const Record& record) {
  const RenameBody& body = record.rename;
  if (const int error = save_name(body.parent, record.name); error != 0) return error;
  if (const int error = save_name(body.new_parent, record.second); error != 0) return error;
  for (const FileId id : {record.head.file, body.replaced}) {
    Subject subject;
    if (id == 0) continue;
    if (const int error = find(id, subject); error != 0) return error;
    if (!subject.there()) continue;
    note(subject);
    if (const int error = save_place(subject); error != 0) return error;
  }
  return 0;
}

int UndoCapture::entry(const Record& record) {
  const EntryBody& body = record.entry;
  if (const int error = save_name(body.parent, record.name); error != 0) return error;
  if (body.type == 0) return 0;
  Subject subject;
  if (const int error = find(record.head.file, subject); error != 0) return error;
  if (subject.there()) return save_place(subject);
  return adopt(body.parent, record.name, record.head.file, body.type);
}

/** A file of that name and type that has no id will be taken for `id`. */
int UndoCapture::adopt(FileId parent, std::string_view name, FileId id, uint32_t type) {
  Subject folder, found;
  if (const int error = find(parent, folder); error != 0) return error;
  if (!folder.there() || !folder.is_folder()) return 0;
  const std::string text(name);
  const int error = identify(folder.entry.volume, folder.file->fd.get(), text.c_str(), found);
  if (error != 0 || !found.there() || found.entry.id < undo_own || found.entry.type != type) {
    return error;
  }
  adopting_[id] = found.entry;
  return save_inode(found);
}

int UndoCapture::inode(const Record& record) {
  const FileId id = record.head.file;
  Subject subject;
  if (const int error = find(id, subject); error != 0) return error;
  if (!subject.there() || adopting_.contains(id)) will_make(id);
  if (!subject.there()) return 0;
  return save_data(subject, record.inode.size, INT64_MAX);
}

int UndoCapture::listing(const Record& record) {
  Subject folder;
  if (const int error = find(record.head.file, folder); error != 0) return error;
  if (!folder.there() || !folder.is_folder()) return 0;
  std::vector<std::string> names;
  if (const int error = list_names(folder.file->fd.get(), names); error != 0) return error;
  std::unordered_set<std::string_view> stay;
  std::span<const uint8_t> left = record.data;
  for (std::string_view name; next_name(left, name);) stay.insert(name);
  const bool root = folder.entry.id <= max_root;
  for (const std::string& name : names) {
    const bool in_range = name > record.name && (record.second.empty() || name <= record.second);
    if (!in_range || stay.contains(name) || (root && is_internal_name(name))) continue;
    if (const int error = save_name(folder, name); error != 0) return error;
  }
  return save_inode(folder);
}

int UndoCapture::save_name(FileId parent, std::string_view name) {
  Subject folder;
  if (const int error = find(parent, folder); error != 0) return error;
  if (!folder.there() || !folder.is_folder()) return 0;
  return save_name(folder, name);
}

int UndoCapture::save_name(const Subject& folder, std::string_view name) {
  if (name.size() > NAME_MAX || saved(folder.entry.id).made) return 0;
  const NameHash hash = NameHash::of(folder.entry.id, name);
  if (names_.contains(hash)) return 0;
  Subject found;
  const std::string text(name);
  int error = identify(folder.entry.volume, folder.file->fd.get(), text.c_str(), found);
  if (error != 0) return error;
  if (error = save_inode(folder); error != 0) return error;
  if (found.there()) {
    note(found);
    // A directory that moves may get another mtime on the way.
    if (found.is_folder()) error = save_inode(found);
    if (error != 0) return error;
  }
  struct stat now;
  if (fstat(folder.file->fd.get(), &now) != 0) return errno;
  EntryBody body{};
  body.parent = folder.entry.id;
  body.parent_mtime = {now.st_mtim.tv_sec, static_cast<uint32_t>(now.st_mtim.tv_nsec), 0};
  body.name_size = static_cast<uint32_t>(name.size());
  body.type = found.there() ? found.entry.type : 0;
  const iovec parts[] = {{&body, sizeof body}, {const_cast<char*>(name.data()), name.size()}};
  const FileId id = found.there() ? found.entry.id : folder.entry.id;
  if (error = file_.add_record(Kind::entry, id, parts); error != 0) return error;
  names_.insert(hash);
  memory_ += name_memory;
  return 0;
}

/** What lies in the orphanage had another place before, and that was saved. */
bool UndoCapture::is_orphanage(uint8_t volume, int directory) const {
  struct stat here, orphanage;
  return fstat(directory, &here) == 0 &&
         fstatat(tree_.root_fd(volume), orphanage_name, &orphanage, AT_SYMLINK_NOFOLLOW) == 0 &&
         here.st_dev == orphanage.st_dev && here.st_ino == orphanage.st_ino;
}

/** A directory that gets a name loses the one that it has, wherever that is. */
int UndoCapture::save_place(const Subject& subject) {
  if (const int error = save_inode(subject); error != 0) return error;
  if (!subject.is_folder() || saved(subject.entry.id).made) return 0;
  Fd above;
  std::string name;
  const int error = where_is(*subject.file, above, name);
  if (error != 0) return error == ESTALE ? 0 : error;
  if (is_orphanage(subject.entry.volume, above.get())) return 0;
  Subject parent;
  const int unknown = identify(subject.entry.volume, above.get(), "", parent);
  if (unknown != 0 || !parent.there()) return unknown;
  return save_name(parent, name);
}

}  // namespace holdfast::replica
