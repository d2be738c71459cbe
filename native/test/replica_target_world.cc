#include "test/replica_rejoin.h"

namespace holdfast::replica::test {

Returned::Returned(const History& history) : copy_(history) {
  mkdir(folder.at("state").c_str(), 0700);
  options.listen = "127.0.0.1:0";
  options.tls = Certificates::get().of("b");
  options.set[3] = 7;
  options.node = 2;
  options.folder = folder.at("state");
  options.journal = state_file("journal");
  options.journal_bytes = min_journal;
  options.feed.checkpoint_ms = 20;
  Super made;
  REQUIRE(made.open(state_file("super")).ok());
  SuperState state;
  state.state = DiskState::in_sync;
  state.epoch = 1;
  state.role = 2;
  REQUIRE(made.save(state) == 0);
}

void Returned::open_files() {
  kill();
  super = std::make_unique<Super>();
  REQUIRE(super->open(state_file("super")).ok());
  life = std::make_unique<Life>(copy_);
}

int Returned::start(const Faults* faults) {
  open_files();
  const SuperState state = super->state();
  if (state.state == DiskState::inconsistent && state.resync == 0) {
    const Result<Tail> back =
        take_back(life->tree, life->ids, *super, options.folder, options.journal_bytes, events);
    if (!back.ok()) return back.error;
  }
  files = std::make_unique<TargetFiles>(life->tree, life->ids, *super, options.folder,
                                        options.journal_bytes, events);
  if (const int error = files->start(); error != 0) return error;
  ApplyingHooks hooks;
  hooks.applied = [this](Lsn lsn) { receiver->applied(lsn); };
  hooks.replayed = [this](Lsn lsn) { receiver->replayed(lsn); };
  hooks.failed = [this](const ApplyFailure& failure) {
    receiver->apply_failed(failure.error, failure.call);
  };
  hooks.checked = [this](const CheckResult& result) {
    receiver->report(result.lsn, Frame::differs,
                     {reinterpret_cast<const uint8_t*>(&result), sizeof result});
  };
  hooks.missing = [this](const Missing& what, Lsn lsn) {
    receiver->report(lsn, Frame::missing, missing_frame(what));
  };
  hooks.synced = [this](const Record& record, const JournalPoint& end) {
    return receiver->synced(record, end);
  };
  ApplyingOptions how;
  const bool inconsistent = super->state().state == DiskState::inconsistent;
  how.mode = inconsistent ? ApplyMode::resync : ApplyMode::replay;
  how.files = files.get();
  how.faults = faults;
  applying = std::make_unique<Applying>(life->tree, life->ids, std::move(hooks), std::move(how));
  files->on_stop([this] { applying->stop(); });
  receiver = std::make_unique<Receiver>(*super, events, *applying, faults);
  ReceiverOptions with = options;
  with.resync = files.get();
  with.unfit = unfit && !inconsistent;
  if (const int error = applying->start(super->state().checkpoint); error != 0) return error;
  return receiver->start(with).error;
}

void Returned::retire() {
  // As the threads of a process end, wherever they are: those that take no more first.
  if (applying) applying->stop();
  receiver.reset();
  applying.reset();
  files.reset();
}

void Returned::kill() {
  retire();
  life.reset();
  super.reset();
}

SuperState Returned::on_disk() const {
  Super opened;
  REQUIRE(opened.open(state_file("super")).ok());
  return opened.state();
}

void Returned::change_super(const std::function<void(SuperState&)>& change) const {
  Super opened;
  REQUIRE(opened.open(state_file("super")).ok());
  SuperState state = opened.state();
  change(state);
  REQUIRE(opened.save(state) == 0);
}

std::string Returned::differences(const History& history) const {
  return test::differences(*life, history);
}

void Source::put(const Bytes& record) {
  out.push_back(record);
}

void Source::change(size_t count) {
  for (; count > 0; count--) {
    const size_t at = history.size();
    history.step();
    const auto raw = history.records(at, at + 1);
    Record record;
    REQUIRE(parse_record(raw, record) == ParseStatus::ok);
    const iovec part{const_cast<uint8_t*>(raw.data()) + sizeof(RecordHead),
                     record.head.payload_size};
    put(stream.record(record.kind, record.head.flags, record.head.file, {&part, 1}));
  }
}

/** The one statement that was made, at this place of the stream. */
void Source::add(const ResyncStream& one) {
  for (size_t i = 0; i < one.size(); i++) {
    const auto raw = one.raw(i);
    Record record;
    REQUIRE(parse_record(raw, record) == ParseStatus::ok);
    const iovec part{const_cast<uint8_t*>(raw.data()) + sizeof(RecordHead),
                     record.head.payload_size};
    put(stream.record(record.kind, record.head.flags, record.head.file, {&part, 1}));
  }
}

void Source::state_inode(FileId id) {
  ResyncStream one;
  one.inode(id, history.nodes.at(id));
  add(one);
}

void Source::state_data(FileId id) {
  ResyncStream one;
  one.data(id, history.nodes.at(id));
  add(one);
}

void Source::state_listing(FileId id) {
  ResyncStream one;
  one.listing(id, history.nodes.at(id));
  add(one);
}

void Source::state_entry(FileId parent, const std::string& name) {
  ResyncStream one;
  one.entry(history, parent, name);
  add(one);
}

void Source::state(FileId id) {
  const auto found = history.nodes.find(id);
  if (found == history.nodes.end() || found->second.links == 0) return;
  if (id > max_root) state_inode(id);
  if (S_ISREG(found->second.mode)) state_data(id);
  if (!found->second.is_folder()) return;
  if (id <= max_root) state_inode(id);
  state_listing(id);
  for (const auto& [name, file] : found->second.names) state_entry(id, name);
}

void Source::state_everything() {
  std::vector<FileId> ids;
  for (const auto& [id, node] : history.nodes) ids.push_back(id);
  for (const FileId id : ids) state(id);
}

void Source::synced(uint64_t run) {
  const SyncedBody body{run, stream.epoch};
  const iovec part{const_cast<SyncedBody*>(&body), sizeof body};
  put(stream.record(Kind::synced, 0, 1, {&part, 1}));
}

bool Source::call(const Returned& to, Lsn applied) {
  REQUIRE(identity_.open(Certificates::get().of("a")).ok());
  const int64_t until = boot_ns() + patience_ns;
  Result<Fd> socket = connect_to("127.0.0.1:" + std::to_string(to.receiver->port()), until, -1);
  REQUIRE(socket.ok());
  channel = std::make_unique<Channel>();
  channel->start(identity_, std::move(socket.value), TlsStream::Side::client, {}, until, -1);
  HelloBody hello{};
  hello.magic = stream_magic;
  hello.version = stream_version;
  std::memcpy(hello.set, to.options.set, sizeof hello.set);
  hello.node = 1;
  hello.epoch = stream.epoch;
  hello.first = base.lsn + 1;
  hello.last = stream.tail.lsn;
  hello.history = static_cast<uint32_t>(epochs.size());
  hello.applied = applied;
  Bytes body(sizeof hello + epochs.size() * sizeof(EpochStart));
  std::memcpy(body.data(), &hello, sizeof hello);
  std::memcpy(body.data() + sizeof hello, epochs.data(), epochs.size() * sizeof(EpochStart));
  channel->post(Frame::hello, body.data(), body.size());
  ack = {};
  ready = 0;
  touched.clear();
  everything = false;
  FrameHead head{};
  if (channel->await(head, until, -1) != 0) return false;
  if (head.type != static_cast<uint32_t>(Frame::welcome)) return false;
  const std::span<const uint8_t> got = channel->control();
  REQUIRE(got.size() >= sizeof welcome);
  std::memcpy(&welcome, got.data(), sizeof welcome);
  told.resize(welcome.history);
  REQUIRE(got.size() == sizeof welcome + told.size() * sizeof(EpochStart));
  if (!told.empty()) {
    std::memcpy(told.data(), got.data() + sizeof welcome, got.size() - sizeof welcome);
  }
  return true;
}

void Source::begin_resync(uint64_t run, Rejoin kind) {
  // What was made before is dirty, and not sent.
  kept.clear();
  forget();
  const ResyncBody body{run, base.lsn, base.epoch, base.chain, static_cast<uint32_t>(kind), 0};
  channel->post(Frame::resync, body);
}

void Source::resume() {
  std::vector<Bytes> again;
  for (const auto& [lsn, record] : kept) {
    if (lsn > welcome.durable) again.push_back(record);
  }
  while (!kept.empty() && kept.back().first > welcome.durable) kept.pop_back();
  out.insert(out.begin(), again.begin(), again.end());
  flush();
}

void Source::flush() {
  Bytes bytes;
  const auto send = [&](Lsn barrier) {
    const int64_t until = boot_ns() + patience_ns;
    Io io = channel->send_records(bytes, barrier);
    while (io == Io::blocked && boot_ns() < until) {
      pollfd wait{channel->fd(), POLLOUT | POLLIN, 0};
      poll(&wait, 1, 1000);
      io = channel->flush();
    }
    bytes.clear();
  };
  Lsn last = kept.empty() ? base.lsn : kept.back().first;
  for (Bytes& record : out) {
    append(bytes, record);
    kept.emplace_back(++last, std::move(record));
    if (bytes.size() > 512 * 1024) send(0);
  }
  out.clear();
  send(last);
}

bool Source::take(int64_t patience) {
  FrameHead head{};
  if (channel->await(head, boot_ns() + patience, -1) != 0) return false;
  const std::span<const uint8_t> body = channel->control();
  switch (static_cast<Frame>(head.type)) {
    case Frame::ack:
      CHECK(channel->body(ack));
      break;
    case Frame::leave:
      CHECK(channel->body(left));
      return false;
    case Frame::missing: {
      MissingBody what{};
      REQUIRE(body.size() >= sizeof what);
      std::memcpy(&what, body.data(), sizeof what);
      missing++;
      if (what.file != 0) lacks.push_back(what.file);
      if (what.parent != 0) {
        lacking_names.emplace_back(
            what.parent,
            std::string(reinterpret_cast<const char*>(body.data()) + sizeof what, what.name_size));
      }
      break;
    }
    case Frame::touched: {
      TouchedBody what{};
      REQUIRE(body.size() >= sizeof what);
      std::memcpy(&what, body.data(), sizeof what);
      everything = everything || what.everything != 0;
      const size_t before = touched.size();
      touched.resize(before + what.count);
      REQUIRE(body.size() == sizeof what + what.count * sizeof(Mark));
      if (what.count > 0) {
        std::memcpy(touched.data() + before, body.data() + sizeof what, what.count * sizeof(Mark));
      }
      break;
    }
    case Frame::ready: {
      ReadyBody what{};
      CHECK(channel->body(what));
      CHECK(what.lsn == base.lsn);
      ready = what.run;
      break;
    }
    case Frame::whole: {
      ReadyBody what{};
      CHECK(channel->body(what));
      whole = what.run;
      whole_at = what.lsn;
      break;
    }
    default:
      break;
  }
  return true;
}

bool Source::await(const std::function<bool()>& there) {
  const int64_t until = boot_ns() + patience_ns;
  while (!there()) {
    if (boot_ns() > until || !take()) return false;
  }
  return true;
}

bool Source::settle() {
  for (;;) {
    flush();
    const Lsn last = stream.tail.lsn;
    if (!await([&] { return ack.applied >= last; })) return false;
    if (lacks.empty() && lacking_names.empty()) return true;
    const std::vector<FileId> files = std::exchange(lacks, {});
    const auto names = std::exchange(lacking_names, {});
    for (const FileId id : files) state(id);
    for (const auto& [parent, name] : names) {
      const auto folder = history.nodes.find(parent);
      if (folder == history.nodes.end() || folder->second.links == 0) continue;
      const auto found = folder->second.names.find(name);
      if (found != folder->second.names.end()) state(found->second);
      state_entry(parent, name);
    }
  }
}

}  // namespace holdfast::replica::test
