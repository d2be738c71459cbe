#include <algorithm>
#include <bit>
#include <cstring>

#include "beat/engine.h"

namespace holdfast::beat {
namespace {

// A proof older than this many own heartbeats is no proof that the peer is alive now.
constexpr uint64_t proof_window = 256;
// Send times beyond this (146 years of uptime) would overflow the arithmetic of the detector.
constexpr uint64_t time_max = uint64_t{1} << 62;

}  // namespace

void Engine::receive(uint32_t lan, const uint8_t* data, size_t size, int64_t arrival, int64_t now) {
  if (!config_.configured() || lan >= config_.lan_count) return;
  Heartbeat beat;
  switch (decode(data, size, config_.cluster, key_, beat)) {
    case WireFault::malformed:
      malformed_++;
      return;
    case WireFault::foreign:
      foreign_++;
      return;
    case WireFault::bad_mac:
      bad_mac_++;
      return;
    case WireFault::none:
      break;
  }
  const WireHeader& header = beat.header;
  const bool addressed = header.to == config_.me && header.lan == lan && header.from < max_nodes &&
                         has_link(lan, header.from);
  if (!addressed) {
    foreign_++;
    return;
  }
  if (header.sent_ns >= time_max || header.next_ns >= time_max || header.boot == 0) {
    malformed_++;
    return;
  }
  Peer& peer = peers_[header.from];
  if (header.boot != peer.boot && !prove_boot(peer, beat, now)) {
    unproven_++;
    return;
  }
  if (header.sequence <= peer.links[lan].sequence) {
    replayed_++;
    return;
  }
  received_++;
  heard(header.from, lan, beat, std::min(arrival, now));
}

uint64_t Engine::proof_of(const Heartbeat& beat) const {
  uint64_t proof = 0;
  if (beat.header.echo_boot == boot_) {
    for (uint32_t i = 0; i < beat.header.lan_count; i++) {
      if (beat.echoes[i].sequence <= sequence_) proof = std::max(proof, beat.echoes[i].sequence);
    }
  }
  if (beat.header.challenge_boot == boot_ && beat.header.challenge_sequence <= sequence_) {
    proof = std::max(proof, beat.header.challenge_sequence);
  }
  return proof;
}

/**
 * A boot other than the accepted one: remembers it, so that the next heartbeat challenges it with
 * what was heard of it, and accepts it when it proves to have heard this node lately. Strictly
 * newer than any proof before, so that no recorded datagram can bring an old boot back.
 */
bool Engine::prove_boot(Peer& peer, const Heartbeat& beat, int64_t now) {
  const WireHeader& header = beat.header;
  if (header.boot == boot_) return false;
  const uint64_t proof = proof_of(beat);
  if (proof <= peer.proven_sequence || proof + proof_window < sequence_) {
    const bool same = header.boot == peer.candidate;
    peer.candidate = header.boot;
    peer.candidate_sequence =
        same ? std::max(peer.candidate_sequence, header.sequence) : header.sequence;
    return false;
  }
  peer.boot = header.boot;
  peer.candidate = peer.candidate_sequence = 0;
  peer.sequence = 0;
  peer.changed = true;
  for (Link& link : peer.links) {
    // The clock of the new boot may be another one; until heard there, a network keeps its state.
    link.detector.reset();
    link.deadline_first = now + config_.suspect_ns + config_.heartbeat_ns;
    link.sequence = link.sent_ns = 0;
  }
  return true;
}

void Engine::heard(uint32_t node, uint32_t lan, const Heartbeat& beat, int64_t arrival) {
  const WireHeader& header = beat.header;
  Peer& peer = peers_[node];
  Link& link = peer.links[lan];
  if (link.sequence > 0) {
    const uint64_t missing = header.sequence - link.sequence - 1;
    link.lost += missing;
    link.longest_burst = static_cast<uint32_t>(
        std::max(uint64_t{link.longest_burst}, std::min(missing, uint64_t{UINT32_MAX})));
  }
  link.sequence = header.sequence;
  link.sent_ns = header.sent_ns;
  link.received++;
  link.detector.heard(arrival, static_cast<int64_t>(header.sent_ns),
                      static_cast<int64_t>(header.next_ns), config_.heartbeat_ns,
                      config_.suspect_ns);
  LeasePeer& lease_peer = lease_peers_[node];
  lease_peer.last_heard_ns = std::max(lease_peer.last_heard_ns, arrival);
  take_echoes(node, lan, beat, arrival);
  if (!link.up || !link.known) {
    link.up = link.known = true;
    emit_lan(node, lan, arrival);
  }
  // The copies of one heartbeat on the other networks say the same.
  if (header.sequence <= peer.sequence) return;
  peer.sequence = header.sequence;
  peer.lateness_us = header.lateness_us;
  const bool hung = (header.flags & wire_flag_hung) != 0;
  peer.changed = peer.changed || hung != peer.hung;
  peer.hung = hung;
  take_modules(node, beat, arrival);
}

void Engine::take_echoes(uint32_t node, uint32_t lan, const Heartbeat& beat, int64_t arrival) {
  Peer& peer = peers_[node];
  peer.proven_sequence = std::max(peer.proven_sequence, proof_of(beat));
  if (beat.header.echo_boot != boot_) return;
  int64_t newest = 0;
  for (uint32_t i = 0; i < beat.header.lan_count; i++) {
    const WireEcho& echo = beat.echoes[i];
    const bool plausible = echo.sequence > 0 && echo.sequence <= sequence_ &&
                           echo.sent_ns <= static_cast<uint64_t>(last_send_);
    if (!plausible) continue;
    const int64_t sent = static_cast<int64_t>(echo.sent_ns);
    newest = std::max(newest, sent);
    if (i != lan) continue;
    Link& link = peer.links[lan];
    const int64_t rtt = std::max(arrival - sent - int64_t{echo.held_us} * ns_per_us, int64_t{0});
    link.rtt_ns = link.rtt_ns == 0 ? rtt : link.rtt_ns + (rtt - link.rtt_ns) / 8;
  }
  if (newest == 0) return;
  lease_peers_[node].echoed_ns = std::max(lease_peers_[node].echoed_ns, newest);
  take_consents(node, beat, newest);
}

void Engine::take_modules(uint32_t node, const Heartbeat& beat, int64_t arrival) {
  Peer& peer = peers_[node];
  const uint32_t count = beat.header.module_count;
  const auto find = [](const WireModule* list, uint32_t n, uint32_t key) -> const WireModule* {
    for (uint32_t i = 0; i < n; i++) {
      if (list[i].key == key) return list + i;
    }
    return nullptr;
  };
  for (uint32_t i = 0; i < peer.module_count; i++) {
    const uint32_t key = peer.modules[i].key;
    if (find(beat.modules, count, key) == nullptr) emit_module(node, {key, 0, 0, 0}, arrival);
  }
  for (uint32_t i = 0; i < count; i++) {
    const WireModule& now = beat.modules[i];
    const WireModule* before = find(peer.modules, peer.module_count, now.key);
    if (before == nullptr || std::memcmp(before, &now, sizeof now) != 0) {
      emit_module(node, now, arrival);
    }
    check_excluded(now);
  }
  std::copy(beat.modules, beat.modules + count, peer.modules);
  peer.module_count = count;
}

/** A heard node announces a later view of a module that runs here, without this node. */
void Engine::check_excluded(const WireModule& theirs) {
  for (uint32_t i = 0; i < module_count_; i++) {
    Module& module = modules_[i];
    const ModuleConfig& ours = module.config;
    if (ours.key != theirs.key || (ours.flags & module_running) == 0) continue;
    const bool without_us =
        theirs.view_members != 0 && (theirs.view_members >> config_.me & 1) == 0;
    if (!without_us) continue;
    // Of two views with one epoch the one with the lower leader counts, the lowest member.
    const bool tie = theirs.view_epoch == ours.view_epoch &&
                     std::countr_zero(theirs.view_members) < std::countr_zero(ours.view_members);
    if (theirs.view_epoch > ours.view_epoch || tie) {
      module.excluded_epoch = std::max(module.excluded_epoch, theirs.view_epoch + (tie ? 1 : 0));
    }
  }
}

}  // namespace holdfast::beat
