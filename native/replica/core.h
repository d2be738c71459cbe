#pragma once
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "replica/intents.h"
#include "replica/locks.h"
#include "replica/marks.h"
#include "replica/server.h"
#include "replica/session.h"
#include "replica/skip.h"

/** The inside of the file system server; the operations are in ops_*.cc. */
namespace holdfast::replica {

/** A request of the kernel, in a buffer that stays until it is handled. */
struct Call {
  Session* session = nullptr;
  fuse_in_header head{};
  const uint8_t* body = nullptr;  // behind the head
  size_t size = 0;
  uint64_t unique = 0;     // without the resend bit
  FileId file = 0;         // what nodeid stands for
  bool again = false;      // sent again by the kernel
  bool waited = false;     // was parked before
  Intent* left = nullptr;  // again: what an earlier process had begun of it, in phase 1

  /** The fixed part of the body; nullptr: too short. */
  template <typename T>
  const T* in() const {
    return size >= sizeof(T) ? reinterpret_cast<const T*>(body) : nullptr;
  }
  /** A zero-terminated name at `offset`; nullptr: not terminated. */
  const char* text(size_t offset) const;
};

enum class Handled { yes, no_room };

/** Room in the log for the records of one change; gives back what was not used. */
class Room {
 public:
  Room(Log& log) : log_(log) {}
  ~Room() {
    if (left_ > 0) log_.release(left_);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  bool take(size_t bytes, const Waiter& ready) {
    if (!log_.reserve(bytes, ready)) return false;
    left_ += bytes;
    return true;
  }
  void used(size_t payload) {
    const size_t bytes = record_size(payload);
    left_ -= bytes < left_ ? bytes : left_;
  }

 private:
  Log& log_;
  size_t left_ = 0;
};

inline constexpr Lsn no_lsn = ~Lsn{0};

struct Reply {
  const void* data = nullptr;
  size_t size = 0;
};

inline Time to_time(const timespec& time) {
  return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec), 0};
}

/** What OPEN, CREATE and OPENDIR answer. */
fuse_open_out open_reply(uint32_t flags, bool is_directory);

class Core {
 public:
  Core(Tree& t, Ids& i, Log& l, Shared* s, ServerOptions o, Events& e);

  /** Handles a request and answers it, or says that it must wait for room. */
  Handled handle(Call& call);
  /** The log has room again (a Waiter's function). */
  static void room_again(void* context, uint64_t argument, int error);
  /** What an earlier process had begun (finish.cc). Before any thread runs. */
  void finish_all();

  // --- helpers of the operations (core.cc) ---
  /** The open file; 0 or errno. `write`: it must be writable. */
  int file(FileId id, FileRef& out, bool write = false);
  int directory(FileId id, FileRef& out);
  /** The id of a file that was found; makes one when there is none. 0: the table is full. */
  FileId id_of(Session& session, FileId parent, const FileRef& dir, const char* name,
               const Handle& handle, const struct stat& attributes);
  /** Flags of an id, under its lock. False: not known. */
  bool flags_of(FileId id, uint8_t& flags) const;
  /** True when a name in that directory is not to be replicated. */
  bool is_local(FileId parent, const FileRef& dir, const char* name, bool is_directory) const;
  /** True for the name that only this product uses, in the root of a directory. */
  static bool is_hidden(const Call& call, FileId parent, const char* name);
  bool room(Room& r, const Call& call, size_t bytes);
  /**
   * Makes durable that what a change touches may differ from the peer's, before the change. `held`
   * stays until its record is appended. 0, or EIO: the change must not be made.
   */
  int guard(const MarkSet& touched, Marks::Guard& held);

  /** `early`: in an intent, gets the LSN before the record counts (Log::append_noting). */
  Lsn append(Room& room, Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
             uint64_t* early = nullptr);
  Lsn append_attributes(Room& room, FileId id, uint32_t mask, const struct stat& now);
  Lsn append_xattr(Room& room, FileId id, std::string_view name, std::span<const uint8_t> value,
                   uint32_t mode);

  /** Answers a change: after the receipt of `lsn` where the policy wants it. Frees the intent. */
  void finish(const Call& call, Lsn lsn, Reply reply, Intent* intent = nullptr);
  void fail(const Call& call, int error, Intent* intent = nullptr);
  /** Makes everything of the file durable, here and there, and answers. */
  void sync_and_answer(const Call& call, FileId id, const FileRef& f, bool data_only, Reply reply);

  void entry_out(const Call& call, FileId id, const struct stat& attributes, fuse_entry_out& out);
  void attr_out(const struct stat& attributes, fuse_attr_out& out);
  /** The thread's umask, which the real file system applies when a file is made. */
  void set_umask(uint32_t mask);
  /** A failed call of the real file system that makes this copy unfit. */
  void check_failure(int error, const char* call);
  /** Clears set-user-id and set-group-id, as a write does. True: `now` changed. */
  static bool kill_ids(int fd, struct stat& now);

  /** The last name of a file goes: it stays reachable while the kernel knows it. Undo: reappear. */
  int hold_unlinked(FileId id, int dirfd, const char* name, bool is_directory);
  void reappear(FileId id);
  void forget(FileId id);
  void gone(FileId id);

  // --- operations ---
  Handled op_lookup(Call& call);
  Handled op_forget(Call& call);
  Handled op_batch_forget(Call& call);
  Handled op_getattr(Call& call);
  Handled op_statx(Call& call);
  Handled op_setattr(Call& call);
  Handled op_readlink(Call& call);
  Handled op_symlink(Call& call);
  Handled op_mknod(Call& call);
  Handled op_mkdir(Call& call);
  Handled op_create(Call& call);
  Handled op_tmpfile(Call& call);
  Handled op_unlink(Call& call);
  Handled op_rename(Call& call);
  Handled op_link(Call& call);
  Handled op_open(Call& call);
  Handled op_read(Call& call);
  Handled op_write(Call& call);
  Handled op_statfs(Call& call);
  Handled op_release(Call& call);
  Handled op_fsync(Call& call);
  Handled op_setxattr(Call& call);
  Handled op_getxattr(Call& call);
  Handled op_listxattr(Call& call);
  Handled op_removexattr(Call& call);
  Handled op_opendir(Call& call);
  Handled op_readdir(Call& call);
  Handled op_fallocate(Call& call);
  Handled op_lseek(Call& call);
  Handled op_copy_file_range(Call& call);

  // --- names (ops_names.cc, make.cc, publish.cc) ---
  struct Make;
  Handled make(Call& call, Make& what);
  int make_local(const Make& what, int dirfd, const char* name, int& fd);
  int own(const Make& what, int dirfd, const char* name, const struct stat& parent,
          struct stat& made);
  Lsn made_records(Room& room, FileId id, FileId parent, const FileRef& dir, const char* name,
                   const char* target, const struct stat& made, Intent* intent);
  void answer_made(const Call& call, const Make& what, Lsn lsn, FileId id, const struct stat& made,
                   Intent* intent);
  /** Answers a request that an earlier process had done. False: it had not. */
  bool answer_left(Call& call);
  /** The records of a rename that was made, by its intent. no_lsn: stopped on the way. */
  Lsn rename_records(Room& room, Intent* intent, FileId id);
  Lsn link_records(Room& room, Intent* intent, FileId id, const FileRef& f, FileId parent,
                   const FileRef& dir, const char* name);
  void finish_unlink(Room& room, Intent& intent, const FileRef& dir, FileId parent,
                     const char* name);
  bool publish_content(FileId id, const OpenFile& f, const struct stat& now);
  bool publish_inode(FileId id, const OpenFile& f, const struct stat& now);
  /** The name that a file becomes replicated with. */
  struct Published {
    FileId parent = 0;
    FileRef dir;
    const char* name = nullptr;
    FileId replaced = 0;  // what stood there, replicated; 0: nothing
    bool last = false;    // it has no name left
  };
  Lsn publish_name(FileId id, const Published& as, Intent* intent);
  Lsn publish(FileId id, const FileRef& f, const Published& as, Intent* intent);
  Handled not_published(Call& call, Intent* intent);
  /** Waits until the log has room (publish sends more than one reservation holds). */
  bool room_blocking(Room& room, size_t bytes);
  void finish_one(Intent& intent);
  void finish_make(Room& room, Intent& intent);
  void finish_name(Room& room, Intent& intent);

  Tree& tree;
  Ids& ids;
  Log& log;
  Shared* shared;
  ServerOptions options;
  Events& events;
  Locks locks;
  Locks positions;  // of directories that are being read
  Intents intents;
  Skip skip;
  std::mutex adopt_mutex;

  std::mutex unlinked_mutex;
  struct Unlinked {
    FileRef file;
    bool kept = false;  // by options.keep
  };
  std::unordered_map<FileId, Unlinked> unlinked;
  std::deque<FileId> unlinked_closed;
  std::atomic<size_t> unlinked_count{0};

  std::mutex room_mutex;
  std::condition_variable room_changed;
  bool room_ready = false;
  std::atomic<uint64_t> parked_now{0};

  std::atomic<bool> stopping{false};
  std::atomic<uint64_t> requests{0}, changes{0}, again{0}, finished{0}, parked{0}, sync_failures{0},
      waiting_answers{0};
};

}  // namespace holdfast::replica
