#include "replica/undo_paths.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "replica/changes.h"

namespace holdfast::replica {
namespace {

constexpr size_t max_names = 1u << 20;
constexpr int max_depth = 4096;

std::string key_of(uint8_t volume, const Handle& handle) {
  std::string key(1, static_cast<char>(volume));
  key.append(reinterpret_cast<const char*>(&handle.type), sizeof handle.type);
  key.append(reinterpret_cast<const char*>(handle.bytes), handle.size);
  return key;
}

}  // namespace

int UndoPaths::read(UndoFile& file) {
  for (size_t batch = 0; batch < file.batches(); batch++) {
    const int error = file.read(batch, [&](const UndoFile::Block& block) {
      for (const UndoNote& note : block.notes) {
        if (note.id < undo_own || note.handle_size > max_handle) continue;
        IdEntry entry;
        entry.id = note.id;
        entry.handle.type = note.handle_type;
        entry.handle.size = note.handle_size;
        std::memcpy(entry.handle.bytes, note.handle, note.handle_size);
        entry.type = uint32_t{note.type} << 12;
        entry.volume = note.volume;
        if (own_files_.size() >= max_names) continue;
        own_.try_emplace(key_of(entry.volume, entry.handle), note.id);
        own_files_.emplace(note.id, entry);
      }
      std::span<const uint8_t> left = block.records;
      while (!left.empty()) {
        Record record;
        if (parse_record(left, record, true) != ParseStatus::ok) return EBADMSG;
        left = left.subspan(record.head.size);
        if (record.kind != Kind::entry || record.entry.type == 0) continue;
        if (places_.size() >= max_names) {
          forgotten_++;
          continue;
        }
        // The first one is the oldest.
        places_.try_emplace(record.head.file, Place{record.entry.parent, std::string(record.name)});
      }
      return 0;
    });
    if (error != 0) return error;
  }
  return 0;
}

/** By the log, else where the directory is: then it has not moved. */
bool UndoPaths::place_of(FileId id, Place& out) const {
  if (const auto at = places_.find(id); at != places_.end()) {
    out = at->second;
    return true;
  }
  const auto own = own_files_.find(id);
  const Result<FileRef> opened =
      own == own_files_.end() ? tree_.open(id) : tree_.open_entry(own->second);
  if (!opened.ok() || opened.value->type != S_IFDIR) return false;
  Fd above;
  std::string name;
  Handle handle;
  struct stat attributes;
  if (where_is(*opened.value, above, name) != 0) return false;
  if (tree_.identify(above.get(), handle, attributes) != 0) return false;
  FileId parent = ids_.find(opened.value->volume, handle);
  if (parent == 0) {
    const auto found = own_.find(key_of(opened.value->volume, handle));
    if (found == own_.end()) return false;
    parent = found->second;
  }
  out = {parent, std::move(name)};
  return true;
}

std::string UndoPaths::path_of(uint8_t volume, FileId id, const Handle& handle) const {
  if (id == 0 || !places_.contains(id)) {
    const auto own = own_.find(key_of(volume, handle));
    if (own != own_.end()) id = own->second;
  }
  std::string path;
  if (id == 0) return path;
  Place place;
  for (int depth = 0; id > max_root; depth++, id = place.parent) {
    if (depth > max_depth || !place_of(id, place)) return "";
    path = path.empty() ? place.name : place.name + "/" + path;
  }
  return path;
}

}  // namespace holdfast::replica
