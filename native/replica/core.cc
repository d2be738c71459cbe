#include "replica/core.h"

#include <fcntl.h>

#include <cerrno>

#include "replica/scan.h"

namespace holdfast::replica {
namespace {

constexpr uint64_t day_s = 86400;
constexpr size_t unlinked_closed_max = 4096;

/** An answer that waits for the peer, and perhaps for the local sync too. */
struct Pending {
  Core* core;
  Session* session;
  uint64_t unique;
  Intent* intent;
  std::vector<uint8_t> payload;
  std::atomic<int> left{1};
  std::atomic<int> error{0};
};

void part_over(Pending* pending, int error) {
  if (error != 0) {
    int none = 0;
    pending->error.compare_exchange_strong(none, error);
  }
  if (pending->left.fetch_sub(1) != 1) return;
  const int final_error = pending->error.load();
  Core* core = pending->core;
  if (final_error != 0) {
    pending->session->answer(pending->unique, final_error);
  } else {
    pending->session->answer(pending->unique, pending->payload.data(), pending->payload.size());
  }
  core->intents.end(pending->intent);
  delete pending;
  core->waiting_answers.fetch_sub(1);
}

void on_waiter(void* context, uint64_t, int error) {
  part_over(static_cast<Pending*>(context), error);
}

Pending* new_pending(Core* core, const Call& call, Reply reply, Intent* intent, int parts) {
  auto* pending = new Pending{core, call.session, call.head.unique, intent, {}, {}, {}};
  const auto* bytes = static_cast<const uint8_t*>(reply.data);
  pending->payload.assign(bytes, bytes + reply.size);
  pending->left.store(parts);
  core->waiting_answers.fetch_add(1);
  return pending;
}

}  // namespace

const char* Call::text(size_t offset) const {
  if (offset >= size || std::memchr(body + offset, 0, size - offset) == nullptr) return nullptr;
  return reinterpret_cast<const char*>(body + offset);
}

Core::Core(Tree& t, Ids& i, Log& l, Shared* s, ServerOptions o, Events& e)
    : tree(t), ids(i), log(l), shared(s), options(std::move(o)), events(e), intents(s) {}

int Core::file(FileId id, FileRef& out, bool write) {
  if (unlinked_count.load(std::memory_order_relaxed) > 0) {
    const std::lock_guard lock(unlinked_mutex);
    const auto found = unlinked.find(id);
    if (found != unlinked.end()) {
      OpenFile& held = *found->second.file;
      if (write && held.type == S_IFREG && !held.writable) {
        // It was held by O_PATH, for nobody had it open.
        Fd fd(open(ProcPath(held.fd.get()).text, O_RDWR | O_CLOEXEC));
        if (!fd.valid()) return errno;
        auto again_open = std::make_shared<OpenFile>();
        again_open->fd = std::move(fd);
        again_open->type = held.type;
        again_open->volume = held.volume;
        again_open->writable = true;
        found->second.file = std::move(again_open);
      }
      out = found->second.file;
      return 0;
    }
  }
  Result<FileRef> opened = tree.open(id);
  if (!opened.ok()) return opened.error;
  if (write && opened.value->type == S_IFREG && !opened.value->writable) {
    // What refused it may be over (a program that ran, an attribute).
    tree.drop(id);
    opened = tree.open(id);
    if (!opened.ok()) return opened.error;
    if (!opened.value->writable) return EPERM;
  }
  out = std::move(opened.value);
  return 0;
}

int Core::directory(FileId id, FileRef& out) {
  if (const int error = file(id, out); error != 0) return error;
  return out->type == S_IFDIR ? 0 : ENOTDIR;
}

bool Core::flags_of(FileId id, uint8_t& flags) const {
  IdEntry entry;
  if (!ids.get(id, entry)) return false;
  flags = entry.flags;
  return true;
}

bool Core::is_hidden(const Call& call, FileId parent, const char* name) {
  return parent == call.session->root() && is_internal_name(name);
}

bool Core::is_local(FileId parent, const FileRef& dir, const char* name, bool is_directory) const {
  if (skip.empty()) return false;
  uint8_t flags = 0;
  if (flags_of(parent, flags) && (flags & id_local) != 0) return true;
  char root[4096];
  char path[4096];
  const ssize_t root_size =
      readlink(ProcPath(tree.root_fd(dir->volume)).text, root, sizeof root - 1);
  const ssize_t size = readlink(ProcPath(dir->fd.get()).text, path, sizeof path - 1);
  if (root_size < 0 || size < root_size) return false;
  std::string relative(path + root_size, static_cast<size_t>(size - root_size));
  while (relative.starts_with('/')) relative.erase(0, 1);
  if (!relative.empty()) relative += '/';
  return skip.matches(relative + name, is_directory);
}

FileId Core::id_of(Session& session, FileId parent, const FileRef& dir, const char* name,
                   const Handle& handle, const struct stat& attributes) {
  const FileId known = ids.find(session.volume(), handle);
  if (known != 0) return known;
  const std::lock_guard lock(adopt_mutex);
  const FileId now_known = ids.find(session.volume(), handle);
  if (now_known != 0) return now_known;
  IdEntry entry;
  entry.id = ids.allocate(options.epoch);
  entry.handle = handle;
  entry.type = attributes.st_mode & S_IFMT;
  entry.volume = session.volume();
  if (is_local(parent, dir, name, S_ISDIR(attributes.st_mode))) entry.flags = id_local;
  return ids.put(entry) == 0 ? entry.id : 0;
}

bool Core::room(Room& r, const Call& call, size_t bytes) {
  // Who came first goes first: while somebody waits, who comes waits behind.
  if (!call.waited && parked_now.load(std::memory_order_relaxed) > 0) return false;
  return r.take(bytes, Waiter{room_again, this, 0});
}

int Core::guard(const MarkSet& touched, Marks::Guard& held) {
  if (options.marks == nullptr || touched.size() == 0) return 0;
  const int error = options.marks->guard(touched, held);
  if (error == 0) return 0;
  log.local_failed(error, "marks");
  return EIO;
}

void Core::room_again(void* context, uint64_t, int) {
  Core* core = static_cast<Core*>(context);
  const std::lock_guard lock(core->room_mutex);
  core->room_ready = true;
  core->room_changed.notify_all();
}

bool Core::room_blocking(Room& r, size_t bytes) {
  while (!r.take(bytes, Waiter{room_again, this, 0})) {
    std::unique_lock lock(room_mutex);
    if (stopping) return false;
    room_changed.wait_for(lock, std::chrono::milliseconds(20));
  }
  return true;
}

Lsn Core::append(Room& r, Kind kind, uint16_t flags, FileId id, std::span<const iovec> payload,
                 uint64_t* early) {
  size_t size = 0;
  for (const iovec& part : payload) size += part.iov_len;
  r.used(size);
  if (early != nullptr) return log.append_noting(kind, flags, id, payload, early);
  return log.append(kind, flags, id, payload);
}

Lsn Core::append_attributes(Room& r, FileId id, uint32_t mask, const struct stat& now) {
  AttributesBody body{};
  body.mask = mask;
  body.mode = now.st_mode & 07777;
  body.uid = now.st_uid;
  body.gid = now.st_gid;
  body.size = static_cast<uint64_t>(now.st_size);
  body.atime = to_time(now.st_atim);
  body.mtime = to_time(now.st_mtim);
  const iovec part{&body, sizeof body};
  return append(r, Kind::attributes, 0, id, {&part, 1});
}

Lsn Core::append_xattr(Room& r, FileId id, std::string_view name, std::span<const uint8_t> value,
                       uint32_t mode) {
  XattrBody body{};
  body.name_size = static_cast<uint32_t>(name.size());
  body.value_size = static_cast<uint32_t>(value.size());
  body.mode = mode & 07777;
  const iovec parts[] = {{&body, sizeof body},
                         {const_cast<char*>(name.data()), name.size()},
                         {const_cast<uint8_t*>(value.data()), value.size()}};
  return append(r, Kind::set_xattr, 0, id, parts);
}

void Core::finish(const Call& call, Lsn lsn, Reply reply, Intent* intent) {
  if (lsn != 0 && log.strict()) {
    Pending* pending = new_pending(this, call, reply, intent, 1);
    if (log.receipt(lsn, Waiter{on_waiter, pending, 0})) part_over(pending, 0);
    return;
  }
  if (reply.size == 0) {
    call.session->answer(call.head.unique, 0);
  } else {
    call.session->answer(call.head.unique, reply.data, reply.size);
  }
  intents.end(intent);
}

void Core::fail(const Call& call, int error, Intent* intent) {
  call.session->answer(call.head.unique, error);
  intents.end(intent);
}

void Core::check_failure(int error, const char* what) {
  if (error == EIO) log.local_failed(error, what);
}

void Core::sync_and_answer(const Call& call, FileId id, const FileRef& f, bool data_only,
                           Reply reply) {
  const SyncPoint point = locks.sync_point(id);
  if (point.failed) return fail(call, EIO);
  uint8_t flags = 0;
  flags_of(id, flags);
  const Lsn lsn = point.known ? point.lsn : log.last();
  const bool only_here = (flags & (id_local | id_unlinked)) != 0 && !log.strict();
  const bool clean = data_only ? point.clean_data : point.clean_all;
  if (clean && lsn == 0) return finish(call, 0, reply);
  Pending* pending = new_pending(this, call, reply, nullptr, 2);
  // The barrier goes out first, so that both disks work at the same time.
  if (lsn == 0 || only_here || log.sync(lsn, Waiter{on_waiter, pending, 0})) part_over(pending, 0);
  int error = 0;
  if (!clean) {
    const int fd = f->fd.get();
    if ((data_only ? fdatasync(fd) : fsync(fd)) != 0) error = errno;
    if (error == 0) {
      locks.synced(id, point, data_only);
    } else {
      // The kernel has marked the pages clean: a second try would succeed without the data.
      locks.failed(id);
      sync_failures.fetch_add(1);
      log.local_failed(error, data_only ? "fdatasync" : "fsync");
      error = EIO;
    }
  }
  part_over(pending, error);
}

void Core::entry_out(const Call& call, FileId id, const struct stat& attributes,
                     fuse_entry_out& out) {
  out = fuse_entry_out();
  out.nodeid = call.session->node_of(id);
  out.entry_valid = day_s;
  out.attr_valid = day_s;
  fill_attributes(attributes, out.attr);
}

void Core::attr_out(const struct stat& attributes, fuse_attr_out& out) {
  out = fuse_attr_out();
  out.attr_valid = day_s;
  fill_attributes(attributes, out.attr);
}

void Core::set_umask(uint32_t mask) {
  // The threads of the server do not share it (CLONE_FS).
  static thread_local uint32_t current = ~0u;
  if (mask == current) return;
  umask(static_cast<mode_t>(mask & 0777));
  current = mask;
}

bool Core::kill_ids(int fd, struct stat& now) {
  mode_t mode = now.st_mode & 07777;
  mode &= ~static_cast<mode_t>(S_ISUID);
  if ((mode & S_IXGRP) != 0) mode &= ~static_cast<mode_t>(S_ISGID);
  if (mode == (now.st_mode & 07777)) return false;
  return fchmod(fd, mode) == 0 && fstat(fd, &now) == 0;
}

int Core::hold_unlinked(FileId id, int dirfd, const char* name, bool is_directory) {
  IdEntry entry;
  if (!ids.get(id, entry)) return 0;
  Unlinked held;
  if (entry.opens > 0) {
    if (const int error = file(id, held.file); error != 0) return error;
    held.kept = true;
    if (options.keep) options.keep(id, held.file->fd.get());
  } else {
    const int flags = O_PATH | O_NOFOLLOW | O_CLOEXEC | (is_directory ? O_DIRECTORY : 0);
    held.file = std::make_shared<OpenFile>();
    held.file->fd.reset(openat(dirfd, name, flags));
    if (!held.file->fd.valid()) return errno;
    held.file->type = entry.type;
    held.file->volume = entry.volume;
  }
  FileRef oldest;
  FileId oldest_id = 0;
  {
    const std::lock_guard lock(unlinked_mutex);
    if (!held.kept) {
      unlinked_closed.push_back(id);
      if (unlinked_closed.size() > unlinked_closed_max) {
        oldest_id = unlinked_closed.front();
        unlinked_closed.pop_front();
        const auto found = unlinked.find(oldest_id);
        if (found != unlinked.end() && !found->second.kept) {
          oldest = std::move(found->second.file);
          unlinked.erase(found);
        }
      }
    }
    unlinked[id] = std::move(held);
    unlinked_count = unlinked.size();
  }
  return 0;
}

void Core::reappear(FileId id) {
  Unlinked held;
  {
    const std::lock_guard lock(unlinked_mutex);
    const auto found = unlinked.find(id);
    if (found == unlinked.end()) return;
    held = std::move(found->second);
    unlinked.erase(found);
    unlinked_count = unlinked.size();
  }
  if (held.kept && options.drop) options.drop(id);
}

void Core::gone(FileId id) {
  ids.erase(id);
  reappear(id);
  tree.drop(id);
}

void Core::forget(FileId id) {
  IdEntry entry;
  if (id <= max_root || !ids.get(id, entry)) return;
  if ((entry.flags & id_unlinked) == 0 || entry.opens > 0) return;
  const Locks::Hold hold(locks, id);
  if (!ids.get(id, entry) || (entry.flags & id_unlinked) == 0 || entry.opens > 0) return;
  gone(id);
  locks.forget(id);
}

}  // namespace holdfast::replica
