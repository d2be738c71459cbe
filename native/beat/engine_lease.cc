#include <algorithm>
#include <bit>

#include "beat/engine.h"

namespace holdfast::beat {

/** The slots of a module that may run: those of rule off are 0. */
static uint64_t running_slots(const ModuleConfig& config) {
  return config.rule == LeaseRule::off ? 0 : config.slots;
}

/** What is no longer announced, or announced as off, is silent when this returns. */
void Engine::withdraw_leases(const Announcement& next) {
  uint64_t before = 0, after = 0, off = 0;
  for (uint32_t i = 0; i < module_count_; i++) before |= modules_[i].config.slots;
  for (uint32_t i = 0; i < next.count; i++) {
    after |= running_slots(next.modules[i]);
    off |= next.modules[i].slots;
  }
  write_slots((before | off) & ~after, 0);
}

/** What a module keeps of its lease when it is announced otherwise. */
void Engine::change_rule(Module& module, const ModuleConfig& next, int64_t now) {
  const ModuleConfig& was = module.config;
  if (running_slots(next) == 0) module.lease_end = module.listen_until = 0;
  if (next.rule != LeaseRule::view || (next.flags & module_open) == 0) module.must_shut = false;
  if (next.rule == was.rule && next.peer == was.peer) return;
  module.rule_since = now;
  module.consented_ns = 0;
  // Of the two of a running mirror the one goes on where the other was.
  const auto runs = [](LeaseRule rule) {
    return rule == LeaseRule::own || rule == LeaseRule::peer;
  };
  if (!runs(was.rule) || !runs(next.rule)) module.reported = false;
}

void Engine::renew_leases(int64_t now) {
  for (uint32_t i = 0; i < module_count_; i++) {
    Module& module = modules_[i];
    if (module.config.slots == 0 || config_.lease_map == nullptr) continue;
    switch (module.config.rule) {
      case LeaseRule::view:
        renew_by_view(module, now);
        break;
      case LeaseRule::off:
        write_slots(module.config.slots, 0);
        break;
      case LeaseRule::own:
      case LeaseRule::peer:
        renew_of_mirror(module, now);
        break;
    }
  }
}

void Engine::renew_of_mirror(Module& module, int64_t now) {
  const ModuleConfig& ours = module.config;
  const MirrorLeaseInput in = {now,
                               last_send_,
                               static_cast<int64_t>(ours.lease_ns),
                               agent_alive_,
                               config_.agent_deadline_ns,
                               module.consented_ns,
                               module.lease_end};
  const LeaseVerdict verdict =
      ours.rule == LeaseRule::own ? lease_by_own_life(in) : lease_by_consent(in);
  write_slots(ours.slots, verdict.end_ns);
  if (verdict.end_ns > module.lease_end) leases_renewed_++;
  module.lease_end = verdict.end_ns;
  const bool ok = verdict.why == LeaseWhy::ok;
  // The first consent is under way: that it is not here yet is no news.
  const bool early = now < module.rule_since + 2 * config_.heartbeat_ns;
  if (!ok && !module.reported && early) return;
  // Of a lease that has run out the reason is told once: what it was when it did.
  if (module.reported && ok == (module.why == LeaseWhy::ok)) return;
  module.reported = true;
  module.why = verdict.why;
  emit_lease(module, now);
}

void Engine::renew_by_view(Module& module, int64_t now) {
  const ModuleConfig& ours = module.config;
  const Claims claims = claims_on(ours, now);
  const LeaseVerdict verdict =
      lease_verdict({now, last_send_, config_.heartbeat_ns, config_.suspect_ns, config_.lease_ns,
                     hung_ || module.must_shut, config_.me, ours.view_members, ours.view_epoch,
                     module.excluded_epoch, claims.counted_by},
                    lease_peers_);
  if (verdict.why == LeaseWhy::excluded_by_view) {
    write_slots(ours.slots, 0);
    module.lease_end = 0;
  } else if (verdict.why != LeaseWhy::agent_hung) {
    if (now < module.listen_until) return;
    // Silent by now: others may have its clients by a view that its filter does not have yet.
    if (module.lease_end <= now && claims.ahead) return;
    write_slots(ours.slots, verdict.end_ns);
    module.lease_end = verdict.end_ns;
    leases_renewed_++;
  }
  if (module.reported && module.why == verdict.why) return;
  module.reported = true;
  module.why = verdict.why;
  emit_lease(module, now);
}

/**
 * A heartbeat of a peer that echoes what was sent here at `echoed`. What it says itself counts, not
 * what the newest one says: they may arrive out of order, and each was composed as a whole.
 */
void Engine::take_consents(uint32_t node, const Heartbeat& beat, int64_t echoed) {
  for (uint32_t i = 0; i < module_count_; i++) {
    Module& module = modules_[i];
    const ModuleConfig& ours = module.config;
    if (ours.rule != LeaseRule::peer || ours.peer != node) continue;
    for (uint32_t j = 0; j < beat.header.module_count; j++) {
      const WireModule& theirs = beat.modules[j];
      const bool consents = theirs.key == ours.key && (theirs.flags & module_consent) != 0 &&
                            theirs.view_epoch <= ours.view_epoch;
      if (consents) module.consented_ns = std::max(module.consented_ns, echoed);
    }
  }
}

Engine::Claims Engine::claims_on(const ModuleConfig& ours, int64_t now) const {
  Claims claims;
  each_node(nodes_, [&](uint32_t node) {
    const Peer& peer = peers_[node];
    const int64_t heard = lease_peers_[node].last_heard_ns;
    if (heard == 0 || now - heard > config_.suspect_ns || peer.hung) return;
    for (uint32_t i = 0; i < peer.module_count; i++) {
      const WireModule& theirs = peer.modules[i];
      if (theirs.key != ours.key || theirs.view_members == 0) continue;
      const bool open = (theirs.flags & module_open) != 0;
      const bool with_us = (theirs.view_members >> config_.me & 1) != 0;
      if (with_us) claims.counted_by |= uint64_t{1} << node;
      if (theirs.view_epoch > ours.view_epoch || (open && !with_us)) claims.ahead = true;
    }
  });
  return claims;
}

void Engine::write_slots(uint64_t slots, int64_t end) {
  if (config_.lease_map == nullptr) return;
  each_node(slots, [&](uint32_t slot) {
    __atomic_store_n(config_.lease_map + slot, static_cast<uint64_t>(std::max(end, int64_t{0})),
                     __ATOMIC_RELEASE);
  });
}

void Engine::release_leases() {
  for (uint32_t i = 0; i < module_count_; i++) {
    write_slots(modules_[i].config.slots, 0);
    modules_[i].lease_end = modules_[i].listen_until = 0;
  }
}

}  // namespace holdfast::beat
