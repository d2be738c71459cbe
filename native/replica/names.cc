#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "replica/changes.h"
#include "replica/faults.h"
#include "replica/name.h"

/* Names: create, link, unlink, rename. The rules of a replay are in changes.h. */
namespace holdfast::replica {
namespace {

constexpr uint32_t permission_bits = 07777;
constexpr const char* access_acl = "system.posix_acl_access";
constexpr const char* default_acl = "system.posix_acl_default";

/** A rename of a file that had no name before: both names are the one that it gets. */
bool is_first_name(const Record& record) {
  const RenameBody& body = record.rename;
  return body.exchange == 0 && body.parent == body.new_parent && record.name == record.second;
}

int open_made(int directory, const char* name, uint32_t type) {
  const int flags = type == S_IFDIR ? O_RDONLY | O_DIRECTORY : O_PATH;
  return openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC);
}

/** Makes an ACL be that; empty: makes it go. 0 or errno. */
int set_acl(const char* path, const char* key, std::span<const uint8_t> value) {
  if (!value.empty()) {
    return setxattr(path, key, value.data(), value.size(), 0) == 0 ? 0 : errno;
  }
  if (removexattr(path, key) == 0) return 0;
  // EACCES: a default ACL of what is no directory.
  return errno == ENODATA || errno == EOPNOTSUPP || errno == EACCES ? 0 : errno;
}

}  // namespace

int Changes::parent_of(FileId id, std::string_view text, Name& out) {
  if (text.size() > NAME_MAX) return fail(ENAMETOOLONG, "name");
  out.parent = id;
  out.set(text);
  if (const int error = file(id, out.folder); error != 0) return error;
  if (out.folder == nullptr) return 0;
  if (out.folder->type != S_IFDIR) return fail(ENOTDIR, "parent");
  out.volume = out.folder->volume;
  out.fd = out.folder->fd.get();
  return 0;
}

int Changes::look(const Name& name, Occupant& out) {
  Handle handle;
  const int error = tree_.identify(name.fd, name.text, handle, out.attributes);
  out.there = error == 0;
  out.id = out.there ? ids_.find(name.volume, handle) : 0;
  return error == 0 || error == ENOENT ? 0 : fail(error, "name_to_handle_at");
}

/** Leaves a name empty. Only in normal running does what was there go for good. */
int Changes::vacate(const Name& name, const Occupant& occupant) {
  if (!occupant.there) return 0;
  const bool folder = S_ISDIR(occupant.attributes.st_mode);
  const bool lose = faults_ != nullptr && faults_->skip_displacement;
  const bool last = folder || occupant.attributes.st_nlink == 1;
  displaced_++;
  if (!forgiving()) {
    const int error = folder                                 ? remove_folder(name)
                      : unlinkat(name.fd, name.text, 0) == 0 ? 0
                                                             : errno;
    if (error != 0) return fail(error, "unlinkat");
    if (last && occupant.id != 0) forget(occupant.id);
    return 0;
  }
  if (lose || !last) {
    if (unlinkat(name.fd, name.text, folder ? AT_REMOVEDIR : 0) == 0) return 0;
    if (!lose) return fail(errno, "unlinkat");
  }
  const int error = orphanages_[name.volume].take(name.fd, name.text, occupant.id);
  return error == 0 ? 0 : fail(error, "orphanage");
}

/** A file has a name (again). */
int Changes::named(FileId id, const FileRef& file) {
  IdEntry entry;
  constexpr uint8_t none = id_unlinked | id_nameless;
  if (!ids_.get(id, entry) || (entry.flags & none) == 0) return 0;
  if (file->type != S_IFDIR) {
    if (const int error = orphanages_[file->volume].leave(id, *file); error != 0) {
      return fail(error, "orphanage");
    }
  }
  ids_.set_flags(id, 0, none);
  untidy_ = true;
  return 0;
}

/** Makes the name be that file, whatever is there. */
int Changes::give(const FileRef& file, FileId id, const Name& name) {
  waiting_.erase(id);
  if (!name.there()) return 0;
  Occupant occupant;
  if (const int error = look(name, occupant); error != 0) return error;
  if (occupant.there && occupant.id == id && file != nullptr) return named(id, file);
  if (const int error = vacate(name, occupant); error != 0) return error;
  if (file == nullptr) {
    tell(id, &name);
    return 0;
  }
  if (file->type == S_IFDIR) return move_folder(file, id, name);
  Orphanage& orphanage = orphanages_[name.volume];
  const int error = orphanage.give(id, *file, name.fd, name.text, RENAME_NOREPLACE);
  if (error == 0) return named(id, file);
  if (error != ENOENT) return fail(error, "renameat2");
  if (linkat(file->fd.get(), "", name.fd, name.text, AT_EMPTY_PATH) == 0) return named(id, file);
  // ENOENT: an open file without a name; a later record removed it.
  return errno == ENOENT ? 0 : fail(errno, "linkat");
}

int Changes::make(const CreateBody& body, std::string_view target, const Name& at, FileRef& out) {
  const uint32_t type = body.mode & S_IFMT;
  const mode_t mode = body.mode & permission_bits;
  auto made = std::make_shared<OpenFile>();
  made->type = type;
  made->volume = at.volume;
  made->writable = type == S_IFREG;
  int done = 0;
  if (type == S_IFREG) {
    made->fd.reset(
        openat(at.fd, at.text, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
    done = made->fd.valid() ? 0 : -1;
  } else if (type == S_IFDIR) {
    done = mkdirat(at.fd, at.text, mode);
  } else if (type == S_IFLNK) {
    done = symlinkat(std::string(target).c_str(), at.fd, at.text);
  } else {
    done = mknodat(at.fd, at.text, type | mode, body.rdev);
  }
  if (done != 0) return errno;
  if (!made->fd.valid()) made->fd.reset(open_made(at.fd, at.text, type));
  if (!made->fd.valid()) return errno;
  out = std::move(made);
  return 0;
}

/** Exactly the owner, the mode and the ACLs; what is right already costs no call. */
int Changes::set_owner(const OpenFile& file, const Record& record, const struct stat& now) {
  const CreateBody& body = record.create;
  const int fd = file.fd.get();
  bool changed = false;
  if (file.type != S_IFLNK) {
    const ProcPath path(fd);
    const bool wanted = !record.data.empty() || !record.more.empty();
    char list[1024];
    // What does not fit is no reason to look no further.
    if (wanted || listxattr(path.text, list, sizeof list) != 0) {
      changed = true;
      int error = set_acl(path.text, access_acl, record.data);
      if (error == 0) error = set_acl(path.text, default_acl, record.more);
      if (error != 0) return fail(error, "ACL");
    }
  }
  if (now.st_uid != body.uid || now.st_gid != body.gid) {
    if (fchownat(fd, "", body.uid, body.gid, AT_EMPTY_PATH) != 0) return fail(errno, "fchownat");
    changed = true;
  }
  const uint32_t mode = body.mode & permission_bits;
  if (!changed && (now.st_mode & permission_bits) == mode) return 0;
  const int error = set_mode(file, mode);
  return error == 0 ? 0 : fail(error, "chmod");
}

/** Makes the file at a name, or finds it there in a replay; makes it known, and its owner's. */
int Changes::make_at(const Record& record, const Name& at) {
  const FileId id = record.head.file;
  const CreateBody& body = record.create;
  const std::string_view target = record.second;
  FileRef made;
  bool known = false;
  int error = 0;
  if (mode_ == ApplyMode::resync) {
    // Whoever has come back to this record goes on with what came of it.
    error = find(id, made);
    known = made != nullptr;
    if (error == 0 && known) error = give(made, id, at);
    if (error != 0) return error;
  }
  if (!known) error = make(body, target, at, made);
  if (error == EEXIST && forgiving()) {
    Occupant occupant;
    if (error = look(at, occupant); error != 0) return error;
    const uint32_t type = occupant.attributes.st_mode & S_IFMT;
    if (occupant.id == id && type == (body.mode & S_IFMT)) {
      if (error = file(id, made); error != 0) return error;
      known = made != nullptr;
    }
    if (!known) {
      if (error = vacate(at, occupant); error != 0) return error;
      error = make(body, target, at, made);
    }
  }
  if (error != 0) return fail(error, "create");
  IdEntry entry;
  struct stat attributes;
  entry.id = id;
  entry.type = body.mode & S_IFMT;
  entry.volume = at.volume;
  if (error = tree_.identify(made->fd.get(), entry.handle, attributes); error != 0) {
    return fail(error, "name_to_handle_at");
  }
  if (!known) {
    if (error = ids_.put(entry); error != 0) return fail(error, "ids");
    tree_.add(id, made);
  } else if (error = named(id, made); error != 0) {
    return error;
  }
  arrived(id);
  return set_owner(*made, record, attributes);
}

/** Its folder is removed later; the file may have been moved out of it before that. */
int Changes::create_away(const Record& record, Name& at) {
  IdEntry parent;
  if (!ids_.get(record.create.parent, parent)) {
    if (tree_.volumes() > 1) return fail(ESTALE, "parent");
    parent.volume = 0;
  }
  at.volume = parent.volume;
  Orphanage& orphanage = orphanages_[at.volume];
  int error = orphanage.get(at.fd);
  if (error == 0) error = orphanage.free_name_of(record.head.file);
  if (error != 0) return fail(error, "orphanage");
  at.set(Orphanage::name_of(record.head.file));
  return make_at(record, at);
}

int Changes::create(const Record& record) {
  const CreateBody& body = record.create;
  const FileId id = record.head.file;
  Name at;
  if (const int error = parent_of(body.parent, record.name, at); error != 0) return error;
  const bool parent_there = at.there();
  if (!parent_there && mode_ == ApplyMode::resync) {
    tell(id, &at);
    return 0;
  }
  const int error = parent_there ? make_at(record, at) : create_away(record, at);
  if (error != 0) return error;
  Times& own = times(id);
  own.atime = own.mtime = body.mtime;
  own.has_atime = own.has_mtime = true;
  if (parent_there) set_mtime(body.parent, body.parent_mtime);
  return 0;
}

int Changes::link(const Record& record) {
  Name at;
  FileRef target;
  if (const int error = parent_of(record.link.parent, record.name, at); error != 0) return error;
  if (const int error = find(record.head.file, target); error != 0) return error;
  if (forgiving()) {
    if (const int error = give(target, record.head.file, at); error != 0) return error;
  } else {
    const FileId id = record.head.file;
    int error = orphanages_[at.volume].give(id, *target, at.fd, at.text, RENAME_NOREPLACE);
    if (error == ENOENT) {
      error = linkat(target->fd.get(), "", at.fd, at.text, AT_EMPTY_PATH) == 0 ? 0 : errno;
    }
    if (error != 0) return fail(error, "linkat");
    if (error = named(id, target); error != 0) return error;
  }
  if (at.there()) set_mtime(record.link.parent, record.link.parent_mtime);
  return 0;
}

/**
 * rmdir. What is not replicated may be left in a folder here (from a time when this server was the
 * primary) that is gone there: it goes with its folder.
 */
int Changes::remove_folder(const Name& name) {
  if (unlinkat(name.fd, name.text, AT_REMOVEDIR) == 0) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return errno;
  const Fd folder(open_made(name.fd, name.text, S_IFDIR));
  if (!folder.valid()) return errno;
  if (const int error = purge(tree_, ids_, name.volume, folder.get()); error != 0) {
    return error == EUCLEAN ? ENOTEMPTY : error;
  }
  return unlinkat(name.fd, name.text, AT_REMOVEDIR) == 0 ? 0 : errno;
}

int Changes::unlink(const Record& record) {
  const FileId id = record.head.file;
  const bool last = (record.head.flags & flag_last_name) != 0;
  const bool folder = record.unlink.is_directory != 0;
  Name at;
  Occupant occupant;
  if (const int error = parent_of(record.unlink.parent, record.name, at); error != 0) return error;
  if (at.there()) {
    if (const int error = look(at, occupant); error != 0) return error;
    const bool it = occupant.there && occupant.id == id;
    if (!it && !forgiving()) return fail(ESTALE, "unlink");
    int error = 0;
    if (mode_ == ApplyMode::resync) {
      error = vacate(at, occupant);
    } else if (it && last) {
      error = folder && !forgiving()                                     ? remove_folder(at)
              : unlinkat(at.fd, at.text, folder ? AT_REMOVEDIR : 0) == 0 ? 0
                                                                         : errno;
      if (error != 0 && !(forgiving() && (error == ENOTEMPTY || error == EEXIST))) {
        return fail(error, "unlinkat");
      }
      if (error != 0) error = vacate(at, occupant);
    } else if (forgiving()) {
      error = vacate(at, occupant);
    } else if (unlinkat(at.fd, at.text, 0) != 0) {
      return fail(errno, "unlinkat");
    }
    if (error != 0) return error;
    set_mtime(record.unlink.parent, record.unlink.parent_mtime);
  }
  if (last) forget(id);
  return 0;
}

int Changes::rename(const Record& record) {
  const RenameBody& body = record.rename;
  const bool exchange = body.exchange != 0;
  Name from, to;
  Occupant moved, replaced;
  if (const int error = parent_of(body.parent, record.name, from); error != 0) return error;
  if (const int error = parent_of(body.new_parent, record.second, to); error != 0) return error;
  if (is_first_name(record)) {
    if (const int error = orphanages_[to.volume].get(from.fd); error != 0) {
      return fail(error, "orphanage");
    }
    from.set(Orphanage::name_of(record.head.file));
  }
  if (const int error = look(from, moved); error != 0) return error;
  if (!moved.there || moved.id != record.head.file) return fail(ESTALE, "rename");
  if (body.replaced != 0) {
    if (const int error = look(to, replaced); error != 0) return error;
    if (!replaced.there || replaced.id != body.replaced) return fail(ESTALE, "rename");
  }
  const unsigned flags = exchange ? RENAME_EXCHANGE : body.replaced == 0 ? RENAME_NOREPLACE : 0;
  if (renameat2(from.fd, from.text, to.fd, to.text, flags) != 0) {
    const bool leftovers = !exchange && (errno == ENOTEMPTY || errno == EEXIST) && replaced.there &&
                           S_ISDIR(replaced.attributes.st_mode);
    if (!leftovers) return fail(errno, "renameat2");
    if (const int error = remove_folder(to); error != 0) return fail(error, "renameat2");
    if (renameat2(from.fd, from.text, to.fd, to.text, RENAME_NOREPLACE) != 0) {
      return fail(errno, "renameat2");
    }
  }
  if (exchange) {
    keep_mtime(moved);
    keep_mtime(replaced);
  }
  set_mtime(body.parent, body.parent_mtime);
  set_mtime(body.new_parent, body.new_parent_mtime);
  if (is_first_name(record)) {
    FileRef file;
    int error = find(record.head.file, file);
    if (error == 0) error = named(record.head.file, file);
    if (error != 0) return error;
  }
  if ((record.head.flags & flag_last_name) != 0) forget(body.replaced);
  return 0;
}

/** A folder keeps the mtime that it has, though what is done changes that: XFS does so to a folder
 * that is exchanged, others do not. */
void Changes::keep_mtime(const Occupant& was) {
  if (!S_ISDIR(was.attributes.st_mode)) return;
  const timespec& mtime = was.attributes.st_mtim;
  if (times(was.id).has_mtime) return;
  set_mtime(was.id, {mtime.tv_sec, static_cast<uint32_t>(mtime.tv_nsec), 0});
}

/** A rename in a replay: the new name is the file, the old one is nothing (or the other file). */
int Changes::rename_again(const Record& record) {
  const RenameBody& body = record.rename;
  Name from, to;
  FileRef moved, other;
  if (const int error = parent_of(body.parent, record.name, from); error != 0) return error;
  if (const int error = parent_of(body.new_parent, record.second, to); error != 0) return error;
  if (const int error = find(record.head.file, moved); error != 0) return error;
  if (const int error = give(moved, record.head.file, to); error != 0) return error;
  if (body.exchange != 0) {
    if (const int error = find(body.replaced, other); error != 0) return error;
    if (const int error = give(other, body.replaced, from); error != 0) return error;
  } else if (!is_first_name(record) && from.there()) {
    Occupant left;
    int error = look(from, left);
    if (error == 0) error = vacate(from, left);
    if (error != 0) return error;
  }
  if (from.there()) set_mtime(body.parent, body.parent_mtime);
  if (to.there()) set_mtime(body.new_parent, body.new_parent_mtime);
  if ((record.head.flags & flag_last_name) != 0) forget(body.replaced);
  return 0;
}

}  // namespace holdfast::replica
