#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/attention.h"
#include "common/fd.h"
#include "replica/channel.h"
#include "replica/events.h"
#include "replica/faults.h"
#include "replica/feed.h"
#include "replica/intake.h"
#include "replica/lineage.h"
#include "replica/reports.h"
#include "replica/super.h"
#include "replica/target.h"

/**
 * The secondary's side of the stream. One thread receives, writes the journal and acknowledges, so
 * that nothing is handed from thread to thread between the socket, the disk and the answer; another
 * one accepts connections and hears who calls; the feed's thread takes the records to the applier.
 *
 * Where the records of a source do not go on where this copy is, a resync begins
 * (receiver_resync.cc): the copy comes to rest, is `inconsistent` from then on, and its journal
 * begins anew after the place that the source names; until the record `synced` is applied.
 */
namespace holdfast::replica {

struct ReceiverOptions {
  std::string listen;  // "ADDR:PORT"
  TlsFiles tls;
  uint8_t set[16] = {};
  uint32_t node = 0;
  std::vector<int> volumes;  // roots of the replicated directories, borrowed: for their free space
  std::string journal;       // path
  uint64_t journal_bytes = 256u << 20;
  /** Not null: the journal is forgotten, and history goes on after this. */
  const Tail* fresh = nullptr;
  /** Nothing but a resync makes this copy fit: records alone are not taken. */
  bool unfit = false;
  bool marks_lost = false;          // what it may have more than it says is not known
  std::string folder;               // of the state; empty: no resync
  ResyncSide* resync = nullptr;     // null: no resync
  int64_t send_timeout_ms = 30000;  // a primary that is silent for so long is disconnected
  int64_t group_ms = 5;             // records that no barrier asks for are written after this
  FeedOptions feed;
};

/** What `status` shows. */
struct ReceiverStatus {
  bool connected = false, failed = false, replaying = false, direct = false;
  DiskState state = DiskState::none;
  uint64_t resync = 0;                     // run under way, 0: none
  uint64_t base_epoch = 0;                 // inconsistent: where it gets back to; outdated: since
  Lsn base_lsn = 0;                        // when it is; in sync: since the end of a resync
  uint64_t reports = 0, reports_kept = 0;  // to the source, of this resync
  uint32_t peer_node = 0;
  uint64_t epoch = 0;
  Lsn received = 0, durable = 0, applied = 0;
  uint64_t journal_used = 0, journal_size = 0, journal_full = 0;  // full: times it had to wait
  uint64_t writes = 0, written_bytes = 0, barriers = 0, acks = 0;
  uint64_t connects = 0, refusals = 0, protocol_errors = 0, checkpoints = 0, read_back_bytes = 0;
  int64_t write_last_ns = 0, write_most_ns = 0;  // of one journal write
};

class Receiver {
 public:
  /** All outlive the receiver. From `start` to `promote` or `stop` nobody else saves `super`. */
  Receiver(Super& super, Events& events, ApplyTarget& target, const Faults* faults = nullptr);
  ~Receiver();
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  /**
   * Recovers the journal from the superblock's checkpoint, has it applied again, and listens: it
   * acknowledges from now on, whatever is still to be applied. Errors: those of the journal, of the
   * TLS files, of listen; EBADMSG: the journal that the superblock speaks of is not there.
   */
  Result<bool> start(const ReceiverOptions& options);

  /** Receives no more, has everything applied and makes a checkpoint: the place in history where
   * this copy is. An error: it is not whole; the superblock says `failed` when that is for good. */
  Result<Tail> promote();
  /** The same, and the superblock says `clean`. */
  Result<Tail> stop();
  /** Drops the connection and takes none for `ms`. */
  void cut(int64_t ms);
  ReceiverStatus status() const;
  /** The port it listens on. */
  uint16_t port() const { return port_; }

  // What the applier has to say; its thread.
  void applied(Lsn lsn);
  void replayed(Lsn lsn);
  /** In a resync: something that the source has to hear, about the record with this LSN. Outside of
   * one it is sent to whoever is connected. */
  void report(Lsn lsn, Frame type, std::span<const uint8_t> body);
  /** The record `synced` was applied, all before it is durable, and a replay may begin at `end`:
   * the superblock says so. 0 or errno. */
  int synced(const Record& record, const JournalPoint& end);
  void apply_failed(int error, const char* call);
  /** A frame to the primary, when there is one. Any thread. */
  void send(Frame type, const void* body, size_t size);

 private:
  /** Who calls, before the receiving thread has answered. */
  struct Caller {
    std::unique_ptr<Channel> channel;
    HelloBody hello{};
    std::vector<EpochStart> history;
  };
  /** Of a resync that begins. */
  enum class Stage { none, resting, telling };

  // receiver.cc
  Result<bool> recover(const ReceiverOptions& options);
  int save_checkpoint(const JournalPoint& point);
  void accept_loop();
  void hear(Fd socket);
  void refuse(Channel& channel, Refusal reason);
  Result<Tail> end();
  void wake();
  bool was_primary(const SuperState& state) const { return state.role == 1 && state.clean == 0; }

  // receiver_stream.cc: the receiving thread
  void run();
  void greet();
  bool fits(const HelloBody& hello, Refusal& reason);
  void receive();
  bool take_frame(const FrameHead& head);
  void write_batch();
  bool write_is_due(int64_t now) const;
  /** A planted bug: a barrier is acknowledged at once, and hurries no write. */
  bool early() const { return faults_ != nullptr && faults_->ack_before_durable; }
  void acknowledge(Lsn durable);
  void tick(int64_t now);
  void wait(int64_t now);
  void lose(const char* state, int error);
  void leave(Leave reason, int error);
  void fail(Leave reason, int error, const char* call);

  // receiver_resync.cc
  void say_welcome(const Tail& tail);
  void take_history(SuperState& state, Lsn before) const;
  void begin_reports();
  bool begin_records();
  void catch_up();
  bool take_resync();
  bool begin_catching_up();
  void go_on();
  int begin_resync();
  void tell_touched();
  bool tell_reports();
  void note(const SuperState& state);
  void take_back();

  Super& super_;
  Events& events_;
  ApplyTarget& target_;
  const Faults* faults_;
  ReceiverOptions options_;
  TlsIdentity identity_;
  Journal journal_;
  Feed feed_;
  Intake intake_;
  Fd listener_, wake_, end_;  // eventfds: something to do; the end
  uint16_t port_ = 0;
  std::thread acceptor_, thread_;
  bool started_ = false;
  mutable std::mutex super_mutex_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> orderly_{false};  // stopped by promote or stop
  std::atomic<int64_t> cut_until_ns_{0};

  std::mutex caller_mutex_;
  Caller caller_;
  std::mutex channel_mutex_;
  std::shared_ptr<Channel> channel_;  // set by the receiving thread, under the mutex

  // The receiving thread's own.
  bool drained_ = true;  // nothing more to read right now
  bool full_ = false;    // the journal has no room for what waits
  bool receipts_ = false;
  Lsn barrier_ = 0;  // asked for
  Lsn told_received_ = 0;
  int64_t first_ns_ = 0;  // when the oldest record that waits came
  Attention attention_;   // to barriers
  int64_t heard_ns_ = 0;
  int64_t tick_ns_ = 0;
  HelloBody hello_{};                // of this connection
  std::vector<EpochStart> history_;  // of its primary; empty: it has told none
  bool begun_ = false;               // it has sent records, or this side said that it is ready
  bool catching_up_ = false;         // `synced` will say that it has
  bool unfit_ = false;               // nothing but a resync is taken
  bool marks_lost_ = false;          // until a resync has ended; under super_mutex_
  Stage stage_ = Stage::none;
  ResyncBody asked_{};
  Marked touched_;
  size_t touched_at_ = 0;
  Lsn told_applied_ = 0;

  Reports reports_;
  bool reports_begun_ = false;                     // a connection of this process was told them
  std::atomic<DiskState> state_{DiskState::none};  // as the superblock says, as are the next
  std::atomic<uint64_t> run_{0}, base_epoch_{0};
  std::atomic<Lsn> base_lsn_{0};
  std::atomic<bool> ended_{false};  // `synced` of this run is in the journal: there is no way back

  std::atomic<bool> connected_{false}, failed_{false}, replaying_{false};
  std::atomic<int> error_{0};
  std::atomic<uint32_t> peer_node_{0};
  std::atomic<uint64_t> epoch_{0};
  std::atomic<Lsn> received_{0}, durable_{0}, applied_{0};
  std::atomic<uint64_t> used_{0}, waits_{0}, writes_{0}, written_bytes_{0}, barriers_{0}, acks_{0};
  std::atomic<uint64_t> connects_{0}, refusals_{0}, protocol_errors_{0};
  std::atomic<int64_t> write_last_ns_{0}, write_most_ns_{0};
};

}  // namespace holdfast::replica
