#include "replica/tree.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <list>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace holdfast::replica {
namespace {

constexpr size_t shard_count = 8;
constexpr useconds_t longest_wait_us = 500'000;

/** struct file_handle with room for its bytes. */
struct KernelHandle {
  alignas(file_handle) uint8_t memory[sizeof(file_handle) + MAX_HANDLE_SZ];
  file_handle* get() { return reinterpret_cast<file_handle*>(memory); }
};

int handle_of(int directory, const char* name, int flags, Handle& out) {
  KernelHandle kernel;
  int mount = 0;
  kernel.get()->handle_bytes = MAX_HANDLE_SZ;
  if (name_to_handle_at(directory, name, kernel.get(), &mount, flags) != 0) return errno;
  if (kernel.get()->handle_bytes > max_handle) return EOPNOTSUPP;
  out = Handle();
  out.type = kernel.get()->handle_type;
  out.size = kernel.get()->handle_bytes;
  std::memcpy(out.bytes, kernel.get()->f_handle, out.size);
  return 0;
}

/**
 * ENOMEM is said of a file that is gone, too: while its inode number is being given to a new file,
 * by whoever uses the file system. (iget_locked of the kernel returns null for an inode with
 * I_CREATING, and ext4 takes that for a lack of memory.) Soon after it is ESTALE. So it counts for
 * ENOMEM only when it has lasted, for most of a second.
 */
int open_handle(int root, const Handle& handle, int flags) {
  KernelHandle kernel;
  kernel.get()->handle_type = handle.type;
  kernel.get()->handle_bytes = handle.size;
  std::memcpy(kernel.get()->f_handle, handle.bytes, handle.size);
  int fd = open_by_handle_at(root, kernel.get(), flags | O_CLOEXEC);
  for (useconds_t wait = 50; fd < 0 && errno == ENOMEM && wait <= longest_wait_us; wait *= 2) {
    usleep(wait);
    fd = open_by_handle_at(root, kernel.get(), flags | O_CLOEXEC);
  }
  return fd;
}

bool only_reading(int error) {
  return error == EACCES || error == EPERM || error == EROFS || error == ETXTBSY;
}

struct Cached {
  FileId id;
  FileRef file;
};

/** Least recently used last. A drop moves `drops` on, so an open that began before keeps away. */
struct Shard {
  std::mutex mutex;
  std::list<Cached> order;
  std::unordered_map<FileId, std::list<Cached>::iterator> where;
  uint64_t drops = 0;

  /** Returns the one that had to go for it. */
  FileRef insert(FileId id, FileRef file, size_t most) {
    FileRef oldest;
    if (order.size() >= most) {
      oldest = std::move(order.back().file);
      where.erase(order.back().id);
      order.pop_back();
    }
    order.push_front({id, std::move(file)});
    where.emplace(id, order.begin());
    return oldest;
  }
};

}  // namespace

struct Tree::Impl {
  Ids& ids;
  size_t most;  // per shard
  std::vector<Fd> roots;
  Shard shards[shard_count];

  Shard& shard(FileId id) { return shards[(id ^ (id >> 40)) % shard_count]; }
};

Tree::Tree(Ids& ids, size_t max_open)
    : impl_(new Impl{ids, std::max<size_t>(1, max_open / shard_count), {}, {}}) {}

Tree::~Tree() = default;

Result<uint8_t> Tree::add_volume(Fd directory) {
  if (impl_->roots.size() >= max_root) return Result<uint8_t>::failure(EINVAL, "add_volume");
  // open_by_handle_at wants a descriptor of the mount that is not O_PATH.
  Fd root(openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return Result<uint8_t>::failure(errno, "open");
  IdEntry entry;
  struct stat attributes;
  if (const int error = identify(root.get(), entry.handle, attributes); error != 0) {
    return Result<uint8_t>::failure(error, "name_to_handle_at");
  }
  const auto volume = static_cast<uint8_t>(impl_->roots.size());
  entry.id = volume + FileId{1};
  entry.type = S_IFDIR;
  entry.volume = volume;
  const Fd probe(open_handle(root.get(), entry.handle, O_RDONLY | O_DIRECTORY));
  if (!probe.valid()) return Result<uint8_t>::failure(errno, "open_by_handle_at");
  if (const int error = impl_->ids.put(entry); error != 0) {
    return Result<uint8_t>::failure(error, "put(ids)");
  }
  impl_->roots.push_back(std::move(root));
  return Result<uint8_t>::success(volume);
}

size_t Tree::volumes() const {
  return impl_->roots.size();
}

int Tree::root_fd(uint8_t volume) const {
  return volume < impl_->roots.size() ? impl_->roots[volume].get() : -1;
}

Result<FileRef> Tree::open_entry(const IdEntry& entry) const {
  const int root = root_fd(entry.volume);
  if (root < 0) return Result<FileRef>::failure(ESTALE, "open");
  auto file = std::make_shared<OpenFile>();
  file->type = entry.type;
  file->volume = entry.volume;
  if (entry.type == S_IFREG) {
    file->fd.reset(open_handle(root, entry.handle, O_RDWR | O_NOFOLLOW));
    file->writable = file->fd.valid();
    if (!file->fd.valid() && only_reading(errno)) {
      file->fd.reset(open_handle(root, entry.handle, O_RDONLY | O_NOFOLLOW));
    }
  } else {
    const int flags = entry.type == S_IFDIR ? O_RDONLY | O_DIRECTORY : O_PATH | O_NOFOLLOW;
    file->fd.reset(open_handle(root, entry.handle, flags));
  }
  if (!file->fd.valid()) {
    // A handle whose inode is another's by now may also be of another type.
    const bool gone = errno == ESTALE || errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    return Result<FileRef>::failure(gone ? ESTALE : errno, "open_by_handle_at");
  }
  return Result<FileRef>::success(std::move(file));
}

Result<FileRef> Tree::open(FileId id) {
  Shard& shard = impl_->shard(id);
  uint64_t drops = 0;
  {
    std::lock_guard lock(shard.mutex);
    const auto found = shard.where.find(id);
    if (found != shard.where.end()) {
      shard.order.splice(shard.order.begin(), shard.order, found->second);
      return Result<FileRef>::success(found->second->file);
    }
    drops = shard.drops;
  }
  IdEntry entry;
  if (!impl_->ids.get(id, entry)) return Result<FileRef>::failure(ESTALE, "open");
  Result<FileRef> opened = open_entry(entry);
  if (!opened.ok()) return opened;
  FileRef oldest;  // closed after the lock is given back
  std::lock_guard lock(shard.mutex);
  if (shard.drops != drops) return opened;
  const auto found = shard.where.find(id);
  if (found != shard.where.end()) {
    // Another thread was faster; one descriptor for all.
    return Result<FileRef>::success(found->second->file);
  }
  oldest = shard.insert(id, opened.value, impl_->most);
  return opened;
}

void Tree::add(FileId id, FileRef file) {
  Shard& shard = impl_->shard(id);
  FileRef old;
  std::lock_guard lock(shard.mutex);
  shard.drops++;
  const auto found = shard.where.find(id);
  if (found != shard.where.end()) {
    old = std::exchange(found->second->file, std::move(file));
  } else {
    old = shard.insert(id, std::move(file), impl_->most);
  }
}

void Tree::drop(FileId id) {
  Shard& shard = impl_->shard(id);
  FileRef old;
  std::lock_guard lock(shard.mutex);
  shard.drops++;
  const auto found = shard.where.find(id);
  if (found == shard.where.end()) return;
  old = std::move(found->second->file);
  shard.order.erase(found->second);
  shard.where.erase(found);
}

int Tree::identify(int directory, const char* name, Handle& handle, struct stat& attributes) {
  if (fstatat(directory, name, &attributes, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  return handle_of(directory, name, 0, handle);
}

int Tree::identify(int fd, Handle& handle, struct stat& attributes) {
  if (fstatat(fd, "", &attributes, AT_EMPTY_PATH) != 0) return errno;
  return handle_of(fd, "", AT_EMPTY_PATH, handle);
}

int Tree::sync_all() {
  int first = 0;
  for (const Fd& root : impl_->roots) {
    if (syncfs(root.get()) != 0 && first == 0) first = errno;
  }
  return first;
}

ProcPath::ProcPath(int fd) {
  std::snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
}

}  // namespace holdfast::replica
