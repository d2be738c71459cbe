#include <bit>

#include "beat/engine.h"

namespace holdfast::beat {

void Engine::emit_peer(uint32_t node, int64_t now) {
  const Peer& peer = peers_[node];
  Event event{};
  event.kind = EventKind::peer;
  event.node = static_cast<uint8_t>(node);
  event.value = static_cast<uint8_t>(peer.reach);
  event.hung = peer.hung ? 1 : 0;
  event.boot = peer.boot;
  event.at_ns = static_cast<uint64_t>(now);
  event.heard_ns = static_cast<uint64_t>(lease_peers_[node].last_heard_ns);
  port_.event(event);
}

void Engine::emit_module(uint32_t node, const WireModule& module, int64_t now) {
  Event event{};
  event.kind = EventKind::module;
  event.node = static_cast<uint8_t>(node);
  event.key = module.key;
  event.flags = module.flags;
  event.view_epoch = module.view_epoch;
  event.view_members = module.view_members;
  event.at_ns = static_cast<uint64_t>(now);
  port_.event(event);
}

void Engine::emit_lan(uint32_t node, uint32_t lan, int64_t now) {
  Event event{};
  event.kind = EventKind::lan;
  event.node = static_cast<uint8_t>(node);
  event.lan = static_cast<uint8_t>(lan);
  event.value = peers_[node].links[lan].up ? 1 : 0;
  event.at_ns = static_cast<uint64_t>(now);
  port_.event(event);
}

void Engine::emit_lease(const Module& module, int64_t now) {
  Event event{};
  event.kind = EventKind::lease;
  event.key = module.config.key;
  event.value = module.why == LeaseWhy::ok ? 1 : 0;
  event.why = static_cast<uint8_t>(module.why);
  event.at_ns = static_cast<uint64_t>(now);
  port_.event(event);
}

void Engine::emit_fault(FaultWhat what, uint32_t lan, int error, int64_t now) {
  Event event{};
  event.kind = EventKind::fault;
  event.lan = static_cast<uint8_t>(lan);
  event.value = static_cast<uint8_t>(what);
  event.error = static_cast<uint16_t>(error);
  event.at_ns = static_cast<uint64_t>(now);
  port_.event(event);
}

void Engine::note_send_error(uint32_t lan, int error, int64_t now) {
  if (send_error_[lan] == error) return;
  send_error_[lan] = error;
  emit_fault(FaultWhat::send, lan, error, now);
}

void Engine::resync(int64_t now) {
  for (uint64_t rest = nodes_; rest != 0; rest &= rest - 1) {
    const uint32_t node = static_cast<uint32_t>(std::countr_zero(rest));
    const Peer& peer = peers_[node];
    for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
      if (has_link(lan, node) && peer.links[lan].known) emit_lan(node, lan, now);
    }
    for (uint32_t i = 0; i < peer.module_count; i++) emit_module(node, peer.modules[i], now);
    if (peer.known) emit_peer(node, now);
  }
  for (uint32_t i = 0; i < module_count_; i++) {
    if (modules_[i].reported) emit_lease(modules_[i], now);
  }
  for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
    const int bind_error = config_.lans[lan].bind_error;
    if (bind_error != 0) emit_fault(FaultWhat::bind, lan, bind_error, now);
    if (send_error_[lan] != 0) emit_fault(FaultWhat::send, lan, send_error_[lan], now);
  }
  if (config_.lease_map_error != 0) {
    emit_fault(FaultWhat::lease_map, 0, config_.lease_map_error, now);
  }
}

void Engine::fill(Stats& stats) const {
  stats.boot = boot_;
  stats.sent = sent_;
  stats.send_errors = send_errors_;
  stats.received = received_;
  stats.bad_mac = bad_mac_;
  stats.replayed = replayed_;
  stats.malformed = malformed_;
  stats.foreign = foreign_;
  stats.unproven = unproven_;
  stats.bind_retries = config_.bind_retries;
  stats.leases_renewed = leases_renewed_;
  stats.worst_lateness_us = static_cast<uint64_t>(worst_lateness_ / ns_per_us);
  stats.row_count = 0;
  for (uint64_t rest = nodes_; rest != 0; rest &= rest - 1) {
    const uint32_t node = static_cast<uint32_t>(std::countr_zero(rest));
    for (uint32_t lan = 0; lan < config_.lan_count; lan++) {
      if (!has_link(lan, node)) continue;
      const Link& link = peers_[node].links[lan];
      StatsRow& row = stats.rows[stats.row_count++];
      row = StatsRow();
      row.node = static_cast<uint8_t>(node);
      row.lan = static_cast<uint8_t>(lan);
      row.up = link.up ? 1 : 0;
      row.rtt_us = static_cast<uint32_t>(link.rtt_ns / ns_per_us);
      row.jitter_us = static_cast<uint32_t>(link.detector.jitter() / ns_per_us);
      row.longest_burst = link.longest_burst;
      row.peer_lateness_us = peers_[node].lateness_us;
      row.last_heard_ns = static_cast<uint64_t>(link.detector.last_arrival());
      row.received = link.received;
      row.lost = link.lost;
    }
  }
}

}  // namespace holdfast::beat
