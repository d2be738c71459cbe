#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <map>
#include <string>

#include "replica/changes.h"
#include "replica/name.h"
#include "replica/scan.h"
#include "replica/xattrs.h"

/* Statements: how something is, whatever it was before. The rules of a resync are in changes.h. */
namespace holdfast::replica {
namespace {

constexpr uint32_t permission_bits = 07777;
constexpr std::string_view access_acl = "system.posix_acl_access";
// Reported once until they are there; more than this are reported each time.
constexpr size_t max_told = 100'000;

/** A listing's names; they point into the record. */
std::vector<std::string_view> names_of(const Record& record) {
  std::vector<std::string_view> names;
  names.reserve(record.listing.count);
  std::span<const uint8_t> left = record.data;
  std::string_view name;
  while (next_name(left, name)) names.push_back(name);
  return names;
}

}  // namespace

void Changes::tell(FileId id, const Name* name, bool adopted) {
  if (mode_ != ApplyMode::resync || !missing_) return;
  Missing missing;
  missing.file = id;
  missing.adopted = adopted;
  if (name != nullptr) {
    missing.parent = name->parent;
    missing.name = name->text;
  } else if (!statement_) {
    // Not so with a name, and of what was stated: the source believes that it is done.
    if (told_.contains(id)) return;
    if (told_.size() < max_told) told_.insert(id);
  }
  missing_(missing);
}

/** What is reported of a file from here on is news. */
void Changes::arrived(FileId id) {
  if (!told_.empty()) told_.erase(id);
}

/** A foreign file of that type at the name becomes the file. Not one that has names elsewhere, also
 * outside of what is replicated: it will be written to. */
int Changes::adopt(FileId id, uint32_t type, const Name& at, FileRef& out) {
  Occupant occupant;
  if (const int error = look(at, occupant); error != 0) return error;
  const struct stat& now = occupant.attributes;
  if (!occupant.there || occupant.id != 0 || (now.st_mode & S_IFMT) != type) return 0;
  if (type != S_IFDIR && (type != S_IFREG || now.st_nlink != 1)) return 0;
  IdEntry entry;
  struct stat folder;
  entry.id = id;
  entry.type = type;
  entry.volume = at.volume;
  if (fstat(at.fd, &folder) != 0) return fail(errno, "fstat");
  if (folder.st_dev != now.st_dev) return 0;
  struct stat again;
  if (const int error = tree_.identify(at.fd, at.text, entry.handle, again); error != 0) {
    return fail(error, "name_to_handle_at");
  }
  if (const int error = ids_.put(entry); error != 0) return fail(error, "ids");
  tree_.drop(id);
  if (const int error = find(id, out); error != 0 || out == nullptr) return error;
  arrived(id);
  tell(id, &at, true);
  return 0;
}

int Changes::entry(const Record& record) {
  const EntryBody& body = record.entry;
  const FileId id = record.head.file;
  Name at;
  if (const int error = parent_of(body.parent, record.name, at); error != 0) return error;
  if (!at.there()) return 0;
  int error = 0;
  if (body.type == 0) {
    Occupant occupant;
    error = look(at, occupant);
    if (error == 0) error = vacate(at, occupant);
  } else {
    FileRef file;
    error = find(id, file);
    if (error == 0 && file == nullptr && mode_ == ApplyMode::resync) {
      error = adopt(id, body.type, at, file);
    }
    if (error == 0) error = give(file, id, at);
  }
  if (error != 0) return error;
  set_mtime(body.parent, body.parent_mtime);
  return 0;
}

/** Makes a file in the orphanage, until a record gives it a name. */
int Changes::make_nameless(const Record& record, FileRef& out) {
  const InodeBody& body = record.inode;
  const FileId id = record.head.file;
  if (body.volume >= orphanages_.size()) return fail(EINVAL, "volume");
  Orphanage& orphanage = orphanages_[body.volume];
  Name at;
  at.volume = static_cast<uint8_t>(body.volume);
  at.set(Orphanage::name_of(id));
  int error = orphanage.get(at.fd);
  if (error == 0) error = orphanage.free_name_of(id);
  if (error != 0) return fail(error, "orphanage");
  CreateBody like{};
  like.mode = body.mode;
  like.rdev = body.rdev;
  if (error = make(like, record.second, at, out); error != 0) return fail(error, "create");
  IdEntry entry;
  struct stat attributes;
  entry.id = id;
  entry.type = body.mode & S_IFMT;
  entry.volume = at.volume;
  entry.flags = id_unlinked | id_nameless;
  if (error = tree_.identify(out->fd.get(), entry.handle, attributes); error != 0) {
    return fail(error, "name_to_handle_at");
  }
  if (error = ids_.put(entry); error != 0) return fail(error, "ids");
  tree_.add(id, out);
  return 0;
}

/** Exactly the xattrs of the record; `acl`: the access ACL was changed, and with it the mode. */
int Changes::set_xattrs(const Record& record, const OpenFile& file, bool& acl) {
  const ProcPath path(file.fd.get());
  const bool values = (record.inode.flags & inode_with_values) != 0;
  std::vector<uint8_t> have;
  if (const int error = read_xattrs(path.text, values, have); error != 0) {
    return fail(error, "listxattr");
  }
  if (std::ranges::equal(have, record.data)) return 0;
  std::map<std::string_view, std::span<const uint8_t>> wanted, there;
  std::string_view name;
  std::span<const uint8_t> value;
  for (std::span<const uint8_t> left = record.data; next_xattr(left, name, value);) {
    if (!is_own_attribute(name)) wanted[name] = value;
  }
  for (std::span<const uint8_t> left = have; next_xattr(left, name, value);) there[name] = value;
  for (const auto& [key, old] : there) {
    if (wanted.contains(key)) continue;
    acl = acl || key == access_acl;
    if (removexattr(path.text, std::string(key).c_str()) != 0 && errno != ENODATA) {
      return fail(errno, "removexattr");
    }
  }
  for (const auto& [key, bytes] : wanted) {
    const auto found = there.find(key);
    if (!values || (found != there.end() && std::ranges::equal(found->second, bytes))) continue;
    acl = acl || key == access_acl;
    if (setxattr(path.text, std::string(key).c_str(), bytes.data(), bytes.size(), 0) != 0) {
      return fail(errno, "setxattr");
    }
  }
  return 0;
}

/** All that an inode record says; what is right already costs no call that changes it. */
int Changes::set_all(const Record& record, const OpenFile& file) {
  const InodeBody& body = record.inode;
  const int fd = file.fd.get();
  struct stat now;
  if (fstat(fd, &now) != 0) return fail(errno, "fstat");
  if (file.type == S_IFREG && static_cast<uint64_t>(now.st_size) != body.size) {
    if (!file.writable) return fail(EBADF, "ftruncate");
    if (ftruncate(fd, static_cast<off_t>(body.size)) != 0) return fail(errno, "ftruncate");
  }
  bool changed = now.st_uid != body.uid || now.st_gid != body.gid;
  if (changed && fchownat(fd, "", body.uid, body.gid, AT_EMPTY_PATH) != 0) {
    return fail(errno, "fchownat");
  }
  if (const int error = set_xattrs(record, file, changed); error != 0) return error;
  // Last: a change of owner or ACL changes it.
  const uint32_t mode = body.mode & permission_bits;
  if (changed || (now.st_mode & permission_bits) != mode) {
    if (const int error = set_mode(file, mode); error != 0) return fail(error, "chmod");
  }
  return 0;
}

int Changes::inode(const Record& record) {
  const InodeBody& body = record.inode;
  const FileId id = record.head.file;
  FileRef file;
  Result<FileRef> opened = tree_.open(id);
  if (opened.ok()) {
    file = std::move(opened.value);
  } else if (opened.error != ESTALE) {
    return fail(opened.error, opened.call);
  }
  // A file never changes its type: this one is of another history, and loses the id.
  if (file != nullptr && file->type != (body.mode & S_IFMT)) file.reset();
  if (file != nullptr && removed(id, *file)) file.reset();
  const bool made = file == nullptr;
  if (made) {
    if (const int error = make_nameless(record, file); error != 0) return error;
  } else if (IdEntry entry; ids_.get(id, entry) && (entry.flags & id_unlinked) != 0) {
    ids_.set_flags(id, id_nameless, 0);  // its name is to come
  }
  if (const int error = set_all(record, *file); error != 0) return error;
  Times& at = times(id);
  at.atime = body.atime;
  at.mtime = body.mtime;
  at.has_atime = at.has_mtime = true;
  arrived(id);
  // The source may have believed that there is more of it here than was made now.
  if (made && (body.flags & inode_all_follows) == 0) tell(id);
  return 0;
}

/** Empties a name that a listing does not have, unless that is none of its business. */
int Changes::leave_out(const Name& at, bool root) {
  const std::string_view name = at.text;
  if (root && name.starts_with(orphanage_name)) return 0;
  Occupant occupant;
  IdEntry entry;
  struct stat folder;
  if (const int error = look(at, occupant); error != 0 || !occupant.there) return error;
  if (occupant.id != 0 && ids_.get(occupant.id, entry) && (entry.flags & id_local) != 0) return 0;
  // What the file system itself has put there.
  if (root && occupant.id == 0 && name == "lost+found") return 0;
  if (fstat(at.fd, &folder) != 0) return fail(errno, "fstat");
  if (folder.st_dev != occupant.attributes.st_dev) return 0;
  return vacate(at, occupant);
}

int Changes::listing(const Record& record) {
  const FileId id = record.head.file;
  Name at;
  if (const int error = parent_of(id, {}, at); error != 0 || !at.there()) return error;
  std::vector<std::string> have;
  if (const int error = list_names(at.fd, have); error != 0) return fail(error, "readdir");
  std::sort(have.begin(), have.end());
  const std::vector<std::string_view> names = names_of(record);
  for (const std::string& each : have) {
    const bool outside = (!record.name.empty() && each <= record.name) ||
                         (!record.second.empty() && each > record.second);
    if (outside || std::binary_search(names.begin(), names.end(), std::string_view(each))) continue;
    at.set(each);
    if (const int error = leave_out(at, id <= max_root); error != 0) return error;
  }
  for (const std::string_view each : names) {
    Occupant occupant;
    if (each.size() > NAME_MAX) return fail(ENAMETOOLONG, "name");
    at.set(each);
    if (std::binary_search(have.begin(), have.end(), each)) {
      if (const int error = look(at, occupant); error != 0) return error;
    }
    if (occupant.id == 0) tell(0, &at);
  }
  set_mtime(id, record.listing.mtime);
  return 0;
}

int Changes::end_resync(const KeepOrphan& keep) {
  if (mode_ != ApplyMode::resync) return 0;
  if (const int error = flush_times(); error != 0) return error;
  std::vector<FileId> gone;
  for (Orphanage& orphanage : orphanages_) {
    if (const int error = orphanage.empty(keep, gone); error != 0) return fail(error, "orphanage");
  }
  for (const FileId id : gone) {
    ids_.set_flags(id, id_unlinked, id_nameless);
    tree_.drop(id);
  }
  mode_ = ApplyMode::normal;
  told_.clear();
  forget_unlinked();
  return 0;
}

}  // namespace holdfast::replica
