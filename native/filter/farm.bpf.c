/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * The farm's packet filter. On every server of a farm it sees every packet to a VIP and lets
 * exactly one server answer it. Four programs: farm_xdp     ingress, XDP native or generic farm_tc
 * ingress, tc clsact, where XDP cannot be had: the same decisions farm_host    tc ingress beside
 * farm_xdp: frames whose MAC was rewritten count as ours farm_egress  tc egress: nothing leaves
 * from a VIP with the wrong MAC or after its lease Layout and limits: farm_abi.h. Why it is as it
 * is: docs/internals/filter.md.
 */
/* The order matters: the libbpf headers take their types from linux/bpf.h. */
/* clang-format off */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "farm_abi.h"
#include "farm_hash.h"
/* clang-format on */

/* RFC 792 (linux/icmp.h would draw in the C library) and RFC 4861. */
#define FARM_ICMP_HEADER 8u
#define FARM_ICMP_UNREACHABLE 3
#define FARM_ICMP_QUENCH 4
#define FARM_ICMP_REDIRECT 5
#define FARM_ICMP_EXCEEDED 11
#define FARM_ICMP_PARAMETER 12
#define FARM_ND_FIRST 133
#define FARM_ND_NS 135
#define FARM_ND_NA 136
#define FARM_ND_LAST 137

struct farm_state farm;

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, FARM_LEASES);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, __u64);
} leases SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct farm_counters);
} counters SEC(".maps");

/* Who takes the later fragments of a TCP packet: the fate of the first. */
struct farm_fragment_key {
  __u32 src[4];
  __u32 dst[4];
  __u32 ident;
  __u32 family;
};

struct farm_fragment_fate {
  __u8 action;
  __u8 node;
  __u8 second;
  __u8 unused;
};

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, FARM_FRAGMENTS);
  __type(key, struct farm_fragment_key);
  __type(value, struct farm_fragment_fate);
} fragments SEC(".maps");

/* Keeps the compiler from checking one copy of a value and using another. */
#define FARM_IN_REGISTER(x) asm volatile("" : "+r"(x))

/* Returns what it is given. A call to a global function, of whose result the verifier assumes
 * nothing: it then checks what follows once, not once per path that led there. */
__attribute__((noinline)) __u64 farm_opaque(__u64 value) {
  FARM_IN_REGISTER(value); /* or the compiler would see through it */
  return value;
}

/* clang-format off */
#include "farm_flow.bpf.h"
#include "farm_decide.bpf.h"
#include "farm_neighbour.bpf.h"
/* clang-format on */

static __always_inline void farm_count(const struct farm_verdict* v) {
  __u32 zero = 0;
  struct farm_counters* n = bpf_map_lookup_elem(&counters, &zero);
  if (!n) return;
  __u64 reason = v->reason;
  __u64 rule = v->rule;
  FARM_IN_REGISTER(reason);
  FARM_IN_REGISTER(rule);
  if (reason < FARM_REASON_COUNT) n->reasons[reason]++;
  if (rule >= FARM_RULES) return;
  if (v->action == FARM_ACCEPT) {
    n->rules[rule].accepted++;
  } else {
    n->rules[rule].dropped++;
  }
}

/* Reads an IPv4 packet. True: it is for a VIP and to be decided; false: the verdict stands (PASS
 * when it has nothing to do with a VIP). */
static __always_inline bool farm_read4(void* data, void* end, __u32 l3, struct farm_flow* f,
                                       struct farm_verdict* v) {
  struct iphdr* ip = farm_at(data, end, l3, sizeof(*ip));
  if (!ip) return false;
  __u32 vip = farm_vip_of4(f->meta.side, ip->daddr);
  if (!vip) return false;
  f->meta.vip = v->vip = (__u8)(vip - 1);
  if (farm_flow4(data, end, ip, l3, f)) return true;
  farm_drop(v, FARM_REASON_dropped_malformed);
  return false;
}

static __always_inline bool farm_read6(void* data, void* end, __u32 l3, struct farm_flow* f,
                                       struct farm_verdict* v) {
  struct ipv6hdr* ip = farm_at(data, end, l3, sizeof(*ip));
  if (!ip) return false;
  __u32 dst[4];
  farm_copy6(dst, &ip->daddr);
  __u32 vip = farm_vip_of6_words(f->meta.side, dst);
  bool group = (dst[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
  if (!vip && !(group && ip->nexthdr == IPPROTO_ICMPV6)) return false;
  f->meta.vip = v->vip = vip ? (__u8)(vip - 1) : 0;
  bool well = farm_flow6(data, end, ip, l3, f);
  f->meta.word = farm_opaque(f->meta.word);
  f->l4 = (__u32)farm_opaque(f->l4);
  bool neighbour = f->meta.kind == FARM_SOLICIT || f->meta.kind == FARM_NEIGHBOUR;
  if (!vip) {
    if (well && neighbour) farm_decide_nd(data, end, f, v);
    return false;
  }
  if (well && !neighbour) return true;
  if (well && f->meta.kind == FARM_NEIGHBOUR) {
    farm_accept(v, FARM_REASON_accepted_neighbour);
    return false;
  }
  farm_drop(v, FARM_REASON_dropped_malformed); /* also a solicitation whose target is no VIP */
  if (well) farm_decide_nd(data, end, f, v);
  return false;
}

/* TTL 1: this frame is not to be forwarded again (farm_forward). */
static __always_inline int farm_last_hop(void* ctx, const bool tc, void* data, void* end, __u32 l3,
                                         const struct farm_flow* f) {
  if (f->meta.family == 6) {
    __u8 one = 1;
    return farm_put(ctx, tc, l3 + offsetof(struct ipv6hdr, hop_limit), &one, 1);
  }
  struct iphdr* ip = farm_at(data, end, l3, sizeof(*ip));
  if (!ip) return -1;
  struct {
    __u8 ttl, proto;
    __u16 check;
  } word = {1, ip->protocol, 0};
  /* RFC 1624, equation 3, on the word that holds TTL and protocol. */
  __u32 old = *(__u16*)&ip->ttl;
  __u32 sum = (__u16)~ip->check + (__u16)~old + *(__u16*)&word;
  word.check = farm_fold(sum);
  return farm_put(ctx, tc, l3 + offsetof(struct iphdr, ttl), &word, sizeof(word));
}

/* What is not dropped: checks the lease, rewrites, counts. */
static __always_inline int farm_carry_out(void* ctx, const bool tc, void* data, void* end, __u32 l3,
                                          const struct farm_flow* f,
                                          const struct farm_verdict* decided) {
  union {
    struct farm_verdict verdict;
    __u64 word;
  } u = {};
  u.verdict = *decided;
  u.word = farm_opaque(u.word);
  struct farm_verdict v = u.verdict;
  const struct farm_config* c = &farm.config[f->meta.side & 1];
  int failed = 0;
  if (!farm_lease_live(c, v.vip)) {
    farm_drop(&v, FARM_REASON_dropped_lease);
  } else if (v.action == FARM_ACCEPT) {
    failed = farm_put(ctx, tc, 0, c->mac, 6);
    if (tc) bpf_skb_change_type(ctx, PACKET_HOST);
  } else if (v.action == FARM_FORWARD) {
    if (v.second) failed = farm_last_hop(ctx, tc, data, end, l3, f);
    failed |= farm_put_macs(ctx, tc, c->macs[v.node & (FARM_NODES - 1)].mac, c->mac);
  } else if (v.action == FARM_ANSWER) {
    failed = v.reason == FARM_REASON_answered_arp
                 ? farm_answer_arp(ctx, tc, data, end, f->meta.side, l3, v.vip)
                 : farm_answer_nd(ctx, tc, data, end, l3, f, v.vip);
  }
  if (failed) farm_drop(&v, FARM_REASON_dropped_malformed);
  farm_count(&v);
  return v.action == FARM_ACCEPT ? FARM_PASS : v.action;
}

/*
 * Ingress, both hooks. Returns the action that is left to the hook: FARM_PASS, FARM_DROP, or
 * FARM_ANSWER and FARM_FORWARD: send the frame out of the same device.
 */
static __always_inline int farm_ingress(void* ctx, const bool tc, void* data, void* end) {
  struct farm_verdict v = {.action = FARM_PASS, .reason = FARM_REASON_COUNT, .rule = FARM_NONE};
  __u32 side = *(volatile __u32*)&farm.side & 1;
  __u32 l3 = 0;
  bool decide = false;
  bool decided = farm_shortcut(data, end, side, &v);
  if (decided && v.action == FARM_DROP) {
    farm_count(&v);
    return FARM_DROP;
  }
  struct farm_flow f = {.meta.side = (__u8)side};
  if (!decided) {
    switch (farm_ether(data, end, &l3)) {
      case ETH_P_IP:
        decide = farm_read4(data, end, l3, &f, &v);
        break;
      case ETH_P_IPV6:
        decide = farm_read6(data, end, l3, &f, &v);
        break;
      case ETH_P_ARP:
        farm_decide_arp(side, data, end, l3, &v);
        break;
      default:
        break;
    }
  }
  if (decide) farm_decide(ctx, data, end, l3, &f, &v);
  if (v.action == FARM_PASS) return FARM_PASS;
  if (v.action != FARM_DROP) return farm_carry_out(ctx, tc, data, end, l3, &f, &v);
  farm_count(&v);
  return FARM_DROP;
}

SEC("xdp")
int farm_xdp(struct xdp_md* ctx) {
  switch (farm_ingress(ctx, false, (void*)(long)ctx->data, (void*)(long)ctx->data_end)) {
    case FARM_PASS:
      return XDP_PASS;
    case FARM_DROP:
      return XDP_DROP;
    default:
      return XDP_TX;
  }
}

/* Headers into the linear part; 256 bytes hold two VLAN tags, IPv6 with extensions and what an ICMP
 * error quotes. */
#define FARM_LINEAR 256u

static __always_inline void farm_pull(struct __sk_buff* skb) {
  __u32 want = skb->len < FARM_LINEAR ? skb->len : FARM_LINEAR;
  if ((long)skb->data + want > (long)skb->data_end) bpf_skb_pull_data(skb, want);
}

SEC("tc")
int farm_tc(struct __sk_buff* skb) {
  farm_pull(skb);
  switch (farm_ingress(skb, true, (void*)(long)skb->data, (void*)(long)skb->data_end)) {
    case FARM_PASS:
      return TC_ACT_UNSPEC; /* the next filter may look at it too */
    case FARM_DROP:
      return TC_ACT_SHOT;
    default:
      return (int)bpf_redirect(skb->ifindex, 0);
  }
}

/* veth in native XDP sets pkt_type before the program and not after it: a frame whose MAC farm_xdp
 * rewrote would still count as multicast or another host's, and TCP would drop it in silence. */
SEC("tc")
int farm_host(struct __sk_buff* skb) {
  if (skb->pkt_type == PACKET_HOST) return TC_ACT_UNSPEC;
  const struct farm_config* c = &farm.config[*(volatile __u32*)&farm.side & 1];
  __u8* eth = farm_at((void*)(long)skb->data, (void*)(long)skb->data_end, 0, 14);
  if (eth && farm_mac_at(eth) == farm_mac_at(c->mac)) bpf_skb_change_type(skb, PACKET_HOST);
  return TC_ACT_UNSPEC;
}

/* The link-layer address option of an NS or NA that the kernel sends: the farm MAC goes in. */
static __always_inline int farm_guard_option(struct __sk_buff* skb, __u32 l4, __u8 option,
                                             const __u8* mac) {
  __u32 off = l4 + FARM_ND_BARE;
  for (int i = 0; i < 4; i++) {
    __u8 old[8];
    if (bpf_skb_load_bytes(skb, off, old, sizeof(old))) return 0;
    if (old[0] == option && old[1] == 1) {
      if (farm_mac_at(old + 2) == farm_mac_at(mac)) return 0;
      __u8 new[8] = {old[0], old[1]};
      __builtin_memcpy(new + 2, mac, 6);
      __s64 diff = bpf_csum_diff((__be32*)old, 8, (__be32*)new, 8, 0);
      if (diff < 0) return -1;
      if (bpf_skb_store_bytes(skb, off, new, sizeof(new), BPF_F_RECOMPUTE_CSUM)) return -1;
      if (bpf_l4_csum_replace(skb, l4 + 2, 0, (__u64)diff, 0)) return -1;
      return 1;
    }
    if (old[1] == 0) return 0;
    off += old[1] * 8u;
  }
  return 0;
}

static __always_inline int farm_guard_nd(struct __sk_buff* skb, void* data, void* end, __u32 side,
                                         struct ipv6hdr* ip, __u32 l3, __u32* vip) {
  __u32 l4 = l3 + sizeof(*ip);
  if (ip->nexthdr != IPPROTO_ICMPV6) return 0;
  struct farm_nd* nd = farm_at(data, end, l4, FARM_ND_BARE);
  if (!nd || (nd->type != FARM_ND_NS && nd->type != FARM_ND_NA)) return 0;
  if (nd->type == FARM_ND_NA && !*vip) *vip = farm_vip_of6_words(side, nd->target);
  if (!*vip) return 0;
  const struct farm_vip* v = &farm.config[side & 1].vips[(*vip - 1) & (FARM_VIPS - 1)];
  return farm_guard_option(skb, l4, nd->type == FARM_ND_NS ? 1 : 2, v->farm_mac);
}

static __always_inline int farm_guard_arp(struct __sk_buff* skb, void* data, void* end, __u32 side,
                                          __u32 l3, __u32* vip) {
  struct farm_arp* arp = farm_at(data, end, l3, sizeof(*arp));
  if (!arp || arp->ptype != bpf_htons(ETH_P_IP) || arp->hlen != 6 || arp->plen != 4) return 0;
  *vip = farm_vip_of4(side, farm_word_at(arp->spa));
  if (!*vip) return 0;
  const struct farm_vip* v = &farm.config[side & 1].vips[(*vip - 1) & (FARM_VIPS - 1)];
  if (farm_mac_at(arp->sha) == farm_mac_at(v->farm_mac)) return 0;
  return farm_put(skb, true, l3 + offsetof(struct farm_arp, sha), v->farm_mac, 6) ? -1 : 1;
}

/* Only for what has a VIP as source (or as the target of an NA); everything else passes. */
SEC("tc")
int farm_egress(struct __sk_buff* skb) {
  farm_pull(skb);
  void* data = (void*)(long)skb->data;
  void* end = (void*)(long)skb->data_end;
  __u32 side = *(volatile __u32*)&farm.side & 1;
  __u32 l3 = 0;
  __u32 vip = 0;
  int wrote = 0;
  switch (farm_ether(data, end, &l3)) {
    case ETH_P_IP: {
      struct iphdr* ip = farm_at(data, end, l3, sizeof(*ip));
      if (ip) vip = farm_vip_of4(side, ip->saddr);
      break;
    }
    case ETH_P_IPV6: {
      struct ipv6hdr* ip = farm_at(data, end, l3, sizeof(*ip));
      if (!ip) break;
      __u32 src[4];
      farm_copy6(src, &ip->saddr);
      vip = farm_vip_of6_words(side, src);
      wrote = farm_guard_nd(skb, data, end, side, ip, l3, &vip);
      break;
    }
    case ETH_P_ARP:
      wrote = farm_guard_arp(skb, data, end, side, l3, &vip);
      break;
    default:
      break;
  }
  if (!vip) return TC_ACT_UNSPEC;
  struct farm_verdict v = {.reason = FARM_REASON_egress_rewritten, .rule = FARM_NONE};
  if (wrote < 0 || !farm_lease_live(&farm.config[side & 1], vip - 1)) {
    farm_drop(&v, wrote < 0 ? FARM_REASON_dropped_malformed : FARM_REASON_egress_lease);
  }
  if (wrote || v.action == FARM_DROP) farm_count(&v);
  return v.action == FARM_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* What the kernel takes as "GPL compatible" for this dual-licensed file. */
char farm_license[] SEC("license") = "GPL";
