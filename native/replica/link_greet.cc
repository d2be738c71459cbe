#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "replica/link.h"

// Who is there, and what it needs.

namespace holdfast::replica {
namespace {

constexpr int64_t first_backoff = 20 * ns_per_ms;
constexpr int64_t last_backoff = ns_per_s;
constexpr int64_t attempt_time = 3 * ns_per_s;

const char* name_of(Refusal refusal) {
  switch (refusal) {
    case Refusal::set:
      return "set";
    case Refusal::version:
      return "version";
    case Refusal::epoch:
      return "epoch";
    case Refusal::role:
      return "role";
    case Refusal::history:
      return "history";
    case Refusal::state:
      return "state";
    case Refusal::volumes:
      return "volumes";
    case Refusal::fork:
      return "fork";
    case Refusal::behind:
      return "behind";
    case Refusal::unrelated:
      return "unrelated";
  }
  return "unknown";
}

Refusal refusal_of(Rejoin what) {
  if (what == Rejoin::fork) return Refusal::fork;
  return what == Rejoin::behind ? Refusal::behind : Refusal::unrelated;
}

bool is_protocol(int error) {
  return error == EPROTO || error == EBADMSG || error == EKEYREJECTED;
}

/** A number that no resync of this mirror has had. */
uint64_t random_run() {
  uint64_t value = 0;
  if (getrandom(&value, sizeof value, 0) != sizeof value) abort();
  return (value & ((uint64_t{1} << 48) - 1)) | 1;  // short enough for every reader of a status
}

/** The body of a welcome and what it says of the copy; false: it is none. */
bool read_welcome(std::span<const uint8_t> body, WelcomeBody& welcome, Lineage& peer) {
  if (body.size() < sizeof welcome) return false;
  std::memcpy(&welcome, body.data(), sizeof welcome);
  if (welcome.history > max_history ||
      welcome.state > static_cast<uint32_t>(DiskState::inconsistent) ||
      body.size() != sizeof welcome + welcome.history * sizeof(EpochStart)) {
    return false;
  }
  peer.node = welcome.node;
  peer.state = static_cast<DiskState>(welcome.state);
  peer.at = {welcome.durable, welcome.epoch, welcome.chain};
  peer.base = {welcome.base_lsn, welcome.base_epoch, 0};
  peer.resync = welcome.resync;
  peer.was_primary = (welcome.flags & welcome_was_primary) != 0;
  peer.marks_lost = (welcome.flags & welcome_marks_lost) != 0;
  peer.history.resize(welcome.history);
  if (welcome.history > 0) {
    std::memcpy(peer.history.data(), body.data() + sizeof welcome,
                welcome.history * sizeof(EpochStart));
  }
  return true;
}

}  // namespace

void Link::refused(const char* reason) {
  refusals_.fetch_add(1, std::memory_order_relaxed);
  refused_here_ = reason;
  if (refused_said_ == reason) return;
  refused_said_ = reason;
  events_.event("peer", {{"state", "refused"}, {"reason", reason}});
}

/** Nothing is done with such a copy: what each side has is said to both operators. */
void Link::refused(Channel& channel, const Decision& decision) {
  channel.post(Frame::refuse, RefuseBody{static_cast<uint32_t>(refusal_of(decision.what)), 0});
  refusals_.fetch_add(1, std::memory_order_relaxed);
  refused_here_ = replica::name_of(decision.what);
  const std::string said = std::string(replica::name_of(decision.what)) + " " +
                           std::to_string(decision.common) + " " +
                           std::to_string(decision.target_more);
  if (refused_said_ == said) return;
  refused_said_ = said;
  events_.event("peer", {{"state", "refused"},
                         {"reason", replica::name_of(decision.what)},
                         {"common", decision.common},
                         {"epoch", decision.epoch},
                         {"source_more", decision.source_more},
                         {"target_more", decision.target_more}});
}

/** One attempt; on success `channel_` is there. */
void Link::connect(int64_t now_ns) {
  backoff_ns_ = std::clamp(2 * backoff_ns_, first_backoff, last_backoff);
  next_try_ns_ = now_ns + backoff_ns_;
  int64_t deadline = now_ns + attempt_time;
  const int64_t lost_at = lost_since_ns_ + options_.lock_timeout_ms * ns_per_ms;
  if (!lost_said_ && says_lost()) {
    deadline = std::min(deadline, std::max(lost_at, now_ns + first_backoff));
  }

  Result<Fd> socket = connect_to(options_.peer, deadline, abort_.get());
  auto channel = std::make_unique<Channel>();
  Greeting greeting;
  bool good = false;
  refused_here_ = "";
  if (socket.ok()) {
    const SocketOptions options{options_.send_timeout_ms, options_.send_buffer};
    const auto started = channel->start(identity_, std::move(socket.value), TlsStream::Side::client,
                                        options, deadline, abort_.get());
    good = started.ok() && greet(*channel, greeting, deadline);
    if (is_protocol(channel->error())) {
      protocol_errors_.fetch_add(1, std::memory_order_relaxed);
      refused(channel->error() == EKEYREJECTED ? "certificate" : "protocol");
    }
  }
  refused_now_.store(refused_here_);
  if (good) adopt(std::move(channel), greeting);
  if (channel_ != nullptr) return;
  set_forgives(false);
  release_ring();
  failed_connects_.fetch_add(1, std::memory_order_relaxed);
  say_lost(boot_ns());
}

/** Says who calls; true when the other is a copy that can go on, with or without a resync. */
bool Link::greet(Channel& channel, Greeting& greeting, int64_t deadline_ns) {
  std::vector<uint8_t> bytes(sizeof(HelloBody));
  HelloBody hello{};
  hello.magic = stream_magic;
  hello.version = stream_version;
  std::copy(std::begin(options_.set), std::end(options_.set), hello.set);
  hello.node = options_.node;
  hello.volumes = options_.volumes;
  hello.epoch = greeting.epoch = epoch_shown_.load();
  hello.first = ring_.before_first().lsn + 1;
  hello.last = last();
  hello.applied = applied_.load();
  hello.flags = options_.strict || options_.second ? uint32_t{hello_receipts} : 0;
  {
    const std::lock_guard lock(super_mutex_);
    const SuperState& state = super_.state();
    hello.history = state.history_size;
    const auto* starts = reinterpret_cast<const uint8_t*>(state.history);
    bytes.insert(bytes.end(), starts, starts + state.history_size * sizeof(EpochStart));
  }
  std::memcpy(bytes.data(), &hello, sizeof hello);
  if (channel.post(Frame::hello, bytes.data(), bytes.size()) == Io::closed) return false;
  Lineage peer;
  return await_welcome(channel, peer, greeting.welcome, deadline_ns) &&
         plan(channel, peer, greeting);
}

bool Link::await_welcome(Channel& channel, Lineage& peer, WelcomeBody& welcome,
                         int64_t deadline_ns) {
  FrameHead head{};
  if (channel.await(head, deadline_ns, abort_.get()) != 0) return false;
  if (head.type == static_cast<uint32_t>(Frame::refuse)) {
    RefuseBody refuse{};
    if (channel.body(refuse)) {
      refused(name_of(static_cast<Refusal>(refuse.reason)));
    } else {
      channel.shut(EPROTO);
    }
    return false;
  }
  if (head.type == static_cast<uint32_t>(Frame::welcome) &&
      read_welcome(channel.control(), welcome, peer)) {
    return true;
  }
  channel.shut(EPROTO);
  return false;
}

/** Decides what the peer needs. Nothing leaves the ring from here on, until it has it. */
bool Link::plan(Channel& channel, const Lineage& peer, Greeting& greeting) {
  ring_.keep(true);
  Rejoining* rejoining = options_.rejoining;
  SourceMeans means;
  means.ring_first = ring_.before_first();
  means.dirty_since = dirty_since();
  means.dirty_whole = !left_.load() || rejoining->known();
  means.resync = run_.load();
  Lineage source;
  {
    const std::lock_guard lock(super_mutex_);
    source = lineage_of(super_.state(), ring_.last());
  }
  Decision& decision = greeting.decision;
  decision = options_.distant ? decide_distant(source, means, peer, faults_)
                              : decide(source, means, peer, faults_);
  const bool in_ring = ring_.find(peer.at, greeting.cursor);
  if (options_.distant) refine(decision, in_ring);
  // A chain value that is ours proves more than any list of epochs.
  const bool prefix = in_ring && !peer.was_primary &&
                      (peer.state == DiskState::in_sync || peer.state == DiskState::outdated);
  if (decision.what == Rejoin::unrelated && prefix) {
    decision.what = Rejoin::catch_up;
    decision.common = peer.at.lsn;
    decision.epoch = peer.at.epoch;
  }
  const bool by_ring = decision.what == Rejoin::catch_up || decision.what == Rejoin::resume;
  const bool refuses = decision.what == Rejoin::fork || decision.what == Rejoin::behind ||
                       (decision.what == Rejoin::unrelated && rejoining != nullptr);
  if (refuses) {
    refused(channel, decision);
    return false;
  }
  if (by_ring ? !in_ring : rejoining == nullptr) {
    channel.post(Frame::refuse, RefuseBody{static_cast<uint32_t>(Refusal::history), 0});
    refused("history");
    return false;
  }
  // A copy that is outdated counts as in sync by the record `synced` only, though the ring has all.
  const bool counts = rejoining == nullptr || peer.state != DiskState::outdated;
  greeting.follows = decision.what == Rejoin::resume ||
                     (decision.what == Rejoin::catch_up && !left_.load() && counts);
  return greeting.follows || announce(channel, peer, greeting);
}

/** The ring of a distant copy was passed by, so it has what the copy lacks only when nothing is
 * dirty; and records that are other ones than the copy's are no reason to refuse it. */
void Link::refine(Decision& decision, bool in_ring) const {
  const bool catches_up = decision.what == Rejoin::catch_up;
  if (!in_ring && (catches_up || decision.what == Rejoin::resume)) {
    decision.what = Rejoin::compare;
  } else if (catches_up && left_.load() && !options_.rejoining->nothing_dirty()) {
    decision.what = Rejoin::dirty;
  }
}

/** Says that a resync comes; what is in the ring becomes dirty where the stream jumps over it. */
bool Link::announce(Channel& channel, const Lineage& peer, Greeting& greeting) {
  // Not yet: asked again in a moment.
  if (!serving_.load()) return false;
  if (const int error = peer_left(); error != 0) {
    events_.warning("the superblock cannot be written: no resync", error);
    return false;
  }
  Rejoining& rejoining = *options_.rejoining;
  const Decision& decision = greeting.decision;
  const bool same = run_.load() != 0 && peer.resync == run_.load();
  if (stated_ && !same) {
    // What was stated to a copy in another run is clean by now, and this copy may not have it.
    if (faults_ == nullptr || !faults_->bitmap_cleared_early) rejoining.own_marks();
    stated_ = false;
  }
  if (decision.what == Rejoin::catch_up) {
    greeting.tail = peer.at;
  } else {
    if (decision.what == Rejoin::compare) rejoining.compare_all();
    if (decision.what == Rejoin::first_copy) rejoining.first_copy();
    greeting.tail = options_.distant
                        ? empty_ring(true)
                        : ring_.skip_to_end(same ? 0 : decision.common,
                                            [&](const Record& record) { rejoining.touch(record); });
  }
  greeting.run = same ? run_.load() : random_run();
  const ResyncBody body{greeting.run,
                        greeting.tail.lsn,
                        greeting.tail.epoch,
                        greeting.tail.chain,
                        static_cast<uint32_t>(decision.what),
                        0};
  return channel.post(Frame::resync, body) != Io::closed;
}

/** The connection is good: what the peer lacks goes out, or waits until it is ready. */
void Link::adopt(std::unique_ptr<Channel> channel, const Greeting& greeting) {
  const Decision& decision = greeting.decision;
  take_sending();
  // Alone since it was asked: a peer that followed does not any more.
  const bool left = greeting.follows && decision.what == Rejoin::catch_up &&
                    (left_.load() || (alone_.load() && options_.rejoining == nullptr));
  const bool late = left || (options_.distant && greeting.epoch != epoch_shown_.load());
  if (!late) {
    channel_ = std::move(channel);
    streaming_ = false;
    writable_.store(false);
  }
  sending_.store(false);
  if (late) return;
  peer_whole_.store(greeting.follows &&
                    greeting.welcome.state == static_cast<uint32_t>(DiskState::in_sync));
  peer_node_.store(greeting.welcome.node);
  connected_.store(true);
  connects_.fetch_add(1, std::memory_order_relaxed);
  heard_ns_ = boot_ns();
  refused_said_.clear();
  events_.event("peer", {{"state", "connected"}, {"node", greeting.welcome.node}});
  if (decision.what != Rejoin::resume) kind_.store(decision.what);
  const bool tells = !greeting.follows || (decision.what == Rejoin::resume && synced_ == 0);
  if (tells) {
    events_.event("resync", {{"state", "started"},
                             {"run", greeting.follows ? run_.load() : greeting.run},
                             {"kind", replica::name_of(decision.what)},
                             {"common", decision.common},
                             {"epoch", decision.epoch}});
  }
  if (!greeting.follows) {
    announced_ = greeting.run;
    announced_tail_ = greeting.tail;
    release_ring();
    return;
  }
  const bool states = decision.what == Rejoin::resume && synced_ == 0 && left_.load();
  stating_ = states;  // from here on the ring keeps what was not applied
  if (states && kind_.load() != Rejoin::catch_up) set_forgives(true);
  // It may be another process, which has yet to apply again what the last one had, and to report.
  if (states) applied_.store(0);
  begin_stream(greeting.cursor, greeting.welcome.durable);
  if (states) {
    begin_stating();
  } else if (decision.what == Rejoin::catch_up && synced_ != 0 &&
             greeting.welcome.durable >= synced_) {
    is_whole();
  }
}

/** Records go out from `cursor` on; the peer has durably what comes before. */
void Link::begin_stream(uint64_t cursor, Lsn has) {
  take_sending();
  cursor_ = cursor;
  cursor_shown_.store(cursor, std::memory_order_relaxed);
  sent_.store(has);
  barrier_sent_ = has;
  streaming_ = true;
  sending_.store(false);
  {
    // What it had received and not made durable, it may have lost.
    const std::lock_guard lock(wait_mutex_);
    received_.store(has);
    durable_.store(has);
    if (synced_ != 0 && has >= synced_) held_.store(false);
  }
  complete();
  free_ring();
  asked_.store(true);
  kick();
}

}  // namespace holdfast::replica
