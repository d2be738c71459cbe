#include "replica/undo_back.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace holdfast::replica {
namespace {

bool is_own(FileId id) {
  return id >= undo_own;
}

}  // namespace

int UndoBack::run() {
  if (const int error = changes_.begin(ApplyMode::replay); error != 0) return error;
  if (const int error = know_files(); error != 0) return error;
  if (const int error = empty_names(); error != 0) return error;
  if (const int error = give_names(); error != 0) return error;
  if (const int error = give_content(); error != 0) return error;
  if (const int error = changes_.end_replay(); error != 0) return error;
  if (const int error = tree_.sync_all(); error != 0) return error;
  return forget_files();
}

int UndoBack::each_record(size_t batch, const Each& each) {
  return file_.read(batch, [&](const UndoFile::Block& block) {
    std::span<const uint8_t> left = block.records;
    while (!left.empty()) {
      Record record;
      if (parse_record(left, record, true) != ParseStatus::ok) return EBADMSG;
      left = left.subspan(record.head.size);
      if (const int error = each(record); error != 0) return error;
    }
    return 0;
  });
}

/** The id that the table has for the file now. */
FileId UndoBack::now(FileId id) const {
  for (auto at = other_.find(id); at != other_.end(); at = other_.find(id)) id = at->second;
  return id;
}

/** True for files that were not known before the resync: made by it, or foreign. */
bool UndoBack::is_unknown(FileId id) const {
  return is_own(id) || made_.contains(id) || taken_.contains(id);
}

/** True for what was not there before the resync; nothing that the log has of it matters. */
bool UndoBack::is_new(FileId id) const {
  return is_unknown(id) && !placed_.contains(id);
}

int UndoBack::put(const IdEntry& entry) {
  tree_.drop(entry.id);
  return ids_.put(entry);
}

/** The table has every file that the log speaks of, as it was. */
int UndoBack::know_files() {
  std::unordered_set<FileId> known;
  for (size_t batch = 0; batch < file_.batches(); batch++) {
    const int error = file_.read(batch, [&](const UndoFile::Block& block) {
      made_.insert(block.made.begin(), block.made.end());
      for (const UndoNote& note : block.notes) {
        if (!known.insert(note.id).second) continue;
        if (const int failed = know(note); failed != 0) return failed;
      }
      return 0;
    });
    if (error != 0) return error;
  }
  return find_foreign();
}

int UndoBack::know(const UndoNote& note) {
  IdEntry entry;
  if (note.handle_size > max_handle) return EBADMSG;
  entry.id = note.id;
  entry.handle.type = note.handle_type;
  entry.handle.size = note.handle_size;
  std::memcpy(entry.handle.bytes, note.handle, note.handle_size);
  entry.type = uint32_t{note.type} << 12;
  entry.volume = note.volume;
  entry.flags = note.flags;
  const FileId found = ids_.find(note.volume, entry.handle);
  if (is_own(note.id)) {
    own_.insert(note.id);
    if (found == 0) return put(entry);
    if (found == note.id) return 0;
    other_[note.id] = found;
    taken_.insert(found);
    return 0;
  }
  const bool made = made_.contains(note.id);
  if (found == note.id) {
    if (!made) ids_.set_flags(note.id, note.flags, static_cast<uint8_t>(~note.flags));
    return 0;
  }
  if (made && !is_own(found)) {
    if (found == 0) return 0;
    other_[note.id] = found;
    taken_.insert(found);
    return 0;
  }
  if (found != 0) {
    // The table lost which id the resync had given to it, or has another one by now.
    if (is_own(found)) taken_.insert(note.id);
    other_[found] = note.id;
    ids_.erase(found);
    tree_.drop(found);
  }
  return put(entry);
}

/** Of the files without an id those were there before that an oldest statement gives a name. */
int UndoBack::find_foreign() {
  std::vector<std::pair<FileId, FileId>> names;  // parent, file
  const int error = each_name([&](const Record& record) {
    const bool unknown = record.entry.type != 0 && is_unknown(record.head.file);
    if (unknown) names.emplace_back(record.entry.parent, record.head.file);
    return 0;
  });
  if (error != 0) return error;
  for (bool more = true; more;) {
    more = false;
    for (const auto& [parent, id] : names) {
      if (!is_new(parent)) more = placed_.insert(id).second || more;
    }
  }
  for (const auto* ids : {&made_, &taken_, &own_}) {
    for (const FileId id : *ids) {
      // What is new may go with the orphanage.
      const auto flag = static_cast<uint8_t>(is_new(id) ? +id_unlinked : 0);
      ids_.set_flags(id, flag, static_cast<uint8_t>((id_unlinked | id_nameless) & ~flag));
    }
  }
  return 0;
}

int UndoBack::each_name(const Each& each) {
  std::unordered_set<NameHash, NameHasher> seen;
  for (size_t batch = 0; batch < file_.batches(); batch++) {
    const int error = each_record(batch, [&](Record& record) {
      if (record.kind != Kind::entry) return 0;
      const bool nothing = record.entry.type == 0;
      record.entry.parent = now(record.entry.parent);
      record.head.file = nothing ? record.entry.parent : now(record.head.file);
      if (!seen.insert(NameHash::of(record.entry.parent, record.name)).second) return 0;
      return each(record);
    });
    if (error != 0) return error;
  }
  return 0;
}

int UndoBack::empty_names() {
  return each_name([&](Record& record) {
    if (is_new(record.entry.parent)) return 0;
    const Result<FileRef> folder = tree_.open(record.entry.parent);
    if (!folder.ok()) return folder.error == ESTALE ? 0 : folder.error;
    Handle handle;
    struct stat there;
    const std::string name(record.name);
    const int error = tree_.identify(folder.value->fd.get(), name.c_str(), handle, there);
    if (error != 0) return error == ENOENT ? 0 : error;
    const bool right =
        record.entry.type != 0 && ids_.find(folder.value->volume, handle) == record.head.file;
    if (right) return 0;
    record.entry.type = 0;
    record.head.file = record.entry.parent;
    return changes_.apply(record);
  });
}

int UndoBack::give_names() {
  return each_name([&](const Record& record) {
    if (record.entry.type == 0 || is_new(record.entry.parent)) return 0;
    return changes_.apply(record);
  });
}

int UndoBack::give_content() {
  for (size_t batch = file_.batches(); batch-- > 0;) {
    // Attributes last: size and mtime are theirs.
    for (const bool data : {true, false}) {
      const int error = each_record(batch, [&](Record& record) {
        const bool is_data = record.kind == Kind::write || record.kind == Kind::allocate;
        if (record.kind == Kind::entry || is_data != data) return 0;
        record.head.file = now(record.head.file);
        return is_new(record.head.file) ? 0 : changes_.apply(record);
      });
      if (error != 0) return error;
    }
  }
  return 0;
}

/** The table is as it was, too. */
int UndoBack::forget_files() {
  for (const auto* ids : {&made_, &taken_, &own_}) {
    for (const FileId id : *ids) {
      ids_.erase(id);
      tree_.drop(id);
    }
  }
  return ids_.sync();
}

}  // namespace holdfast::replica
