/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The decision: which server answers this packet, is it this one, and what to do if not.
 * Cheapest first: what belongs to another server costs a rule match, a hash and one byte.
 */
#ifndef HOLDFAST_FARM_DECIDE_BPF_H
#define HOLDFAST_FARM_DECIDE_BPF_H

enum farm_action { FARM_PASS, FARM_ACCEPT, FARM_DROP, FARM_FORWARD, FARM_ANSWER };

struct farm_verdict {
  __u8 action;
  __u8 reason;
  __u8 rule; /* FARM_NONE: none */
  __u8 vip;
  __u8 node;   /* FARM_FORWARD: to whom */
  __u8 second; /* FARM_FORWARD: not to be forwarded again */
  __u8 unused[2];
};

/* The place of a flow, packed: bucket | table << 12 | flags << 16 | rule << 24 | vip << 32 |
 * directed mode << 40. */
#define FARM_PLACE_BUCKET(p) ((p) & (FARM_BUCKETS - 1))
#define FARM_PLACE_TABLE(p) (((p) >> 12) & (FARM_TABLES - 1))
#define FARM_PLACE_FLAGS(p) (((p) >> 16) & 0xff)
#define FARM_PLACE_RULE(p) (((p) >> 24) & 0xff)
#define FARM_PLACE_VIP(p) (((p) >> 32) & (FARM_VIPS - 1))
#define FARM_PLACE_DIRECTED (1ull << 40)
#define FARM_NOWHERE (~0ull)   /* a VIP, but no rule names it */
#define FARM_ELSEWHERE (~1ull) /* no VIP */

/* proto, hash, table and index of a rule in one word. */
#define FARM_RULE_HASH(word) (((word) >> 8) & 0xff)
#define FARM_RULE_TABLE(word) (((word) >> 16) & 0xff)
#define FARM_RULE_INDEX(word) ((word) >> 24)
#define FARM_NO_RULE 0u /* no rule has protocol 0 */

/* The first rule for this VIP, protocol and port (any port when portless), as its word: read from
 * memory, so that the verifier knows nothing of it and goes on once, not once per rule. */
static __always_inline __u32 farm_rule_of(const struct farm_config* c, __u32 vip, __u8 proto,
                                          __u16 port, bool portless) {
  __u32 count = c->rule_count;
  for (__u32 i = 0; i < FARM_RULES && i < count; i++) {
    const struct farm_rule* r = &c->rules[i];
    __u32 word = *(const __u32*)&r->proto;
    if ((__u8)word != proto || !(r->vip_mask & (1u << vip))) continue;
    if (portless || (port >= r->port_low && port <= r->port_high)) return word;
  }
  return FARM_NO_RULE;
}

static __always_inline __u64 farm_pack_place(const struct farm_config* c, __u32 vip, __u32 rule,
                                             __u32 table, __u32 bucket) {
  table &= FARM_TABLES - 1;
  return bucket | (table << 12) | ((__u32)c->flags[table][bucket] << 16) | ((__u64)rule << 24) |
         ((__u64)vip << 32) | ((__u64)c->vips[vip].mode << 40);
}

static __always_inline __u32 farm_bucket_of(const struct farm_config* c, const struct farm_flow* f,
                                            __u16 extra) {
  return f->meta.family == 4 ? farm_bucket4(c->hash_key, f->src[0], extra)
                             : farm_bucket6(c->hash_key, f->src, extra);
}

/*
 * The place of a flow; FARM_NOWHERE when no rule names it. A function of its own for the verifier
 * (checked once, not once per path that leads here).
 *
 * Fragments of UDP and ICMP: all of them, the first included, take the first rule of their protocol
 * whatever its ports and are hashed by address only, so that every server agrees on each of them
 * without remembering anything.
 */
__attribute__((noinline)) __u64 farm_place(const struct farm_flow* f) {
  if (!f) return FARM_NOWHERE;
  const struct farm_config* c = &farm.config[f->meta.side & 1];
  __u32 vip = f->meta.vip & (FARM_VIPS - 1);
  __u8 proto = f->meta.proto;
  bool portless = proto == IPPROTO_ICMP ||
                  (proto == IPPROTO_UDP && f->meta.fragment != FARM_WHOLE) ||
                  f->meta.fragment == FARM_LATER;
  __u32 rule = farm_rule_of(c, vip, proto, bpf_ntohs(f->dport), portless);
  __u16 extra = 0;
  if (rule == FARM_NO_RULE) {
    __u32 table = c->vips[vip].echo_table;
    if (proto != IPPROTO_ICMP || table == FARM_NONE) return FARM_NOWHERE;
    return farm_pack_place(c, vip, FARM_NONE, table, farm_bucket_of(c, f, 0));
  }
  if (FARM_RULE_HASH(rule) == FARM_ON_PORT && !portless) extra = f->sport;
  if (FARM_RULE_HASH(rule) == FARM_ON_IPID) extra = f->ipid;
  return farm_pack_place(c, vip, FARM_RULE_INDEX(rule), FARM_RULE_TABLE(rule),
                         farm_bucket_of(c, f, extra));
}

/* The same for whole TCP and UDP packets of IPv4, VIP look-up included, all in registers.
 * ports: as in the packet; proto_ipid: protocol | identification << 16. */
static __always_inline __u64 farm_place4(__u32 side, __u32 from, __u32 to, __u32 ports,
                                         __u32 proto_ipid) {
  /* A branch that is always predicted, where a multiplication would hold up all that follows. */
  const struct farm_config* c = side & 1 ? &farm.config[1] : &farm.config[0];
  FARM_IN_REGISTER(c); /* or every field gets its own branch */
  __u32 vip = c->vip4[0] == to && to != 0 ? 1 : farm_vip_of4(side, to);
  if (!vip) return FARM_ELSEWHERE;
  vip = (vip - 1) & (FARM_VIPS - 1);
  __u32 rule = farm_rule_of(c, vip, (__u8)proto_ipid, bpf_ntohs((__u16)(ports >> 16)), false);
  if (rule == FARM_NO_RULE) return FARM_NOWHERE;
  __u16 extra = 0;
  if (FARM_RULE_HASH(rule) == FARM_ON_PORT) extra = (__u16)ports;
  if (FARM_RULE_HASH(rule) == FARM_ON_IPID) extra = (__u16)(proto_ipid >> 16);
  return farm_pack_place(c, vip, FARM_RULE_INDEX(rule), FARM_RULE_TABLE(rule),
                         farm_bucket4(c->hash_key, from, extra));
}

/* Node id of a MAC among the other servers, or FARM_NONE. */
__attribute__((noinline)) __u32 farm_peer_of(__u32 side, __u64 mac) {
  const struct farm_config* c = &farm.config[side & 1];
  for (__u32 i = 0; i < FARM_NODES; i++) {
    if (*(const __u64*)&c->macs[i] == mac) return i == c->me ? FARM_NONE : i;
  }
  return FARM_NONE;
}

static __always_inline bool farm_lease_live(const struct farm_config* c, __u32 vip) {
  __u32 slot = c->vips[vip & (FARM_VIPS - 1)].lease_slot;
  __u64* until = bpf_map_lookup_elem(&leases, &slot);
  return until && bpf_ktime_get_boot_ns() < *(volatile __u64*)until;
}

/* The local TCP socket table is the state of connections: does this kernel know this one? 0: no,
 * else the reason to accept. LISTEN sockets count only with a SYN cookie that this kernel made. */
static __always_inline __u8 farm_has_socket(void* ctx, void* data, void* end, __u32 l3,
                                            const struct farm_flow* f, __u8 reason) {
  struct bpf_sock_tuple tuple = {};
  if (f->meta.family == 4) {
    tuple.ipv4.saddr = f->src[0];
    tuple.ipv4.daddr = f->dst[0];
    tuple.ipv4.sport = f->sport;
    tuple.ipv4.dport = f->dport;
  } else {
    __builtin_memcpy(tuple.ipv6.saddr, f->src, 16);
    __builtin_memcpy(tuple.ipv6.daddr, f->dst, 16);
    tuple.ipv6.sport = f->sport;
    tuple.ipv6.dport = f->dport;
  }
  struct bpf_sock* sk = f->meta.family == 4
                            ? bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), -1, 0)
                            : bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), -1, 0);
  if (!sk) return 0;
  __u8 found = reason;
  if (sk->state == BPF_TCP_LISTEN) {
    found = 0;
    struct tcphdr* tcp = farm_at(data, end, f->l4, sizeof(*tcp));
    struct ipv6hdr* ip = farm_at(data, end, l3, sizeof(*ip)); /* IPv4 + TCP have 40 bytes too */
    if (f->meta.kind == FARM_PLAIN && tcp && ip) {
      long bad = f->meta.family == 4
                     ? bpf_tcp_check_syncookie(sk, ip, sizeof(struct iphdr), tcp, sizeof(*tcp))
                     : bpf_tcp_check_syncookie(sk, ip, sizeof(*ip), tcp, sizeof(*tcp));
      if (!bad) found = FARM_REASON_accepted_cookie;
    }
  }
  bpf_sk_release(sk);
  return found;
}

static __always_inline void farm_fragment_key_of(struct farm_fragment_key* key,
                                                 const struct farm_flow* f) {
  __builtin_memcpy(key->src, f->src, 16);
  __builtin_memcpy(key->dst, f->dst, 16);
  key->ident = f->ident;
  key->family = f->meta.family;
}

static __always_inline void farm_drop(struct farm_verdict* v, __u8 reason) {
  v->action = FARM_DROP;
  v->reason = reason;
}

static __always_inline void farm_accept(struct farm_verdict* v, __u8 reason) {
  v->action = FARM_ACCEPT;
  v->reason = reason;
}

/* Later fragments of TCP follow the first, which carried the ports. */
static __always_inline void farm_follow_first(const struct farm_flow* f, struct farm_verdict* v) {
  struct farm_fragment_key key = {};
  farm_fragment_key_of(&key, f);
  struct farm_fragment_fate* fate = bpf_map_lookup_elem(&fragments, &key);
  if (!fate) return farm_drop(v, FARM_REASON_dropped_fragment);
  v->action = fate->action;
  v->node = fate->node;
  v->second = fate->second;
  v->reason = FARM_REASON_accepted_fragment;
  if (v->action == FARM_FORWARD) {
    v->reason = v->second ? FARM_REASON_forwarded_holder : FARM_REASON_forwarded_owner;
  }
}

static __always_inline void farm_remember_first(const struct farm_flow* f,
                                                const struct farm_verdict* v) {
  struct farm_fragment_key key = {};
  farm_fragment_key_of(&key, f);
  struct farm_fragment_fate fate = {.action = v->action, .node = v->node, .second = v->second};
  bpf_map_update_elem(&fragments, &key, &fate, BPF_ANY);
}

static __always_inline __u64 farm_mac_at(const __u8* p) {
  return (__u64) * (const __u16*)p | (__u64) * (const __u16*)(p + 2) << 16 |
         (__u64) * (const __u16*)(p + 4) << 32;
}

/*
 * Directed mode: the frame came to this server, another one answers it. At most two hops: a frame
 * whose source MAC is another server's was forwarded already; it may go on only as a second chance
 * from a new owner without the socket (QUIET) to the previous one, and that hop sets TTL 1, which
 * ends it. See docs/internals/filter.md, "Hops".
 */
static __always_inline void farm_forward(const struct farm_config* c, void* data, void* end,
                                         const struct farm_flow* f, __u64 place, bool second,
                                         struct farm_verdict* v) {
  __u8* eth = farm_at(data, end, 0, sizeof(struct ethhdr));
  if (!eth) return farm_drop(v, FARM_REASON_dropped_malformed);
  __u32 from = farm_peer_of(f->meta.side, farm_mac_at(eth + 6) | 1ull << 48);
  __u32 table = FARM_PLACE_TABLE(place);
  __u32 bucket = FARM_PLACE_BUCKET(place);
  __u32 to = second ? c->holder[table][bucket] : c->owner[table][bucket];
  if (from != FARM_NONE && (!second || f->meta.ttl <= 1 || from == to)) {
    return farm_drop(v, second ? FARM_REASON_dropped_quiet : FARM_REASON_dropped_hop_guard);
  }
  if (to >= FARM_NODES || to == c->me) {
    return farm_drop(v, second ? FARM_REASON_dropped_quiet : FARM_REASON_dropped_foreign);
  }
  if (!c->macs[to].known) return farm_drop(v, FARM_REASON_dropped_no_mac);
  v->action = FARM_FORWARD;
  v->reason = second ? FARM_REASON_forwarded_holder : FARM_REASON_forwarded_owner;
  v->node = to;
  v->second = second;
}

/*
 * The steady state in a short way: whole IPv4 packets without options or VLAN tag, TCP or UDP, to a
 * VIP in invisible mode, decided by the bucket alone. False: take the long way, which decides the
 * same on these packets.
 */
static __always_inline bool farm_shortcut(void* data, void* end, __u32 side,
                                          struct farm_verdict* v) {
  struct ethhdr* eth = data;
  struct iphdr* ip = (void*)(eth + 1);
  struct tcphdr* l4 = (void*)(ip + 1);
  if ((void*)(l4 + 1) > end) return false;
  if (*(__u16*)(data + 12) != bpf_htons(ETH_P_IP) || *(__u8*)ip != 0x45) return false;
  __u32 proto = ip->protocol;
  bool tcp = proto == IPPROTO_TCP;
  if ((ip->frag_off & bpf_htons(0x3fff)) || !(tcp || proto == IPPROTO_UDP)) return false;
  __u64 place = farm_place4(side, ip->saddr, ip->daddr, *(__u32*)l4, proto | (__u32)ip->id << 16);
  if (place == FARM_ELSEWHERE) return true;      /* PASS */
  if (place & FARM_PLACE_DIRECTED) return false; /* also FARM_NOWHERE */
  __u32 flags = FARM_PLACE_FLAGS(place);
  if (tcp && (l4->doff < 5 || flags & (FARM_HOLD | FARM_QUIET))) return false;
  v->vip = FARM_PLACE_VIP(place);
  v->rule = FARM_PLACE_RULE(place);
  v->action = flags & FARM_OWN ? FARM_ACCEPT : FARM_DROP;
  v->reason = flags & FARM_OWN ? FARM_REASON_accepted_own : FARM_REASON_dropped_foreign;
  return true;
}

/* An IP packet to a VIP. */
static __always_inline void farm_decide(void* ctx, void* data, void* end, __u32 l3,
                                        const struct farm_flow* f, struct farm_verdict* v) {
  const struct farm_config* c = &farm.config[f->meta.side & 1];
  bool directed = c->vips[f->meta.vip & (FARM_VIPS - 1)].mode == FARM_DIRECTED;
  if (directed) {
    __u8* eth = farm_at(data, end, 0, sizeof(struct ethhdr));
    if (!eth || farm_mac_at(eth) != farm_mac_at(c->mac)) {
      return farm_drop(v, FARM_REASON_dropped_not_mine);
    }
  }
  bool tcp = f->meta.proto == IPPROTO_TCP;
  if (tcp && f->meta.fragment == FARM_LATER && f->meta.kind == FARM_PLAIN)
    return farm_follow_first(f, v);
  __u64 place = farm_place(f);
  if (place == FARM_NOWHERE) return farm_drop(v, FARM_REASON_dropped_no_rule);
  v->rule = FARM_PLACE_RULE(place);
  __u32 flags = FARM_PLACE_FLAGS(place);
  bool second = false;
  bool fresh = !tcp || (f->meta.kind == FARM_PLAIN &&
                        (f->meta.tcp_flags & (FARM_SYN | FARM_ACK)) == FARM_SYN);
  if (fresh || (flags & (FARM_OWN | FARM_QUIET)) == FARM_OWN) {
    if (flags & FARM_OWN) farm_accept(v, FARM_REASON_accepted_own);
  } else if (flags & (FARM_OWN | FARM_HOLD)) {
    second = flags & FARM_OWN;
    __u8 found = farm_has_socket(ctx, data, end, l3, f,
                                 second ? FARM_REASON_accepted_quiet : FARM_REASON_accepted_hold);
    if (found) farm_accept(v, found);
  }
  if (v->action != FARM_ACCEPT) {
    farm_drop(v, second ? FARM_REASON_dropped_quiet : FARM_REASON_dropped_foreign);
    if (directed) farm_forward(c, data, end, f, place, second, v);
  }
  if (tcp && f->meta.fragment == FARM_FIRST && v->action != FARM_DROP) farm_remember_first(f, v);
}

#endif
