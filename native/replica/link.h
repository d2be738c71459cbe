#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/attention.h"
#include "replica/channel.h"
#include "replica/events.h"
#include "replica/faults.h"
#include "replica/lag.h"
#include "replica/lineage.h"
#include "replica/log.h"
#include "replica/rejoin.h"
#include "replica/ring.h"
#include "replica/super.h"
#include "replica/waits.h"

/**
 * The primary's side of the stream. Whoever has something to send sends it, and with it all that
 * others queued meanwhile; one thread of the link receives, connects again, and calls back those
 * who wait.
 *
 * Nothing is acknowledged without the peer, except while the superblock, saved and durable, says
 * that the peer is not required (`alone`, or a peer that left because it failed).
 *
 * A peer that comes back is brought back by what lineage.h decides. It *follows* when all that it
 * may lack is in the ring. One that does not is in a *run* (resync.h) until the record `synced`:
 * before that is appended the superblock says that nothing is acknowledged without the peer.
 *
 * A *distant* copy (link_distant.cc) has a link, a ring and a superblock of its own, and nothing
 * ever waits for it: what its ring has no room for is dirty.
 */
namespace holdfast::replica {

struct LinkOptions {
  std::string peer;  // "ADDR:PORT"
  TlsFiles tls;
  bool strict = false;              // each change waits for the peer's receipt
  bool second = false;              // async="second": received is enough for a sync
  int64_t send_timeout_ms = 30000;  // a peer that is silent for so long is disconnected
  int64_t lock_timeout_ms = 3000;   // without a connection for so long: event `peer state=lost`
  uint8_t set[16] = {};
  uint32_t node = 0;
  uint32_t volumes = 1;
  uint64_t epoch = 0;    // of records; the superblock's when that is higher
  bool decided = false;  // only `alone` goes on without the peer, also when that has failed
  int send_buffer = 0;   // SO_SNDBUF, bytes; 0: 2 MiB
  /** Bodies of `differs` frames (verify.h), on the link's thread. */
  std::function<void(std::span<const uint8_t>)> differs;
  /** What the peer has durably, while it follows; on the link's thread. Of a distant copy, the LSN
   * of the main stream up to which it has everything, once its superblock says so. */
  std::function<void(Lsn)> peer_has;
  /** A distant copy: the superblock says that no peer is required. */
  bool distant = false;
  /** Distant: the superblock is saved no more often. */
  int64_t note_ms = 1000;
  /** Distant: makes the main stream say where it is (`reached`); on the link's thread. */
  std::function<void()> compare_streams;
  /** Distant: whether marks wait for what this copy has; on the link's thread. */
  std::function<bool()> marks_wait;
  /** p99 of the application's changes in the last second, 0: there was none. Any thread. */
  std::function<int64_t()> change_p99_ns;
  /** Null: a peer that the ring cannot go on for is refused, and alone it is for good. */
  Rejoining* rejoining = nullptr;
};

/** What `status` shows. Times in ns; quantiles since start. */
struct LinkStatus {
  bool connected = false;
  bool alone = false;
  bool in_sync = false;   // the peer is connected and follows
  uint64_t run = 0;       // of the resync that is under way, connected or not
  const char* kind = "";  // of it
  std::string history;    // EPOCH:LSN:NODE:ALONE,…
  uint64_t epoch = 0;
  uint64_t permit = 0;  // epoch of the newest permission to acknowledge without the peer, 0: none
  /** none: it is not there. resync: it lacks something. caught_up: it was sent everything, and has
   * not said yet that its copy is whole. in_sync: it has everything that was acknowledged, its copy
   * counts as whole, and nothing is acknowledged without it under `permit`: all three durable, and
   * true at one moment, as `alone` is. */
  const char* peer_copy = "none";
  bool own_failed = false;  // this copy, as the superblock says
  uint32_t peer_node = 0;
  Lsn last = 0, sent = 0, received = 0, durable = 0, applied = 0;
  uint64_t ring_used = 0, ring_size = 0, ring_full = 0;  // full: reservations turned away
  uint64_t waiters = 0, reservers = 0, overflows = 0;    // overflows: waits told ENOMEM
  uint64_t bytes_sent = 0, records_sent = 0, sends = 0, barriers = 0, acks = 0;
  uint64_t connects = 0, failed_connects = 0, refusals = 0, protocol_errors = 0;
  uint64_t syncs = 0;
  int64_t sync_p50_ns = 0, sync_p99_ns = 0;
  // Distant.
  const char* refused = "";  // why it was, at the last attempt; "": it was not
  uint64_t diverted = 0;     // records that the ring had no room for
  int64_t lag_ns = 0;        // age of the oldest change that it does not have durably
};

class Link final : public Log {
 public:
  /** All outlive the link. Between `start` and `stop` nobody else saves the superblock. */
  Link(Ring& ring, Super& super, Events& events, const Faults* faults = nullptr);
  ~Link() override;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  /** Starts to connect. Errors of the TLS files (TlsIdentity::open); EINVAL: the ring is not
   * usable; EMFILE …: descriptors. */
  Result<bool> start(const LinkOptions& options);
  /**
   * Ends: waits up to `drain_ms` for the peer to have everything, says LEAVE, and joins the thread.
   * True: the peer has everything, durably. Whoever still waits is told EIO.
   */
  bool stop(int64_t drain_ms);

  /**
   * Goes on without the peer from epoch `epoch` on. 0 when the superblock that allows it is
   * durable; then all who wait are released. EINVAL: the epoch is older than the present one; else
   * the errno of the superblock, and nothing has changed.
   */
  int alone(uint64_t epoch);
  /**
   * Begins an epoch under which nothing is less strict: who is waited for stays. The peer hears of
   * it, and takes no older one from then on: the connection is made again. 0, also when it is the
   * present epoch, or as `alone`.
   */
  int joined(uint64_t epoch);
  /** The directories are served: from now on what is dirty can be stated. */
  void serving();
  /**
   * After `stop`: what the peer lacks becomes dirty, for a primary that will go on as another
   * process. True: it follows, and nothing does. `since`: what changed after it is dirty.
   */
  bool settle(Lsn& since);
  /** Drops the connection and makes none for `ms`. */
  void cut(int64_t ms);

  // Of a distant copy.
  /**
   * Takes a change that the main stream has as `main`: appends it, or makes what it touches dirty
   * when the ring has no room. Never waits for the copy. Calls come one after the other, in the
   * order of the changes.
   */
  void offer(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload, Lsn main);
  /** No change is under way, and the main stream has come to `main`. */
  void reached(Lsn main);
  /** The primary began an epoch. 0 when the superblock says so, durably. */
  int begin_epoch(uint64_t epoch);
  /** True when `stop` need not wait: it has everything, or is not there, or is in a run. */
  bool need_not_wait() const;
  /** `stop` will follow: the thread begins to end. */
  void begin_stop();

  LinkStatus status() const;
  /** What the peer has applied; what it reported before that was passed on. Any thread. */
  Lsn applied() const { return applied_.load(); }
  uint64_t ring_used() const { return ring_.used(); }
  uint64_t ring_size() const { return ring_.size(); }
  /** See ResyncStream. */
  int64_t change_p99_ns() const { return options_.change_p99_ns ? options_.change_p99_ns() : 0; }

  bool reserve(size_t bytes, const Waiter& ready) override;
  void release(size_t bytes) override;
  Lsn append(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload) override {
    return append_noting(kind, flags, file, payload, nullptr);
  }
  Lsn append_noting(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload,
                    uint64_t* early) override;
  Lsn last() const override { return last_.load(std::memory_order_acquire); }
  /**
   * Sends soon: at once when much waits, otherwise within `push_delay`. A sync that follows at once
   * so sends change and barrier together, and a run of small writes costs one system call.
   */
  void push() override;
  bool sync(Lsn lsn, const Waiter& waiter) override;
  bool strict() const override;
  bool receipt(Lsn lsn, const Waiter& waiter) override;
  bool peer_space(uint32_t volume, uint64_t& blocks, uint64_t& free_blocks, uint32_t& block_size,
                  uint64_t& files, uint64_t& free_files) override;
  /** Event `local_failed`, and the superblock says `failed`. */
  void local_failed(int error, const char* call) override;

 private:
  enum class Sent { all, some, blocked, closed };
  enum class Level { durable, received };

  // link.cc: what the server's threads call, and the superblock
  bool wait_for(Level level, Lsn lsn, const Waiter& waiter);
  bool reached(Level level, Lsn lsn) const;
  int save_alone(uint64_t epoch);
  Lsn dirty_since() const;
  std::string history() const;
  void peer_status(LinkStatus& out) const;

  // link_send.cc: by whoever holds sending_
  void kick();
  Sent send_some();
  void take_sending();
  void wake();

  // link_greet.cc: who is there, and what it needs
  /** What `greet` found. */
  struct Greeting {
    uint64_t epoch = 0;  // that `hello` told
    WelcomeBody welcome{};
    Decision decision;
    bool follows = false;  // records go on at once
    uint64_t cursor = 0;   // then: of the next one
    uint64_t run = 0;      // otherwise: of the resync that was announced, and where it goes on
    Tail tail;
  };
  void connect(int64_t now_ns);
  bool greet(Channel& channel, Greeting& greeting, int64_t deadline_ns);
  bool await_welcome(Channel& channel, Lineage& peer, WelcomeBody& welcome, int64_t deadline_ns);
  bool plan(Channel& channel, const Lineage& peer, Greeting& greeting);
  void refine(Decision& decision, bool in_ring) const;
  bool announce(Channel& channel, const Lineage& peer, Greeting& greeting);
  void refused(const char* reason);
  void refused(Channel& channel, const Decision& decision);
  void adopt(std::unique_ptr<Channel> channel, const Greeting& greeting);
  void begin_stream(uint64_t cursor, Lsn has);

  // link_rejoin.cc: the way of a resync
  int peer_left();
  bool take_touched(std::span<const uint8_t> body);
  bool take_ready(const ReadyBody& ready);
  bool take_whole(const ReadyBody& whole);
  void begin_stating();
  void interrupt();
  void try_end(int64_t now_ns);
  int end_run();
  void append_synced(const SyncedBody& body);
  void send_synced();
  void is_whole();
  bool keeps_unapplied() const;
  void ask_applied(int64_t now_ns);

  // link_distant.cc
  bool has_room(size_t bytes);
  void divert(Kind kind, uint16_t flags, FileId file, std::span<const iovec> payload);
  void settle_overrun();
  Tail empty_ring(bool forgives);
  void set_forgives(bool forgives);
  void touch_unapplied();
  int end_distant_run();
  void note(int64_t now_ns);
  int64_t lag_ns() const;
  bool says_lost() const { return options_.distant || !alone_.load(); }

  // link_thread.cc: the link's own thread
  void run();
  void idle(int64_t until_ns);
  void drop();
  void farewell();
  void release_ring();
  void notice_alone();
  void serve();
  bool stalled(int64_t now_ns);
  void say_lost(int64_t now_ns);
  bool take_frames();
  bool take_frame(const FrameHead& head);
  void take_differs(std::span<const uint8_t> body);
  bool take_resync_frame(const FrameHead& head);
  bool take_ack(const AckBody& ack);
  void take_leave(const LeaveBody& leave);
  void free_ring();
  void complete();
  void wake_reservers();
  void finish();

  Ring& ring_;
  Super& super_;
  Events& events_;
  const Faults* faults_;
  LinkOptions options_;
  TlsIdentity identity_;
  std::thread thread_;
  Fd wake_;   // eventfd: the link's thread has something to do
  Fd abort_;  // eventfd: and not only about sending
  Fd timer_;  // timerfd of push()
  std::atomic<bool> stopping_{false};
  std::atomic<bool> alone_{false};       // the durable superblock says so
  std::atomic<bool> peer_whole_{false};  // its copy, as it said when it came or at a resync's end
  std::atomic<int64_t> cut_until_ns_{0};
  std::atomic<bool> at_once_{false};  // the connection was ended to be made again: nothing is wrong
  std::atomic<bool> serving_{false};

  // Whether the peer follows. Written with super_mutex_ held.
  std::atomic<bool> left_{false};    // it lacks more than the ring has, or may
  std::atomic<Lsn> dirty_since_{0};  // then: what changed after this is dirty, or in the ring
  // It does not follow, and nothing may be acknowledged without it: what it has durably counts only
  // up to held_from_.
  std::atomic<bool> held_{false};
  std::atomic<Lsn> held_from_{0};

  mutable std::mutex super_mutex_;
  std::mutex append_mutex_;  // order of epochs: appends stand still while one begins
  uint64_t epoch_ = 0;
  std::atomic<uint64_t> epoch_shown_{0};
  std::atomic<Lsn> last_{0};

  // Sending. `asked_` before `sending_`, both sequentially consistent: either the one who asks gets
  // `sending_`, or its holder sees `asked_` after giving it back.
  std::atomic<bool> asked_{false};
  std::atomic<bool> sending_{false};
  std::unique_ptr<Channel> channel_;  // replaced by the link's thread, which then holds sending_
  bool streaming_ = false;            // records are sent; as channel_
  uint64_t cursor_ = 0;
  Lsn barrier_sent_ = 0;
  std::atomic<uint64_t> cursor_shown_{0};
  std::atomic<Lsn> sent_{0};
  std::atomic<Lsn> barrier_wanted_{0};
  std::atomic<bool> timer_set_{false};
  std::atomic<bool> writable_{false};  // the link's thread saw POLLOUT

  // Waiting.
  mutable std::mutex wait_mutex_;
  Waits durable_waits_;
  Waits received_waits_;
  std::vector<Waiter> reservers_;
  std::atomic<size_t> reservers_count_{0};
  std::atomic<bool> room_{false};  // reservers are worth another try
  std::atomic<Lsn> durable_{0};
  std::atomic<Lsn> received_{0};
  std::atomic<Lsn> applied_{0};

  // The link's thread.
  std::vector<Waiter> ready_;
  int64_t heard_ns_ = 0;
  Attention attention_;  // to acknowledgements
  uint64_t sends_seen_ = 0;
  int64_t lost_since_ns_ = 0;
  bool lost_said_ = false;
  int64_t backoff_ns_ = 0;
  int64_t next_try_ns_ = 0;
  std::string refused_said_;
  bool save_failed_said_ = false;
  bool peer_failed_ = false;  // it cannot be made primary; what remains is to save that
  bool alone_noticed_ = false;
  int64_t progress_ns_ = 0;  // the peer was last seen to make room

  // The resync. The link's thread, but for what `status` reads.
  std::atomic<uint64_t> run_{0};  // the peer takes part in it, or did
  std::atomic<Rejoin> kind_{Rejoin::catch_up};
  uint64_t announced_ = 0;  // a run that the peer is not ready for yet
  Tail announced_tail_;
  bool stated_ = false;           // something was stated in run_, and is not dirty any more
  bool stating_ = false;          // `rejoining` was started
  Lsn synced_ = 0;                // record that ended run_; 0: it has not ended
  int64_t asked_applied_ns_ = 0;  // when the peer was last asked what it has applied
  int64_t end_wanted_ns_ = 0;     // when everything had been stated; 0: it is not yet
  std::atomic<bool> all_stated_{false};
  std::atomic<bool> state_failed_{false};

  // A distant copy. Once a record was diverted that the copy would not forgive, all are, until the
  // thread has made it a copy that does not follow. Both are written with append_mutex_ held.
  std::atomic<bool> overrun_{false};
  bool forgives_ = false;  // the copy is in a run that states what is dirty: records may be lacking
  std::vector<uint8_t> scratch_;  // append_mutex_
  Lag lag_;
  std::atomic<uint64_t> diverted_{0};
  std::atomic<int64_t> behind_ns_{0};  // since when it does not follow; 0: it does
  std::atomic<const char*> refused_now_{""};
  const char* refused_here_ = "";  // at this attempt
  Lsn noted_ = 0;                  // what the superblock says that it has durably
  int64_t noted_ns_ = 0;

  mutable std::mutex space_mutex_;
  SpaceBody space_[max_root] = {};
  bool space_known_[max_root] = {};

  std::atomic<bool> connected_{false};
  std::atomic<bool> failed_said_{false};
  std::atomic<uint32_t> peer_node_{0};
  std::atomic<uint64_t> overflows_{0}, bytes_sent_{0}, records_sent_{0}, sends_{0}, barriers_{0};
  std::atomic<uint64_t> acks_{0}, connects_{0}, failed_connects_{0}, refusals_{0};
  std::atomic<uint64_t> protocol_errors_{0};
};

}  // namespace holdfast::replica
