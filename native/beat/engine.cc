#include "beat/engine.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace holdfast::beat {
namespace {

bool same_address(const SocketAddress& a, const SocketAddress& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

bool Engine::same_identity(const Config& config) const {
  return config_.configured() && config_.me == config.me && config_.cluster == config.cluster &&
         std::memcmp(config_.key, config.key, sizeof config.key) == 0;
}

void Engine::configure_link(const Config& config, uint32_t lan, uint32_t node, int64_t now) {
  const LanConfig& was = config_.lans[lan];
  const LanConfig& is = config.lans[lan];
  const bool exists = lan < config.lan_count && (is.peers >> node & 1) != 0;
  const bool existed = lan < config_.lan_count && (was.peers >> node & 1) != 0;
  if (exists && existed && same_address(was.local, is.local) &&
      same_address(was.address[node], is.address[node])) {
    return;
  }
  Link& link = peers_[node].links[lan];
  Link fresh;
  // What was heard once stays refused: an address that changes must not open a door for replays.
  fresh.sequence = link.sequence;
  fresh.sent_ns = link.sent_ns;
  if (exists) fresh.deadline_first = now + config.suspect_ns + config.heartbeat_ns;
  link = fresh;
}

/** A peer that is not known (any more): only what it echoes from now on proves a boot of it. */
void Engine::forget(uint32_t node) {
  peers_[node] = Peer();
  peers_[node].proven_sequence = sequence_;
  lease_peers_[node] = LeasePeer();
}

void Engine::configure(const Config& config, int64_t now) {
  if (config.lease_map != config_.lease_map) release_leases();
  if (!same_identity(config)) {
    for (uint32_t node = 0; node < max_nodes; node++) forget(node);
    config_.lan_count = 0;
    nodes_ = 0;
  }
  uint64_t nodes = 0;
  for (uint32_t lan = 0; lan < config.lan_count; lan++) nodes |= config.lans[lan].peers;
  each_node(nodes_ & ~nodes, [&](uint32_t node) { forget(node); });
  each_node(nodes, [&](uint32_t node) {
    for (uint32_t lan = 0; lan < max_lans; lan++) configure_link(config, lan, node, now);
  });
  if (config.heartbeat_ns != config_.heartbeat_ns) next_send_ = now;
  for (uint32_t lan = 0; lan < max_lans; lan++) {
    const int was = lan < config_.lan_count ? config_.lans[lan].bind_error : 0;
    const int is = lan < config.lan_count ? config.lans[lan].bind_error : 0;
    if (was != is) emit_fault(FaultWhat::bind, lan, is, now);
    if (lan >= config.lan_count) send_error_[lan] = 0;
  }
  if (config.lease_map_error != config_.lease_map_error) {
    emit_fault(FaultWhat::lease_map, 0, config.lease_map_error, now);
  }
  config_ = config;
  nodes_ = nodes;
  key_ = HmacSha256(config.key, sizeof config.key);
}

void Engine::announce(const Announcement& announcement, int64_t now) {
  bool changed = announcement.count != module_count_;
  withdraw_leases(announcement);
  Module next[max_modules];
  for (uint32_t i = 0; i < announcement.count; i++) {
    const ModuleConfig& config = announcement.modules[i];
    for (uint32_t j = 0; j < module_count_; j++) {
      if (modules_[j].config.key == config.key) next[i] = modules_[j];
    }
    // The agent knows a view at least as new as the one that excluded this node.
    if (config.view_epoch >= next[i].excluded_epoch) next[i].excluded_epoch = 0;
    change_rule(next[i], config, now);
    next[i].config = config;
    changed = changed || i >= module_count_ ||
              std::memcmp(&modules_[i].config, &config, sizeof config) != 0;
  }
  std::copy(next, next + announcement.count, modules_);
  module_count_ = announcement.count;
  each_node(nodes_, [&](uint32_t node) {
    const Peer& peer = peers_[node];
    if (peer.reach == Reach::silent) return;
    for (uint32_t i = 0; i < peer.module_count; i++) check_excluded(peer.modules[i]);
  });
  if (changed && config_.configured()) send_all(now);
}

void Engine::woke(int64_t now) {
  if (!config_.configured()) return;
  if (now - recent_since_ > 30 * ns_per_s) {
    recent_lateness_[1] = recent_lateness_[0];
    recent_lateness_[0] = 0;
    recent_since_ = now;
  }
  const int64_t late = planned_ > 0 ? now - planned_ : 0;
  if (late <= 0) return;
  worst_lateness_ = std::max(worst_lateness_, late);
  recent_lateness_[0] = std::max(recent_lateness_[0], late);
  if (late <= config_.heartbeat_ns) return;
  // A late observer doubts itself: what it missed may still be under way.
  doubt_until_ = now + config_.heartbeat_ns;
  for (uint32_t i = 0; i < module_count_; i++) {
    Module& module = modules_[i];
    // The VIP has been silent and others may have it by now: hear them before taking it up again.
    if (module.lease_end > 0 && module.lease_end <= now) {
      module.listen_until = now + 2 * config_.heartbeat_ns;
    }
  }
}

void Engine::tick(int64_t now, int64_t agent_alive, bool may_judge) {
  if (!config_.configured()) return;
  agent_alive_ = agent_alive;
  hung_ = now - std::min(agent_alive, now) > config_.agent_deadline_ns;
  for (uint32_t i = 0; hung_ && i < module_count_; i++) {
    const ModuleConfig& ours = modules_[i].config;
    if (ours.rule == LeaseRule::view && (ours.flags & module_open) != 0)
      modules_[i].must_shut = true;
  }
  if (may_judge) judged_at_ = now;
  // Put off, not called off: a flood must not hide that a peer is gone.
  const bool put_off = !may_judge && now - judged_at_ <= 2 * config_.heartbeat_ns;
  const bool may_suspect = !put_off && now >= doubt_until_;
  each_node(nodes_, [&](uint32_t node) { judge(node, now, may_suspect); });
  if (now >= next_send_) {
    next_send_ += config_.heartbeat_ns;
    if (next_send_ <= now) next_send_ = now + config_.heartbeat_ns;
    send_all(now);
  }
  renew_leases(now);
  // A deadline that was put off lies in the past: waiting for it is no lateness.
  planned_ = std::max(next_wake(), now);
}

int64_t Engine::next_wake() const {
  int64_t wake = next_send_;
  each_node(nodes_, [&](uint32_t node) {
    const Peer& peer = peers_[node];
    for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
      const Link& link = peer.links[lan];
      if (has_link(lan, node) && (link.up || !link.known)) {
        wake = std::min(wake, std::max(silent_at(link), doubt_until_));
      }
    }
  });
  return wake;
}

void Engine::judge(uint32_t node, int64_t now, bool may_suspect) {
  Peer& peer = peers_[node];
  bool any_up = false, all_known = true;
  for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
    if (!has_link(lan, node)) continue;
    Link& link = peer.links[lan];
    if ((link.up || !link.known) && may_suspect && now >= silent_at(link)) {
      link.up = false;
      link.known = true;
      emit_lan(node, lan, now);
    }
    any_up = any_up || link.up;
    all_known = all_known && link.known;
  }
  if (!any_up && !all_known) return;
  // By the time of its last heartbeat, not by now: a peer that dies was heard to the end.
  const LeasePeer& said = lease_peers_[node];
  const bool echoed = said.last_heard_ns < said.echoed_ns + config_.suspect_ns;
  const Reach reach = !any_up ? Reach::silent : echoed ? Reach::both : Reach::heard;
  if (peer.known && !peer.changed && reach == peer.reach) return;
  if (reach == Reach::silent && peer.reach != Reach::silent) {
    peer.mute_until = now + 2 * config_.heartbeat_ns;
  }
  peer.known = true;
  peer.changed = false;
  peer.reach = reach;
  emit_peer(node, now);
}

void Engine::compose(uint32_t node, int64_t now, Heartbeat& beat) const {
  const Peer& peer = peers_[node];
  WireHeader& header = beat.header;
  header = WireHeader();
  header.flags = hung_ ? wire_flag_hung : 0;
  header.lan_count = static_cast<uint8_t>(config_.lan_count);
  header.module_count = static_cast<uint8_t>(module_count_);
  header.cluster = config_.cluster;
  header.from = static_cast<uint8_t>(config_.me);
  header.to = static_cast<uint8_t>(node);
  const int64_t lateness_us = std::max(recent_lateness_[0], recent_lateness_[1]) / ns_per_us;
  header.lateness_us = static_cast<uint32_t>(std::min(lateness_us, int64_t{UINT32_MAX}));
  header.boot = boot_;
  header.sequence = sequence_;
  header.sent_ns = static_cast<uint64_t>(now);
  header.next_ns = static_cast<uint64_t>(next_send_);
  // An echo would give it its lease back while the agent is giving its clients away.
  header.echo_boot = now < peer.mute_until ? 0 : peer.boot;
  header.challenge_boot = peer.candidate;
  header.challenge_sequence = peer.candidate_sequence;
  for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
    const Link& link = peer.links[lan];
    const int64_t held = link.sequence > 0 ? now - link.detector.last_arrival() : 0;
    beat.echoes[lan] = {
        link.sequence, link.sent_ns,
        static_cast<uint32_t>(std::clamp(held / ns_per_us, int64_t{0}, int64_t{UINT32_MAX})), 0};
  }
  for (uint32_t i = 0; i < module_count_; i++) {
    const ModuleConfig& module = modules_[i].config;
    beat.modules[i] = {module.key, module.flags, module.view_epoch, module.view_members};
  }
}

void Engine::send_all(int64_t now) {
  sequence_++;
  // Also when a network refuses: the lease says that this thread runs, the echo that it is heard.
  last_send_ = now;
  int errors[max_lans] = {};
  Heartbeat beat;
  uint8_t datagram[wire_max_size];
  each_node(nodes_, [&](uint32_t node) {
    compose(node, now, beat);
    for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
      if (!has_link(lan, node) || config_.lans[lan].socket < 0) continue;
      beat.header.lan = static_cast<uint8_t>(lan);
      const size_t size = encode(beat, key_, datagram);
      const int error = port_.send(lan, node, datagram, size);
      if (error == 0) {
        sent_++;
      } else {
        send_errors_++;
        errors[lan] = error;
      }
    }
  });
  for (uint32_t lan = 0; lan < config_.lan_count; lan++) note_send_error(lan, errors[lan], now);
}

}  // namespace holdfast::beat
