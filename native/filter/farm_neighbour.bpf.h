/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * ARP and neighbour discovery about VIPs. The kernel never sees a question about a VIP, so it never
 * answers one with the wrong MAC; it does see the answers to its own questions.
 */
#ifndef HOLDFAST_FARM_NEIGHBOUR_BPF_H
#define HOLDFAST_FARM_NEIGHBOUR_BPF_H

struct farm_arp { /* RFC 826, Ethernet and IPv4 */
  __u16 htype;
  __u16 ptype;
  __u8 hlen;
  __u8 plen;
  __u16 op;
  __u8 sha[6];
  __u8 spa[4];
  __u8 tha[6];
  __u8 tpa[4];
};

/* RFC 4861: neighbour solicitation and advertisement, one link-layer address option. */
struct farm_nd {
  __u8 type;
  __u8 code;
  __u16 check;
  __u32 flags;
  __u32 target[4];
  __u8 option;
  __u8 option_len; /* in units of 8 bytes */
  __u8 mac[6];
};
#define FARM_ND_BARE 24u /* without the option */

struct farm_advert {
  struct ipv6hdr ip;
  struct farm_nd nd;
};

static __always_inline __u32 farm_word_at(const __u8* p) {
  return (__u32) * (const __u16*)p | (__u32) * (const __u16*)(p + 2) << 16;
}

/* Writes len bytes into the packet at off; any packet pointer is to be read again after it. */
static __always_inline int farm_put(void* ctx, const bool tc, __u32 off, const void* from,
                                    const __u32 len) {
  if (tc) return (int)bpf_skb_store_bytes(ctx, off, from, len, BPF_F_RECOMPUTE_CSUM);
  struct xdp_md* xdp = ctx;
  void* to = farm_at((void*)(long)xdp->data, (void*)(long)xdp->data_end, off, len);
  if (!to) return -1;
  __builtin_memcpy(to, from, len);
  return 0;
}

/* Writes destination and source MAC. */
static __always_inline int farm_put_macs(void* ctx, const bool tc, const __u8* to,
                                         const __u8* from) {
  __u8 macs[12];
  __builtin_memcpy(macs, to, 6);
  __builtin_memcpy(macs + 6, from, 6);
  return farm_put(ctx, tc, 0, macs, sizeof(macs));
}

/* Is it this server that answers the requester? In directed mode a question sent to our own MAC
 * (a neighbour that revalidates its entry, RFC 1122 2.3.2.1) is answered by us in any case. */
static __always_inline bool farm_answers(const struct farm_config* c, __u32 vip,
                                         const struct farm_flow* f, const __u8* eth) {
  const struct farm_vip* v = &c->vips[vip & (FARM_VIPS - 1)];
  if (v->mode == FARM_DIRECTED && farm_mac_at(eth) == farm_mac_at(c->mac)) return true;
  __u32 table = v->arp_table;
  if (table == FARM_NONE) return v->mode == FARM_INVISIBLE;
  __u32 bucket = farm_bucket_of(c, f, 0);
  return c->flags[table & (FARM_TABLES - 1)][bucket] & FARM_OWN;
}

/* Another host says that it has a VIP of directed mode: kept for whoever watches the address. */
static __always_inline void farm_note_claim(const struct farm_config* c, __u32 vip,
                                            const __u8* mac) {
  if (c->vips[vip & (FARM_VIPS - 1)].mode != FARM_DIRECTED) return;
  if (farm_mac_at(mac) == farm_mac_at(c->mac)) return;
  struct farm_claim* claim = &farm.claims[vip & (FARM_VIPS - 1)];
  __builtin_memcpy(claim->mac, mac, 6);
  *(volatile __u64*)&claim->at_ns = bpf_ktime_get_boot_ns();
}

/* Decides on an ARP frame; FARM_ANSWER is carried out by farm_answer_arp. */
static __always_inline void farm_decide_arp(__u32 side, void* data, void* end, __u32 l3,
                                            struct farm_verdict* v) {
  const struct farm_config* c = &farm.config[side & 1];
  struct farm_arp* arp = farm_at(data, end, l3, sizeof(*arp));
  __u8* eth = farm_at(data, end, 0, sizeof(struct ethhdr));
  if (!arp || !eth || arp->ptype != bpf_htons(ETH_P_IP) || arp->hlen != 6 || arp->plen != 4) return;
  __u32 sender = farm_vip_of4(side, farm_word_at(arp->spa));
  if (sender) farm_note_claim(c, sender - 1, arp->sha);
  __u32 target = farm_word_at(arp->tpa);
  __u32 vip = farm_vip_of4(side, target);
  if (!vip) return;
  v->vip = (__u8)(vip - 1);
  struct farm_flow f = {.meta = {{.family = 4, .side = (__u8)side}}};
  f.src[0] = farm_word_at(arp->spa);
  farm_drop(v, FARM_REASON_dropped_neighbour);
  if (f.src[0] == target) return; /* another server announces the VIP */
  if (arp->op == bpf_htons(2)) {
    farm_accept(v, FARM_REASON_accepted_neighbour);
  } else if (arp->op == bpf_htons(1) && farm_answers(c, v->vip, &f, eth)) {
    v->action = FARM_ANSWER;
    v->reason = FARM_REASON_answered_arp;
  }
}

/* Turns the request into the reply: sha is what the VIP answers with, the Ethernet source is always
 * the device's own MAC, so that no switch ever learns the farm MAC. */
static __always_inline int farm_answer_arp(void* ctx, const bool tc, void* data, void* end,
                                           __u32 side, __u32 l3, __u32 vip) {
  const struct farm_config* c = &farm.config[side & 1];
  struct farm_arp* arp = farm_at(data, end, l3, sizeof(*arp));
  __u8* eth = farm_at(data, end, 0, sizeof(struct ethhdr));
  if (!arp || !eth) return -1;
  struct farm_arp reply;
  __u8 to[6];
  __builtin_memcpy(to, eth + 6, 6);
  __builtin_memcpy(&reply, arp, sizeof(reply));
  reply.op = bpf_htons(2);
  __builtin_memcpy(reply.tha, arp->sha, 6);
  __builtin_memcpy(reply.tpa, arp->spa, 4);
  __builtin_memcpy(reply.sha, c->vips[vip & (FARM_VIPS - 1)].farm_mac, 6);
  __builtin_memcpy(reply.spa, arp->tpa, 4);
  if (farm_put(ctx, tc, l3, &reply, sizeof(reply))) return -1;
  return farm_put_macs(ctx, tc, to, c->mac);
}

/* A neighbour solicitation, whatever its destination (VIP, or solicited-node group). Untouched: the
 * target is no VIP. */
static __always_inline void farm_decide_nd(void* data, void* end, const struct farm_flow* f,
                                           struct farm_verdict* v) {
  const struct farm_config* c = &farm.config[f->meta.side & 1];
  struct farm_nd* nd = farm_at(data, end, f->l4, FARM_ND_BARE);
  __u8* eth = farm_at(data, end, 0, sizeof(struct ethhdr));
  if (!nd || !eth) return;
  __u32 vip = farm_vip_of6_words(f->meta.side, nd->target);
  if (!vip) return;
  v->vip = (__u8)(vip - 1);
  farm_drop(v, FARM_REASON_dropped_neighbour);
  if (nd->type != FARM_ND_NS) { /* advertisement: another server announces the VIP */
    farm_note_claim(c, v->vip, eth + 6);
    return;
  }
  /* RFC 4861 7.1.1; the checksum is left to the frame's own: a wrong answer costs nothing. */
  if (f->meta.ttl != 255 || nd->code != 0 || f->meta.fragment != FARM_WHOLE) {
    v->reason = FARM_REASON_dropped_malformed;
  } else if (farm_answers(c, v->vip, f, eth)) {
    v->action = FARM_ANSWER;
    v->reason = FARM_REASON_answered_nd;
  }
}

static __always_inline __u16 farm_fold(__u32 sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (__u16)~sum;
}

/* Turns the solicitation into an advertisement with the target's link-layer address: solicited and
 * override, or to all nodes and unsolicited when the question came from :: (RFC 4861 7.2.4). The
 * frame becomes exactly as long as that takes; extension headers are not repeated. */
static __always_inline int farm_answer_nd(void* ctx, const bool tc, void* data, void* end, __u32 l3,
                                          const struct farm_flow* f, __u32 vip) {
  const struct farm_config* c = &farm.config[f->meta.side & 1];
  const struct farm_vip* answer = &c->vips[vip & (FARM_VIPS - 1)];
  struct farm_nd* nd = farm_at(data, end, f->l4, FARM_ND_BARE);
  __u8* eth = farm_at(data, end, 0, sizeof(struct ethhdr));
  if (!nd || !eth) return -1;
  bool unspecified = !(f->src[0] | f->src[1] | f->src[2] | f->src[3]);
  struct farm_advert a = {};
  __u8 to[6] = {0x33, 0x33, 0, 0, 0, 1};
  if (!unspecified) __builtin_memcpy(to, eth + 6, 6);
  a.ip.version = 6;
  a.ip.payload_len = bpf_htons(sizeof(a.nd));
  a.ip.nexthdr = IPPROTO_ICMPV6;
  a.ip.hop_limit = 255;
  __builtin_memcpy(&a.ip.saddr, nd->target, 16);
  if (unspecified) {
    a.ip.daddr.in6_u.u6_addr32[0] = bpf_htonl(0xff020000);
    a.ip.daddr.in6_u.u6_addr32[3] = bpf_htonl(1);
  } else {
    __builtin_memcpy(&a.ip.daddr, f->src, 16);
  }
  a.nd.type = FARM_ND_NA;
  a.nd.flags = bpf_htonl(unspecified ? 0x20000000 : 0x60000000);
  __builtin_memcpy(a.nd.target, nd->target, 16);
  a.nd.option = 2;
  a.nd.option_len = 1;
  __builtin_memcpy(a.nd.mac, answer->farm_mac, 6);
  __s64 sum =
      bpf_csum_diff(NULL, 0, (__be32*)&a.ip.saddr, 32, bpf_htonl(sizeof(a.nd) + IPPROTO_ICMPV6));
  if (sum >= 0) sum = bpf_csum_diff(NULL, 0, (__be32*)&a.nd, sizeof(a.nd), (__u32)sum);
  if (sum < 0) return -1;
  a.nd.check = farm_fold((__u32)sum);
  __u32 want = l3 + sizeof(a);
  __u64 have = (__u64)end - (__u64)data;
  FARM_IN_REGISTER(have); /* pointers are subtracted in 64 bits or not at all */
  if (tc) {
    if (bpf_skb_change_tail(ctx, want, 0)) return -1;
  } else if (bpf_xdp_adjust_tail(ctx, (int)want - (int)have)) {
    return -1;
  }
  if (farm_put(ctx, tc, l3, &a, sizeof(a))) return -1;
  return farm_put_macs(ctx, tc, to, c->mac);
}

#endif
