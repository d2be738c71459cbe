#pragma once
#include <doctest/doctest.h>
#include <poll.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "replica/applying.h"
#include "replica/receiver.h"
#include "test/replica_peer.h"
#include "test/replica_target.h"
#include "test/replica_world.h"

/** A secondary with real files, killed and started as its role does it; and who calls, by script.
 */
namespace holdfast::replica::test {

inline constexpr int64_t patience_ns = 20 * ns_per_s;

/** The secondary's server: what is on its disk outlives the process. */
class Returned {
 public:
  explicit Returned(const History& history);
  ~Returned() { kill(); }

  /** A process begins. errno. */
  int start(const Faults* faults = nullptr);
  /** Superblock, ids and directories, for whatever role. */
  void open_files();
  /** It is gone: nothing is applied or saved any more. */
  void kill();
  /** The files and the superblock stay open, for another role. */
  void retire();
  /** What the superblock says. */
  SuperState on_disk() const;
  void change_super(const std::function<void(SuperState&)>& change) const;
  std::string state_file(const char* name) const { return folder.at(std::string("state/") + name); }
  bool has(const char* name) const { return access(state_file(name).c_str(), F_OK) == 0; }
  std::string differences(const History& history) const;
  Picture picture() const { return Picture(*life); }

  Scratch folder;
  ReceiverOptions options;
  EventList events;
  bool unfit = false;
  std::unique_ptr<Super> super;
  std::unique_ptr<Life> life;
  std::unique_ptr<TargetFiles> files;
  std::unique_ptr<Applying> applying;
  std::unique_ptr<Receiver> receiver;

 private:
  Copy copy_;
};

/** A primary: a history, the stream that it makes of it, what it is told. */
class Source {
 public:
  Source(uint64_t seed, History::Options options) : history(seed, options) {}

  // The stream.
  /** Makes `count` changes; they go out with the next `flush`. */
  void change(size_t count);
  /** Forgets what has not gone out: the other side lacks it. */
  void forget() { out.clear(), base = stream.tail; }
  void state_inode(FileId id);
  void state_data(FileId id);
  void state_listing(FileId id);
  void state_entry(FileId parent, const std::string& name);
  /** All that a file is. */
  void state(FileId id);
  void state_everything();
  void synced(uint64_t run);

  // The connection.
  /** Connects and says hello; false: refused. */
  bool call(const Returned& to, Lsn applied = 0);
  void begin_resync(uint64_t run, Rejoin kind = Rejoin::dirty);
  /** After a connection was lost: from where the other side is. */
  void resume();
  /** Sends what was made, with a barrier. */
  void flush();
  /** Takes one frame; false: closed, or none came in time. */
  bool take(int64_t patience = patience_ns);
  bool await(const std::function<bool()>& there);
  /** Until nothing that was reported is missing, and everything is applied. */
  bool settle();
  void hang_up() { channel.reset(); }

  History history;
  Stream stream;
  Tail base;                               // before `kept`
  std::deque<std::pair<Lsn, Bytes>> kept;  // the ring, from `base` on
  std::vector<Bytes> out;                  // not sent yet
  std::vector<EpochStart> epochs{{1, 0, 1, 0}};

  std::unique_ptr<Channel> channel;
  WelcomeBody welcome{};
  std::vector<EpochStart> told;
  AckBody ack{};
  LeaveBody left{};
  std::vector<Mark> touched;
  bool everything = false;
  uint64_t ready = 0, whole = 0;  // runs
  Lsn whole_at = 0;
  uint64_t missing = 0;       // frames
  std::vector<FileId> lacks;  // reported, not stated yet
  std::vector<std::pair<FileId, std::string>> lacking_names;

 private:
  void add(const ResyncStream& one);
  void put(const Bytes& record);
  TlsIdentity identity_;
};

}  // namespace holdfast::replica::test
