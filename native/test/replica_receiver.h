#pragma once
#include <doctest/doctest.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>

#include "common/clock.h"
#include "replica/receiver.h"
#include "test/replica_peer.h"
#include "test/replica_world.h"

/** A receiver on a disk of its own, an applier that does as it is told, and who calls. */
namespace holdfast::replica::test {

inline constexpr int64_t patience_ns = 20 * ns_per_s;

/** Keeps the records that it is given. */
class FakeApplier final : public ApplyTarget {
 public:
  bool submit(Batch batch) override;
  bool end_replay() override;
  bool drain() override { return true; }
  Result<JournalPoint> checkpoint() override;
  int begin_resync(const JournalPoint& at) override;

  /** While held, submit does not return. */
  void hold(bool on);
  /** Records applied, in order; each one's bytes. */
  std::vector<Bytes> records();
  Lsn last();

  Receiver* receiver = nullptr;
  std::atomic<Lsn> fail_at{0};
  std::atomic<bool> ended{false};
  std::atomic<uint64_t> replayed{0};  // records before end_replay
  std::atomic<uint64_t> wrong{0};     // not well-formed, not in order, or a bad end
  std::atomic<size_t> keep{0};        // batches whose memory stays in use

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  bool dead_ = false;
  std::vector<Bytes> records_;
  std::deque<Batch> kept_;
  JournalPoint point_;
  bool began_ = false;
};

/** The secondary: what is on its disk outlives the receiver. */
class Secondary {
 public:
  Secondary();
  ~Secondary() { end(); }

  /** Starts a receiver on what the disk has. */
  Result<bool> start(const Faults* faults = nullptr);
  /** As when its process is killed: nothing is applied or saved any more. */
  void end();
  std::string address() const { return "127.0.0.1:" + std::to_string(receiver->port()); }
  /** The superblock as it is on the disk. */
  SuperState on_disk() const;
  /** The records that a new process would find in the journal. */
  std::vector<Bytes> in_journal() const;

  Scratch folder;
  ReceiverOptions options;
  EventList events;
  std::unique_ptr<Super> super;
  std::unique_ptr<FakeApplier> applier;
  std::unique_ptr<Receiver> receiver;
};

/** A connection to it, as a primary's. */
class Caller {
 public:
  explicit Caller(const Secondary& secondary, const std::string& certificate = "a");
  HelloBody hello_of(uint64_t epoch, Lsn first, Lsn last) const;
  /** Says hello; the answer's type. */
  Frame call(const HelloBody& hello);
  Frame call(uint64_t epoch = 1, Lsn first = 1, Lsn last = 1u << 20) {
    return call(hello_of(epoch, first, last));
  }
  void send(const Bytes& records, Lsn barrier = 0);
  /** Sends the next record with its barrier. */
  void sync(Stream& stream, size_t size) {
    const Bytes record = stream.write(size);
    send(record, stream.tail.lsn);
  }
  /** Waits for a frame of that type; others are passed over. False: closed or too late. */
  bool await(Frame type, int64_t patience = patience_ns);
  /** Waits for an acknowledgement of durability up to there. */
  bool await_durable(Lsn lsn, int64_t patience = patience_ns);
  bool await_received(Lsn lsn, int64_t patience = patience_ns);
  bool await_closed();

  Channel channel;
  WelcomeBody welcome{};
  std::vector<EpochStart> history;  // that came with it
  RefuseBody refused{};
  LeaveBody left{};
  AckBody ack{};

 private:
  const Secondary& secondary_;
  TlsIdentity identity_;
};

}  // namespace holdfast::replica::test
