#include "replica/changes.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "replica/faults.h"

namespace holdfast::replica {
namespace {

constexpr std::string_view access_acl = "system.posix_acl_access";
// More files than this in one batch: their times are set before it ends, while their descriptors
// are still in the cache.
constexpr size_t max_times = 256;

timespec to_timespec(bool there, const Time& time) {
  if (!there) return {0, UTIME_OMIT};
  return {time.seconds, static_cast<long>(time.nanoseconds)};
}

/** All bytes, or errno. */
int write_all(int fd, const uint8_t* data, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t written = pwrite(fd, data, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    data += written;
    size -= static_cast<size_t>(written);
    offset += static_cast<uint64_t>(written);
  }
  return 0;
}

}  // namespace

Changes::Changes(Tree& tree, Ids& ids, const Faults* faults)
    : tree_(tree), ids_(ids), faults_(faults) {
  times_.reserve(1024);
}

Changes::~Changes() = default;

int Changes::begin(ApplyMode mode) {
  mode_ = mode;
  orphanages_.clear();
  waiting_.clear();
  told_.clear();
  for (size_t volume = 0; volume < tree_.volumes(); volume++) {
    orphanages_.emplace_back(tree_, ids_, static_cast<uint8_t>(volume));
    if (const int error = orphanages_.back().look(); error != 0) return fail(error, "orphanage");
  }
  return 0;
}

int Changes::end_replay() {
  if (mode_ != ApplyMode::replay) return 0;
  int error = flush_times();
  if (error == 0) error = end_waiting();
  if (error == 0) error = flush_times();
  if (error != 0) return error;
  for (Orphanage& orphanage : orphanages_) {
    if (error = orphanage.empty(); error != 0) return fail(error, "orphanage");
  }
  mode_ = ApplyMode::normal;
  forget_unlinked();
  return 0;
}

/** Whoever has no name left loses the id too, once a checkpoint is behind that; also those whose
 * removal was before the last one, by a process that was killed after it. */
void Changes::forget_unlinked() {
  nameless_.clear();
  ids_.for_each(
      [](void* context, const IdEntry& entry) {
        auto& self = *static_cast<Changes*>(context);
        if ((entry.flags & (id_unlinked | id_nameless)) == id_unlinked) {
          self.nameless_.emplace_back(self.lsn_, entry.id);
        }
        return true;
      },
      this);
}

void Changes::checkpointed(Lsn saved) {
  for (; !nameless_.empty() && nameless_.front().first <= saved; nameless_.pop_front()) {
    // Not of a file that is replicated again, under the same id.
    IdEntry entry;
    const FileId id = nameless_.front().second;
    if (ids_.get(id, entry) && (entry.flags & (id_unlinked | id_nameless)) == id_unlinked) {
      ids_.erase(id);
    }
  }
}

int Changes::apply(const Record& record) {
  lsn_ = record.head.lsn;
  statement_ = record.kind > Kind::check;
  if (times_.size() > max_times) {
    if (const int error = flush_times(); error != 0) return error;
  }
  switch (record.kind) {
    case Kind::write:
      return write(record);
    case Kind::attributes:
      return attributes(record);
    case Kind::create:
      return create(record);
    case Kind::link:
      return link(record);
    case Kind::unlink:
      return unlink(record);
    case Kind::rename:
      return forgiving() ? rename_again(record) : rename(record);
    case Kind::entry:
      return entry(record);
    case Kind::inode:
      return inode(record);
    case Kind::listing:
      return listing(record);
    case Kind::allocate:
      return allocate(record);
    case Kind::set_xattr:
    case Kind::remove_xattr:
      return xattr(record);
    case Kind::pad:
    case Kind::check:
    case Kind::synced:
      break;
  }
  return 0;
}

int Changes::file(FileId id, FileRef& out) {
  const int error = find(id, out);
  if (error == 0 && out == nullptr) tell(id);
  return error;
}

/** In a resync: the file went before it began, and is only still open. It comes anew. */
bool Changes::removed(FileId id, const OpenFile& file) {
  struct stat now;
  if (mode_ != ApplyMode::resync || fstat(file.fd.get(), &now) != 0 || now.st_nlink != 0) {
    return false;
  }
  tree_.drop(id);
  return true;
}

int Changes::find(FileId id, FileRef& out) {
  Result<FileRef> opened = tree_.open(id);
  if (opened.ok() && !removed(id, *opened.value)) {
    out = std::move(opened.value);
    return 0;
  }
  out.reset();
  if (opened.ok()) {
    skipped_++;
    return 0;
  }
  if (!forgiving() || opened.error != ESTALE) return fail(opened.error, opened.call);
  skipped_++;
  return 0;
}

Changes::Times& Changes::times(FileId id) {
  if (last_id_ == id && last_times_ != nullptr) return *last_times_;
  last_id_ = id;
  last_times_ = &times_[id];
  return *last_times_;
}

int Changes::set_times(FileId id, const Times& at) {
  FileRef found;
  if (const int error = find(id, found); error != 0 || found == nullptr) return error;
  const timespec both[2] = {to_timespec(at.has_atime, at.atime),
                            to_timespec(at.has_mtime, at.mtime)};
  const bool by_path = found->type != S_IFREG && found->type != S_IFDIR;
  const int fd = found->fd.get();
  const int set = by_path ? utimensat(fd, "", both, AT_EMPTY_PATH) : futimens(fd, both);
  return set == 0 ? 0 : fail(errno, "utimensat");
}

int Changes::flush_times() {
  last_times_ = nullptr;
  int first = 0;
  if (faults_ == nullptr || !faults_->lose_mtime) {
    for (const auto& [id, at] : times_) {
      const int error = set_times(id, at);
      if (first == 0) first = error;
    }
  }
  times_.clear();
  if (untidy_ && !forgiving()) {
    untidy_ = false;
    for (Orphanage& orphanage : orphanages_) {
      const int error = orphanage.tidy();
      if (error != 0 && first == 0) first = fail(error, "orphanage");
    }
  }
  return first;
}

int Changes::flush_times(FileId id) {
  const auto found = times_.find(id);
  return found == times_.end() ? 0 : set_times(id, found->second);
}

void Changes::forget(FileId id) {
  ids_.set_flags(id, id_unlinked, id_nameless);
  waiting_.erase(id);
  // In a resync it may yet be wanted again.
  if (mode_ != ApplyMode::resync) nameless_.emplace_back(lsn_, id);
  tree_.drop(id);
  times_.erase(id);
  if (last_id_ == id) last_times_ = nullptr;
}

int Changes::write(const Record& record) {
  FileRef to;
  if (const int error = file(record.head.file, to); error != 0 || to == nullptr) return error;
  if (!to->writable) return fail(EBADF, "pwrite");
  const int error =
      write_all(to->fd.get(), record.data.data(), record.data.size(), record.write.offset);
  if (error != 0) return fail(error, "pwrite");
  written_ += record.data.size();
  set_mtime(record.head.file, record.write.mtime);
  return 0;
}

int Changes::set_mode(const OpenFile& file, uint32_t mode) {
  if (file.type == S_IFLNK) return 0;  // a symbolic link has none
  const int fd = file.fd.get();
  const bool by_path = file.type != S_IFREG && file.type != S_IFDIR;
  const int set = by_path ? chmod(ProcPath(fd).text, mode) : fchmod(fd, mode);
  return set == 0 ? 0 : errno;
}

int Changes::attributes(const Record& record) {
  FileRef to;
  if (const int error = file(record.head.file, to); error != 0 || to == nullptr) return error;
  const AttributesBody& body = record.attributes;
  const int fd = to->fd.get();
  if ((body.mask & attribute_size) != 0) {
    if (!to->writable) return fail(EBADF, "ftruncate");
    if (ftruncate(fd, static_cast<off_t>(body.size)) != 0) return fail(errno, "ftruncate");
  }
  if ((body.mask & (attribute_uid | attribute_gid)) != 0) {
    const uid_t uid = (body.mask & attribute_uid) != 0 ? body.uid : static_cast<uid_t>(-1);
    const gid_t gid = (body.mask & attribute_gid) != 0 ? body.gid : static_cast<gid_t>(-1);
    if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) != 0) return fail(errno, "fchownat");
  }
  // After the owner: a change of owner may take the set-id bits away.
  if ((body.mask & attribute_mode) != 0) {
    if (const int error = set_mode(*to, body.mode); error != 0) return fail(error, "chmod");
  }
  if ((body.mask & (attribute_atime | attribute_mtime)) != 0) {
    Times& at = times(record.head.file);
    if ((body.mask & attribute_atime) != 0) at.atime = body.atime, at.has_atime = true;
    if ((body.mask & attribute_mtime) != 0) at.mtime = body.mtime, at.has_mtime = true;
  }
  return 0;
}

/** The same content on a file system that does not know the call: zeros, and a longer file. */
int Changes::allocate_otherwise(int fd, const AllocateBody& body) {
  struct stat now;
  if (fstat(fd, &now) != 0) return errno;
  const auto size = static_cast<uint64_t>(now.st_size);
  const uint64_t end = body.offset + body.length;
  const bool zeros = (body.mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
  if (zeros) {
    static const uint8_t nothing[65536] = {};
    for (uint64_t at = body.offset; at < std::min(end, size);) {
      const uint64_t piece = std::min<uint64_t>(std::min(end, size) - at, sizeof nothing);
      if (const int error = write_all(fd, nothing, piece, at); error != 0) return error;
      at += piece;
    }
  }
  if ((body.mode & FALLOC_FL_KEEP_SIZE) != 0 || end <= size) return 0;
  return ftruncate(fd, static_cast<off_t>(end)) == 0 ? 0 : errno;
}

int Changes::allocate(const Record& record) {
  FileRef to;
  if (const int error = file(record.head.file, to); error != 0 || to == nullptr) return error;
  if (!to->writable) return fail(EBADF, "fallocate");
  const AllocateBody& body = record.allocate;
  const int fd = to->fd.get();
  int error = 0;
  if (fallocate(fd, static_cast<int>(body.mode), static_cast<off_t>(body.offset),
                static_cast<off_t>(body.length)) != 0) {
    error = errno == EOPNOTSUPP ? allocate_otherwise(fd, body) : errno;
  }
  if (error != 0) return fail(error, "fallocate");
  set_mtime(record.head.file, body.mtime);
  return 0;
}

int Changes::xattr(const Record& record) {
  FileRef to;
  if (const int error = file(record.head.file, to); error != 0 || to == nullptr) return error;
  const std::string name(record.name);
  const ProcPath path(to->fd.get());
  const bool setting = record.kind == Kind::set_xattr;
  const int done =
      setting ? setxattr(path.text, name.c_str(), record.data.data(), record.data.size(), 0)
              : removexattr(path.text, name.c_str());
  if (done != 0) {
    const bool gone = forgiving() && !setting && errno == ENODATA;
    if (!gone) return fail(errno, setting ? "setxattr" : "removexattr");
  }
  if (record.name != access_acl) return 0;
  const int error = set_mode(*to, record.xattr.mode);
  return error == 0 ? 0 : fail(error, "chmod");
}

}  // namespace holdfast::replica
