#pragma once
#include <sys/eventfd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "replica/channel.h"
#include "replica/link.h"
#include "replica_memory.h"
#include "replica_scratch.h"

/** Both ends of a stream for tests: a link on memory of its own, and a peer that keeps records in
 * memory and does what it is told. */
namespace holdfast::replica::test {

/** Certificates of a cluster, made once: files ca.pem, NAME.pem and NAME.key for a, b; and for x,
 * which is of another cluster. */
class Certificates {
 public:
  static const Certificates& get();
  TlsFiles of(const std::string& name, const std::string& ca = "ca") const {
    return {folder_.at(name + ".pem"), folder_.at(name + ".key"), folder_.at(ca + ".pem")};
  }

 private:
  Certificates();
  Scratch folder_;
};

/** Waits for a Waiter's call. */
class Call {
 public:
  Waiter waiter();
  /** The error it was called with; -1 when it was not within a minute. */
  int await();
  bool called() const { return done_.load(); }
  /** What to run on the calling thread. */
  std::function<void()> then;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> done_{false};
  int error_ = 0;
};

class EventList final : public Events {
 public:
  using Events::event;
  void event(std::string_view name, std::span<const Field> fields) override;
  /** True when an event with that text ("peer state=lost") came, or comes within a minute. */
  bool await(const std::string& text);
  size_t count(const std::string& text);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> list_;
};

class Peer {
 public:
  /** at_once: all that comes is durable, and acknowledged; silent: it is, and is not. */
  enum class Acks { at_barrier, receipt_only, none, at_once, silent };

  explicit Peer(const std::string& certificate = "b");
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const std::string& address() const { return address_; }
  /** It has everything up to there, and knows of these epochs. Before anybody calls. */
  void begin(const Tail& tail, std::vector<EpochStart> epochs);
  /** How it acknowledges; kept over reconnects. */
  std::atomic<Acks> acks{Acks::at_barrier};
  /** It reads nothing while this is set. */
  std::atomic<bool> deaf{false};
  /** Answers a hello so instead, when not 0. */
  std::atomic<uint32_t> refuse{0};
  /** Called on the peer's thread for each connection after the welcome, in place of its own work.
   */
  std::function<void(Channel&)> instead;
  /** Welcomes with this in place of the truth. */
  std::function<void(WelcomeBody&)> welcome;
  /** What it knows of epochs; replaced by the primary's when it follows. */
  std::vector<EpochStart> history;
  /** What it names in `touched` when a resync begins. */
  std::vector<Mark> touched;
  /** Called for each record; `forgives`: in a run that states what is dirty. */
  std::function<void(const Record&, bool forgives)> taken;
  /** It answers no `resync` while this is set. */
  std::atomic<bool> slow{false};
  /** It says `ready`, and acknowledges, but not that it is whole. */
  std::atomic<bool> never_whole{false};

  /** Ends the connection; what was received and is not durable is lost, as in a crash. */
  void crash();
  /** Sends a frame on the present connection. */
  void say(Frame type, const void* body, size_t size);
  Lsn durable() const { return durable_.load(); }
  Lsn received() const { return received_.load(); }
  /** Waits up to a minute for it. */
  bool await_received(Lsn lsn);
  bool await_connection(uint64_t number);
  bool await_left();
  uint64_t connections() const { return connections_.load(); }
  /** Records that did not follow, or were not well-formed. */
  uint64_t wrong() const { return wrong_.load(); }
  /** What the last `resync` said, and how many came. */
  ResyncBody resync();
  uint64_t resyncs() const { return resyncs_.load(); }
  bool await_whole();
  /** It goes back to the copy that it was before the resync, as after an undo. */
  void take_back();

 private:
  void run();
  void serve(Channel& channel);
  bool take_hello(Channel& channel);
  void send_welcome(Channel& channel);
  bool take_resync(Channel& channel);
  bool take_records(Channel& channel);
  void make_durable(Channel& channel);

  TlsIdentity identity_;
  Fd listener_;
  Fd stop_;
  std::string address_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Channel* channel_ = nullptr;
  Tail received_tail_, durable_tail_, base_;
  std::vector<EpochStart> told_;
  ResyncBody resync_{};
  uint64_t run_ = 0;  // of the resync that it is in
  Lsn synced_ = 0;
  DiskState state_ = DiskState::in_sync;
  bool whole_ = false;
  std::atomic<uint64_t> resyncs_{0};
  std::vector<uint8_t> pending_;
  std::atomic<Lsn> received_{0}, durable_{0};
  std::atomic<uint64_t> connections_{0}, wrong_{0};
  std::atomic<bool> stopping_{false}, left_{false};
};

/** A primary's ring, superblock and link. */
struct Primary {
  explicit Primary(uint64_t ring_size = 4 * min_ring);
  LinkOptions options(const std::string& peer) const;
  /** Reserves (waiting for room) and appends a check record of `size` bytes. */
  Lsn add(size_t size);
  /** Asks for `lsn` and waits. */
  int sync(Lsn lsn);

  Scratch folder;
  Memory memory;
  Ring ring;
  Super super;
  EventList events;
  Faults faults;
  Link link;
};

}  // namespace holdfast::replica::test
