#include "replica_peer.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace holdfast::replica::test {
namespace {

constexpr auto patience = std::chrono::seconds(60);

void run_tool(const std::string& command) {
  REQUIRE(std::system((command + " >/dev/null 2>&1").c_str()) == 0);
}

}  // namespace

const Certificates& Certificates::get() {
  static const Certificates made;
  return made;
}

Certificates::Certificates() {
  const std::string key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 ";
  const std::pair<const char*, const char*> all[] = {{"a", "ca"}, {"b", "ca"}, {"x", "other"}};
  for (const char* ca : {"ca", "other"}) {
    run_tool("openssl req -x509 " + key + "-subj /CN=" + ca + " -keyout " +
             folder_.at(std::string(ca) + ".key") + " -out " +
             folder_.at(std::string(ca) + ".pem"));
  }
  for (const auto& [name, ca] : all) {
    const std::string base = folder_.at(name);
    run_tool("openssl req " + key + "-subj /CN=" + name + " -keyout " + base + ".key -out " + base +
             ".csr");
    run_tool("openssl x509 -req -days 2 -in " + base + ".csr -CA " + folder_.at(ca) +
             ".pem -CAkey " + folder_.at(ca) + ".key -CAcreateserial -out " + base + ".pem");
  }
}

Waiter Call::waiter() {
  return {[](void* context, uint64_t, int error) {
            auto* call = static_cast<Call*>(context);
            if (call->then) call->then();
            const std::lock_guard lock(call->mutex_);
            call->error_ = error;
            call->done_.store(true);
            call->changed_.notify_all();
          },
          this, 0};
}

int Call::await() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [&] { return done_.load(); }) ? error_ : -1;
}

void EventList::event(std::string_view name, std::span<const Field> fields) {
  std::string text(name);
  for (const Field& field : fields) {
    text += " " + std::string(field.key) + "=" +
            (field.is_number ? std::to_string(field.number) : std::string(field.text));
  }
  const std::lock_guard lock(mutex_);
  list_.push_back(text);
  changed_.notify_all();
}

size_t EventList::count(const std::string& text) {
  const std::lock_guard lock(mutex_);
  size_t found = 0;
  for (const std::string& one : list_) found += one.starts_with(text) ? 1 : 0;
  return found;
}

bool EventList::await(const std::string& text) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [&] {
    for (const std::string& one : list_) {
      if (one.starts_with(text)) return true;
    }
    return false;
  });
}

Peer::Peer(const std::string& certificate) {
  const Certificates& certificates = Certificates::get();
  REQUIRE(identity_.open(certificates.of(certificate, certificate == "x" ? "other" : "ca")).ok());
  for (int port = 21000; port < 22000 && !listener_.valid(); port++) {
    address_ = "127.0.0.1:" + std::to_string(port);
    listener_ = listen_on(address_).value;
  }
  REQUIRE(listener_.valid());
  stop_ = Fd(eventfd(0, EFD_CLOEXEC));
  thread_ = std::thread([this] { run(); });
}

Peer::~Peer() {
  stopping_.store(true);
  eventfd_write(stop_.get(), 1);
  crash();
  thread_.join();
}

void Peer::begin(const Tail& tail, std::vector<EpochStart> epochs) {
  const std::lock_guard lock(mutex_);
  received_tail_ = durable_tail_ = tail;
  received_.store(tail.lsn);
  durable_.store(tail.lsn);
  history = std::move(epochs);
}

void Peer::crash() {
  const std::lock_guard lock(mutex_);
  if (channel_ != nullptr) channel_->shut(ECONNABORTED);
}

void Peer::say(Frame type, const void* body, size_t size) {
  const std::lock_guard lock(mutex_);
  REQUIRE(channel_ != nullptr);
  channel_->post(type, body, size);
}

bool Peer::await_received(Lsn lsn) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [&] { return received_.load() >= lsn; });
}

bool Peer::await_connection(uint64_t number) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [&] { return connections_.load() >= number; });
}

bool Peer::await_left() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [&] { return left_.load(); });
}

void Peer::run() {
  while (!stopping_.load()) {
    pollfd wait[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    poll(wait, 2, -1);
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) continue;
    Channel channel;
    const int64_t deadline = boot_ns() + 5 * ns_per_s;
    if (!channel
             .start(identity_, std::move(socket), TlsStream::Side::server, {}, deadline,
                    stop_.get())
             .ok()) {
      continue;
    }
    if (!take_hello(channel)) continue;
    if (refuse.load() != 0) {
      channel.post(Frame::refuse, RefuseBody{refuse.load(), 0});
      continue;
    }
    send_welcome(channel);
    {
      const std::lock_guard lock(mutex_);
      channel_ = &channel;
      connections_++;
      changed_.notify_all();
    }
    if (instead) {
      instead(channel);
    } else {
      serve(channel);
    }
    const std::lock_guard lock(mutex_);
    channel_ = nullptr;
    received_tail_ = durable_tail_;
    received_.store(durable_tail_.lsn);
    pending_.clear();
  }
}

bool Peer::take_hello(Channel& channel) {
  FrameHead head{};
  HelloBody hello{};
  if (channel.await(head, boot_ns() + 5 * ns_per_s, stop_.get()) != 0) return false;
  const auto body = channel.control();
  if (body.size() < sizeof hello) return false;
  std::memcpy(&hello, body.data(), sizeof hello);
  if (body.size() != sizeof hello + hello.history * sizeof(EpochStart)) return false;
  const std::lock_guard lock(mutex_);
  told_.resize(hello.history);
  if (hello.history > 0) {
    std::memcpy(told_.data(), body.data() + sizeof hello, hello.history * sizeof(EpochStart));
  }
  return true;
}

void Peer::send_welcome(Channel& channel) {
  const std::lock_guard lock(mutex_);
  WelcomeBody body{};
  body.epoch = durable_tail_.epoch;
  body.durable = durable_tail_.lsn;
  body.chain = durable_tail_.chain;
  body.resync = run_;
  body.node = 2;
  body.state = static_cast<uint32_t>(state_);
  if (state_ == DiskState::inconsistent) {
    body.base_lsn = base_.lsn;
    body.base_epoch = base_.epoch;
  }
  body.history = static_cast<uint32_t>(history.size());
  if (welcome) welcome(body);
  std::vector<uint8_t> bytes(sizeof body + body.history * sizeof(EpochStart));
  std::memcpy(bytes.data(), &body, sizeof body);
  if (body.history > 0) {
    std::memcpy(bytes.data() + sizeof body, history.data(), body.history * sizeof(EpochStart));
  }
  channel.post(Frame::welcome, bytes.data(), bytes.size());
}

/** Gets ready for a resync; false: the frame is none. */
bool Peer::take_resync(Channel& channel) {
  const std::lock_guard lock(mutex_);
  if (!channel.body(resync_) || resync_.run == 0) return false;
  resyncs_++;
  changed_.notify_all();
  if (slow.load()) return true;
  run_ = resync_.run;
  synced_ = 0;
  whole_ = false;
  if (resync_.rejoin == static_cast<uint32_t>(Rejoin::catch_up)) {
    state_ = DiskState::outdated;
  } else {
    if (state_ != DiskState::inconsistent) base_ = durable_tail_;
    state_ = DiskState::inconsistent;
    received_tail_ = durable_tail_ = {resync_.lsn, resync_.epoch, resync_.chain};
    received_.store(resync_.lsn);
    durable_.store(resync_.lsn);
  }
  std::vector<uint8_t> bytes(sizeof(TouchedBody) + touched.size() * sizeof(Mark));
  const TouchedBody head{run_, 0, static_cast<uint32_t>(touched.size()), 0};
  std::memcpy(bytes.data(), &head, sizeof head);
  if (!touched.empty()) {
    std::memcpy(bytes.data() + sizeof head, touched.data(), touched.size() * sizeof(Mark));
  }
  if (!touched.empty()) channel.post(Frame::touched, bytes.data(), bytes.size());
  channel.post(Frame::ready, ReadyBody{run_, resync_.lsn});
  return true;
}

ResyncBody Peer::resync() {
  const std::lock_guard lock(mutex_);
  return resync_;
}

bool Peer::await_whole() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [&] { return whole_; });
}

void Peer::take_back() {
  const std::lock_guard lock(mutex_);
  run_ = 0;
  state_ = DiskState::outdated;
  received_tail_ = durable_tail_ = base_;
  received_.store(base_.lsn);
  durable_.store(base_.lsn);
  if (channel_ != nullptr) channel_->shut(ECONNABORTED);
}

void Peer::serve(Channel& channel) {
  for (;;) {
    if (deaf.load() && channel.error() == 0) {
      pollfd wait{stop_.get(), POLLIN, 0};
      poll(&wait, 1, 1);
      if (wait.revents != 0) return;
      continue;
    }
    FrameHead head{};
    const int error = channel.await(head, boot_ns() + 50 * ns_per_ms, stop_.get());
    if (error == ETIMEDOUT) {
      channel.post(Frame::ping);
      continue;
    }
    if (error != 0) return;
    switch (static_cast<Frame>(head.type)) {
      case Frame::records:
        if (!take_records(channel)) return;
        break;
      case Frame::resync:
        if (!take_resync(channel)) return;
        break;
      case Frame::barrier:
        make_durable(channel);
        break;
      case Frame::ping:
        break;
      case Frame::leave: {
        const std::lock_guard lock(mutex_);
        left_.store(true);
        changed_.notify_all();
        return;
      }
      default:
        wrong_++;
        return;
    }
  }
}

bool Peer::take_records(Channel& channel) {
  pending_.resize(channel.records_left());
  size_t at = 0;
  while (channel.records_left() > 0) {
    size_t got = 0;
    const Io io = channel.records(pending_.data() + at, channel.records_left(), got);
    if (io == Io::closed) return false;
    at += got;
    if (io == Io::blocked) {
      pollfd wait[2] = {{channel.fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      poll(wait, 2, -1);
      if (wait[1].revents != 0) return false;
    }
  }
  for (std::span<const uint8_t> left(pending_); !left.empty();) {
    Record record;
    if (parse_record(left, record) != ParseStatus::ok || record.kind == Kind::pad ||
        !follows(received_tail_, record.head)) {
      wrong_++;
      return false;
    }
    received_tail_ = tail_after(record.head);
    if (record.kind == Kind::synced) synced_ = record.head.lsn;
    if (taken) taken(record, state_ == DiskState::inconsistent && synced_ == 0);
    left = left.subspan(record.head.size);
  }
  {
    const std::lock_guard lock(mutex_);
    received_.store(received_tail_.lsn);
    changed_.notify_all();
  }
  if (acks.load() == Acks::receipt_only) {
    channel.post(Frame::ack, AckBody{received_tail_.lsn, durable_tail_.lsn, durable_tail_.lsn});
  }
  if (acks.load() == Acks::at_once || acks.load() == Acks::silent) make_durable(channel);
  return true;
}

void Peer::make_durable(Channel& channel) {
  const Acks how = acks.load();
  if (how == Acks::receipt_only || how == Acks::none) return;
  const std::lock_guard lock(mutex_);
  durable_tail_ = received_tail_;
  durable_.store(durable_tail_.lsn);
  if (how == Acks::silent) return;
  channel.post(Frame::ack, AckBody{durable_tail_.lsn, durable_tail_.lsn, durable_tail_.lsn});
  if (run_ == 0) history = told_;
  if (run_ == 0 || synced_ == 0 || never_whole.load()) return;
  state_ = DiskState::in_sync;
  history = told_;
  channel.post(Frame::whole, ReadyBody{run_, synced_});
  run_ = 0;
  whole_ = true;
  changed_.notify_all();
}

Primary::Primary(uint64_t ring_size)
    : memory(ring_size), ring(memory.shared(), memory.arena()), link(ring, super, events, &faults) {
  REQUIRE(super.open(folder.at("super")).ok());
}

LinkOptions Primary::options(const std::string& peer) const {
  LinkOptions out;
  out.peer = peer;
  out.tls = Certificates::get().of("a");
  out.send_timeout_ms = 3000;
  out.lock_timeout_ms = 200;
  out.node = 1;
  out.epoch = 1;
  return out;
}

Lsn Primary::add(size_t size) {
  static const std::vector<uint8_t> bytes(max_data, 0x42);
  for (;;) {
    Call ready;
    if (link.reserve(record_size(size), ready.waiter())) break;
    REQUIRE(ready.await() == 0);
  }
  const iovec part{const_cast<uint8_t*>(bytes.data()), size};
  return link.append(Kind::check, 0, 1, {&part, 1});
}

int Primary::sync(Lsn lsn) {
  Call call;
  return link.sync(lsn, call.waiter()) ? 0 : call.await();
}

}  // namespace holdfast::replica::test
