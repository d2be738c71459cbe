#include "beat/control.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace holdfast::beat {
namespace {

constexpr size_t read_size = 16 * 1024;

/** A zero-terminated string of a fixed field; false when the zero is missing. */
bool terminated(const char* text, size_t size) {
  return std::memchr(text, 0, size) != nullptr;
}

}  // namespace

Control::Outcome Control::read(int socket) {
  uint8_t chunk[read_size];
  const ssize_t got = recv(socket, chunk, sizeof chunk, MSG_DONTWAIT);
  if (got == 0) return Outcome::closed;
  if (got < 0) {
    const bool later = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    return later ? Outcome::more : Outcome::closed;
  }
  input_.insert(input_.end(), chunk, chunk + got);
  size_t at = 0;
  while (input_.size() - at >= sizeof(CommandHeader)) {
    CommandHeader header;
    std::memcpy(&header, input_.data() + at, sizeof header);
    if (header.size > command_max) return Outcome::broken;
    if (input_.size() - at < sizeof header + header.size) break;
    const uint8_t* body = input_.data() + at + sizeof header;
    if (!command(static_cast<CommandType>(header.type), body, header.size)) {
      return Outcome::broken;
    }
    at += sizeof header + header.size;
  }
  input_.erase(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(at));
  return Outcome::more;
}

bool Control::command(CommandType type, const uint8_t* data, size_t size) {
  switch (type) {
    case CommandType::hello:
      thread_.request_resync();
      return size == 0;
    case CommandType::configure:
      return configure(data, size);
    case CommandType::announce:
      return size == 0 && thread_.announced();
    case CommandType::ready:
      ready_ = true;
      return size == 0;
  }
  return false;
}

bool Control::take_ready() {
  return std::exchange(ready_, false);
}

bool Control::configure(const uint8_t* data, size_t size) {
  CommandConfigure head;
  if (size < sizeof head) return false;
  std::memcpy(&head, data, sizeof head);
  const bool within = head.me < max_nodes && head.lan_count <= max_lans &&
                      head.peer_count <= max_lans * max_nodes &&
                      head.lease_map_size < lease_map_path_max;
  if (!within) return false;
  const size_t lists = head.lan_count * sizeof(CommandLan) + head.peer_count * sizeof(CommandPeer);
  if (size != sizeof head + lists + head.lease_map_size) return false;
  const bool timing = head.heartbeat_ns >= static_cast<uint64_t>(ns_per_ms) &&
                      head.suspect_ns > head.heartbeat_ns && head.lease_ns >= head.heartbeat_ns &&
                      head.agent_deadline_ns > 0 && head.suspect_ns <= longest_ns &&
                      head.lease_ns <= longest_ns && head.agent_deadline_ns <= longest_ns;
  if (!timing || !parse_lans(head, data + sizeof head)) return false;
  wanted_.cluster = head.cluster;
  std::memcpy(wanted_.key, head.key, sizeof wanted_.key);
  wanted_.me = head.me;
  wanted_.heartbeat_ns = static_cast<int64_t>(head.heartbeat_ns);
  wanted_.suspect_ns = static_cast<int64_t>(head.suspect_ns);
  wanted_.lease_ns = static_cast<int64_t>(head.lease_ns);
  wanted_.agent_deadline_ns = static_cast<int64_t>(head.agent_deadline_ns);
  map_path_.assign(reinterpret_cast<const char*>(data) + sizeof head + lists, head.lease_map_size);
  open_sockets();
  open_map();
  publish();
  return true;
}

bool Control::parse_lans(const CommandConfigure& head, const uint8_t* data) {
  LanConfig lans[max_lans];
  uint16_t ports[max_lans];
  for (uint32_t i = 0; i < head.lan_count; i++, data += sizeof(CommandLan)) {
    CommandLan lan;
    std::memcpy(&lan, data, sizeof lan);
    if (!terminated(lan.local, sizeof lan.local)) return false;
    const auto local = parse_address(lan.local, lan.port);
    if (!local.ok()) return false;
    lans[i].local = local.value;
    ports[i] = lan.port;
  }
  for (uint32_t i = 0; i < head.peer_count; i++, data += sizeof(CommandPeer)) {
    CommandPeer peer;
    std::memcpy(&peer, data, sizeof peer);
    if (!terminated(peer.address, sizeof peer.address) || peer.lan >= head.lan_count ||
        peer.node >= max_nodes || peer.node == head.me) {
      return false;
    }
    LanConfig& lan = lans[peer.lan];
    const auto address = parse_address(peer.address, ports[peer.lan]);
    if (!address.ok() || address.value.plain.sa_family != lan.local.plain.sa_family) return false;
    lan.address[peer.node] = address.value;
    lan.peers |= uint64_t{1} << peer.node;
  }
  wanted_.lan_count = head.lan_count;
  std::copy(std::begin(lans), std::end(lans), wanted_.lans);
  return true;
}

void Control::open_sockets() {
  for (LanSocket& socket : sockets_) socket.used = false;
  for (uint32_t i = 0; i < wanted_.lan_count; i++) {
    LanConfig& lan = wanted_.lans[i];
    const auto same = [&](const LanSocket& s) {
      return !s.used && std::memcmp(&s.local, &lan.local, sizeof lan.local) == 0;
    };
    auto found = std::find_if(sockets_.begin(), sockets_.end(), same);
    if (found == sockets_.end()) {
      sockets_.emplace_back();
      found = std::prev(sockets_.end());
      found->local = lan.local;
    }
    found->used = true;
    if (!found->fd.valid()) {
      auto opened = open_heartbeat_socket(lan.local);
      found->fd = std::move(opened.value);
      found->error = opened.error;
    }
    lan.socket = found->fd.get();
    lan.bind_error = found->error;
  }
  for (auto it = sockets_.begin(); it != sockets_.end();) {
    if (it->used) {
      ++it;
      continue;
    }
    retired_.push_back({generation_ + 1, std::move(it->fd), nullptr});
    it = sockets_.erase(it);
  }
}

void Control::open_map() {
  auto opened =
      map_path_.empty() ? Result<LeaseMap>::success({}) : open_lease_map(map_path_.c_str());
  wanted_.lease_map_error = opened.error;
  if (opened.value.id == map_.id) {
    close_lease_map(opened.value.words);
  } else {
    retired_.push_back({generation_ + 1, Fd(), map_.words});
    map_ = opened.value;
  }
  wanted_.lease_map = map_.words;
}

void Control::publish() {
  wanted_.generation = ++generation_;
  thread_.config_draft() = wanted_;
  thread_.publish_config();
}

bool Control::wants_retry() const {
  if (wanted_.lease_map_error != 0) return true;
  return std::any_of(sockets_.begin(), sockets_.end(),
                     [](const LanSocket& socket) { return !socket.fd.valid(); });
}

void Control::retry() {
  if (!wants_retry()) return;
  wanted_.bind_retries++;
  open_sockets();
  open_map();
  publish();
}

void Control::sweep() {
  const uint64_t in_use = thread_.generation();
  for (auto it = retired_.begin(); it != retired_.end();) {
    if (it->generation > in_use) {
      ++it;
      continue;
    }
    close_lease_map(it->words);
    it = retired_.erase(it);
  }
}

}  // namespace holdfast::beat
