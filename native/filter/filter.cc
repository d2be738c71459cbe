#include "filter/filter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"
#include "filter/pins.h"

namespace holdfast::filter {

namespace {

/* A packet is in the program for microseconds; 4 ms also covers a short steal of the CPU by a
 * hypervisor. (An RCU grace period would be exact, and takes 16 ms.) */
constexpr int64_t buffer_rest_ns = 4 * ns_per_ms;

const char* check(const farm_config& c) {
  if (c.vip_count > FARM_VIPS || c.rule_count > FARM_RULES || c.table_count > FARM_TABLES) {
    return "more VIPs, rules or tables than the filter holds";
  }
  if (c.me >= FARM_NODES) return "node id out of range";
  for (unsigned i = 0; i < c.vip_count; i++) {
    const farm_vip& v = c.vips[i];
    if (v.lease_slot >= FARM_LEASES || v.mode > FARM_DIRECTED ||
        (v.arp_table != FARM_NONE && v.arp_table >= c.table_count) ||
        (v.echo_table != FARM_NONE && v.echo_table >= c.table_count)) {
      return "a VIP names a lease, mode or table that does not exist";
    }
  }
  for (unsigned i = 0; i < c.rule_count; i++) {
    const farm_rule& r = c.rules[i];
    if (r.proto == 0 || r.table >= c.table_count || r.hash > FARM_ON_IPID ||
        r.port_low > r.port_high) {
      return "a rule names a protocol, table, hash or port range that does not exist";
    }
  }
  return nullptr;
}

void copy_tables(uint8_t (*to)[FARM_BUCKETS], const uint8_t (*from)[FARM_BUCKETS], unsigned count) {
  memcpy(to, from, size_t{count} * FARM_BUCKETS);
}

}  // namespace

std::unique_ptr<Filter> Filter::open(const OpenOptions& options, std::string* why) {
  std::unique_ptr<Filter> filter(new Filter());
  if (!read_device(options.device, &filter->device_, why)) return nullptr;
  uint64_t hash = hash_file(options.object_path);
  if (options.hook == "none") {
    LIBBPF_OPTS(bpf_map_create_opts, map, .map_flags = BPF_F_MMAPABLE);
    filter->leases_.reset(
        bpf_map_create(BPF_MAP_TYPE_ARRAY, "leases", 4, sizeof(__u64), FARM_LEASES, &map));
    if (!load_object(options.object_path, filter->leases_.get(), &filter->object_, why)) {
      return nullptr;
    }
    return filter;
  }
  std::string note;
  if (!ensure_bpffs(options.pin_dir, &note, why)) return nullptr;
  filter->dir_ = device_dir(options.pin_dir, options.device);
  if (mkdir(filter->dir_.c_str(), 0700) != 0 && errno != EEXIST) {
    *why = sentence("cannot make the folder " + filter->dir_, errno);
    return nullptr;
  }
  filter->leases_ = open_leases(options.pin_dir, why);
  if (!filter->leases_.valid()) return nullptr;
  if (filter->adopt(hash)) return filter;
  bool taking_over = filter->attached_;
  if (!load_object(options.object_path, filter->leases_.get(), &filter->object_, why)) {
    return nullptr;
  }
  if (taking_over) {
    filter->pending_ = true;
    return filter;
  }
  if (!note.empty()) filter->reasons_.push_back(note);
  if (!filter->attach(options.hook, why)) return nullptr;
  return filter;
}

/* True: everything is as an earlier process of this version left it. False with attached_: another
 * version is attached and goes on until the first commit. */
bool Filter::adopt(uint64_t hash) {
  FarmObject found;
  bool same = adopt_object(dir_, hash, &found);
  link_ = open_pin(dir_ + "/xdp_link");
  if (link_.valid()) {
    if (!link_is_on(link_.get(), device_.index)) {
      link_.reset();
      unlink((dir_ + "/xdp_link").c_str());
      return false;
    }
    hook_ = query_xdp(device_.index).hook;
  } else {
    uint32_t there = query_tc(device_.index, Direction::ingress);
    if (there == 0 || !found.tc.valid() || there != program_id(found.tc.get())) return false;
    hook_ = Hook::tc;
  }
  attached_ = true;
  if (!same || query_tc(device_.index, Direction::egress) != program_id(found.egress.get())) {
    return false;
  }
  object_ = std::move(found);
  adopted_ = true;
  std::string text(object_.state.get()->reasons,
                   strnlen(object_.state.get()->reasons, FARM_REASONS_TEXT));
  for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    reasons_.push_back(text.substr(at, end - at));
  }
  return true;
}

void Filter::remember_reasons() {
  std::string text;
  for (const std::string& reason : reasons_) text += reason + "\n";
  size_t length = std::min<size_t>(text.size(), FARM_REASONS_TEXT - 1);
  memcpy(object_.state.get()->reasons, text.data(), length);
  object_.state.get()->reasons[length] = 0;
}

/* The guard first, then the filter: with no VIP configured both pass everything. */
bool Filter::attach(const std::string& wanted, std::string* why) {
  if (!attach_tc(device_, object_.egress.get(), Direction::egress, why)) return false;
  for (Hook hook : {Hook::xdp_native, Hook::xdp_generic}) {
    if (wanted != "auto" && wanted != hook_name(hook)) continue;
    std::string refusal = object_.xdp_refused;
    if (object_.xdp.valid()) link_ = attach_xdp(device_, object_.xdp.get(), hook, &refusal);
    if (link_.valid()) {
      hook_ = hook;
      break;
    }
    if (reasons_.empty() || reasons_.back() != refusal) reasons_.push_back(refusal);
    *why = refusal;
  }
  if (!link_.valid()) {
    if (wanted != "auto" && wanted != "tc") {
      detach();
      return false;
    }
    hook_ = Hook::tc;
  }
  int ingress = hook_ == Hook::tc ? object_.tc.get() : object_.host.get();
  remember_reasons();
  attached_ = attach_tc(device_, ingress, Direction::ingress, why) &&
              pin_object(object_, dir_, why) &&
              (!link_.valid() || replace_pin(link_.get(), dir_ + "/xdp_link", why));
  if (!attached_) detach();
  return attached_;
}

/* Programs of another version give way to ours, each by one atomic step; ours already have their
 * configuration, so no packet finds a filter without VIPs. */
bool Filter::replace(std::string* why) {
  if (hook_ != Hook::tc) {
    if (!object_.xdp.valid()) {
      *why = object_.xdp_refused;
      return false;
    }
    int error = bpf_link_update(link_.get(), object_.xdp.get(), nullptr);
    if (error != 0) {
      *why = sentence("the XDP program on " + device_.name + " cannot be replaced", -error);
      return false;
    }
  }
  int ingress = hook_ == Hook::tc ? object_.tc.get() : object_.host.get();
  remember_reasons();
  pending_ = !(attach_tc(device_, ingress, Direction::ingress, why) &&
               attach_tc(device_, object_.egress.get(), Direction::egress, why) &&
               pin_object(object_, dir_, why));
  return !pending_;
}

bool Filter::commit(std::span<const uint8_t> bytes, std::string* why) {
  if (bytes.size() != sizeof(farm_config)) {
    *why = "the configuration has the size of another version";
    return false;
  }
  const farm_config& config = *reinterpret_cast<const farm_config*>(bytes.data());
  if (const char* refusal = check(config)) {
    *why = refusal;
    return false;
  }
  Device now;
  if (!dir_.empty()) {
    if (!read_device(device_.name, &now, why)) return false;
    device_.mac = now.mac;
  }
  farm_state* state = object_.state.get();
  int64_t wait = static_cast<int64_t>(state->flipped_ns) + buffer_rest_ns - boot_ns();
  if (wait > 0 && wait <= buffer_rest_ns) {
    timespec rest = to_timespec(wait);
    nanosleep(&rest, nullptr);
  }
  int64_t began = boot_ns();
  uint32_t idle = (state->side & 1) ^ 1;
  farm_config& next = state->config[idle];
  memcpy(&next, &config, offsetof(farm_config, flags));
  copy_tables(next.flags, config.flags, config.table_count);
  copy_tables(next.owner, config.owner, config.table_count);
  copy_tables(next.holder, config.holder, config.table_count);
  if (!dir_.empty()) memcpy(next.mac, device_.mac.data(), sizeof(next.mac));
  for (unsigned i = 0; i < next.rule_count; i++) next.rules[i].index = static_cast<__u8>(i);
  for (unsigned i = 0; i < next.vip_count; i++) {
    if (next.vips[i].mode == FARM_DIRECTED) memcpy(next.vips[i].farm_mac, next.mac, 6);
  }
  __atomic_store_n(&state->side, idle, __ATOMIC_RELEASE);
  int64_t ended = boot_ns();
  state->flipped_ns = static_cast<uint64_t>(ended);
  state->commits++;
  last_copy_ns_ = ended - began;
  return pending_ ? replace(why) : true;
}

bool Filter::counters(farm_counters* sum, std::string* why) const {
  memset(sum, 0, sizeof(*sum));
  int cpus = libbpf_num_possible_cpus();
  std::vector<farm_counters> each(cpus > 0 ? static_cast<size_t>(cpus) : 0);
  __u32 zero = 0;
  if (each.empty() || bpf_map_lookup_elem(object_.counters.get(), &zero, each.data()) != 0) {
    *why = sentence("cannot read the filter's counters", errno);
    return false;
  }
  for (const farm_counters& cpu : each) {
    for (unsigned i = 0; i < FARM_REASON_COUNT; i++) sum->reasons[i] += cpu.reasons[i];
    for (unsigned i = 0; i < FARM_RULES; i++) {
      sum->rules[i].accepted += cpu.rules[i].accepted;
      sum->rules[i].dropped += cpu.rules[i].dropped;
    }
  }
  return true;
}

farm_claim Filter::claim(uint32_t vip) const {
  const farm_state* state = object_.state.get();
  if (vip >= FARM_VIPS) return {};
  farm_claim claim{};
  claim.at_ns = __atomic_load_n(&state->claims[vip].at_ns, __ATOMIC_ACQUIRE);
  memcpy(claim.mac, state->claims[vip].mac, sizeof claim.mac);
  // Before that the place was another address's, for all that is known.
  const uint64_t since = state->flipped_ns + static_cast<uint64_t>(buffer_rest_ns);
  return claim.at_ns > since ? claim : farm_claim{};
}

void Filter::detach() {
  if (dir_.empty()) return;
  unlink((dir_ + "/xdp_link").c_str());
  /* Whoever else holds the link open (a process of ours that is about to end) does not matter. */
  if (link_.valid()) bpf_link_detach(link_.get());
  link_.reset();
  detach_tc(device_, Direction::ingress);
  detach_tc(device_, Direction::egress);
  unpin_object(dir_);
  rmdir(dir_.c_str());
  attached_ = false;
}

}  // namespace holdfast::filter
