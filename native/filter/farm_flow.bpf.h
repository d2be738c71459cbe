/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * From a frame to a flow: what the decision needs to know, and nothing else.
 */
#ifndef HOLDFAST_FARM_FLOW_BPF_H
#define HOLDFAST_FARM_FLOW_BPF_H

enum farm_kind {
  FARM_PLAIN,      /* TCP, UDP, and what no rule can name */
  FARM_ECHO,       /* ICMP that is not an error: by the bucket of its source */
  FARM_ICMP_ERROR, /* sport, dport, src are those of the client's packet it stands for */
  FARM_NEIGHBOUR,  /* ND that every server must see */
  FARM_SOLICIT,    /* neighbour solicitation */
};

enum farm_fragment { FARM_WHOLE, FARM_FIRST, FARM_LATER };

struct farm_flow {
  __u32 src[4]; /* IPv4: src[0] */
  __u32 dst[4];
  __u32 ident; /* of the IP packet; IPv6: of the fragment header */
  __u32 l4;
  __u16 sport; /* network order */
  __u16 dport;
  __u16 ipid; /* what on_ipid hashes: IPv4 identification, IPv6 flow label */
  __u8 unused[2];
  union {
    struct {
      __u8 family;
      __u8 proto; /* ICMPv6 appears as IPPROTO_ICMP */
      __u8 tcp_flags;
      __u8 fragment;
      __u8 vip;
      __u8 side;
      __u8 kind;
      __u8 ttl;
    };
    __u64 word;
  } meta;
};

#define FARM_FIN 0x01
#define FARM_SYN 0x02
#define FARM_ACK 0x10

#define FARM_MAX_OFFSET 1024u

struct farm_ports {
  __u16 source;
  __u16 dest;
};

/* 0: not a VIP, else index + 1. One linear pass: cheaper than a hash map up to 32 addresses. A
 * global function: the verifier checks the loop once, and takes any result. */
__attribute__((noinline)) __u32 farm_vip_of4(__u32 side, __u32 addr) {
  const struct farm_config* c = &farm.config[side & 1];
  __u32 count = c->vip_count;
  for (__u32 i = 0; i < FARM_VIPS && i < count; i++) {
    if (c->vip4[i] == addr) return addr == 0 ? 0 : i + 1;
  }
  return 0;
}

__attribute__((noinline)) __u32 farm_vip_of6(__u32 side, __u64 high, __u64 low) {
  const struct farm_config* c = &farm.config[side & 1];
  __u32 count = c->vip_count;
  for (__u32 i = 0; i < FARM_VIPS && i < count; i++) {
    if (c->vip6[i][0] == high && c->vip6[i][1] == low) return (high | low) == 0 ? 0 : i + 1;
  }
  return 0;
}

static __always_inline __u32 farm_vip_of6_words(__u32 side, const __u32* a) {
  return farm_vip_of6(side, ((__u64)a[1] << 32) | a[0], ((__u64)a[3] << 32) | a[2]);
}

/* Header of len bytes at off, or NULL. */
static __always_inline void* farm_at(void* data, void* end, __u64 off, const __u32 len) {
  if (!__builtin_constant_p(off)) FARM_IN_REGISTER(off);
  if (off > FARM_MAX_OFFSET) return NULL;
  void* p = data + off;
  if (!__builtin_constant_p(off)) FARM_IN_REGISTER(p);
  return p + len > end ? NULL : p;
}

/* Ethernet with at most two VLAN tags. Returns the ethertype (host order), 0 when truncated. */
static __always_inline __u16 farm_ether(void* data, void* end, __u32* l3) {
  struct ethhdr* eth = data;
  if ((void*)(eth + 1) > end) return 0;
  __u16 type = bpf_ntohs(eth->h_proto);
  *l3 = sizeof(*eth);
  if (type == ETH_P_IP) return type;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (type != ETH_P_8021Q && type != ETH_P_8021AD) break;
    __u16* tag = farm_at(data, end, *l3, 4);
    if (!tag) return 0;
    type = bpf_ntohs(tag[1]);
    *l3 += 4;
  }
  return type;
}

/* TCP and UDP headers of a whole packet or first fragment. False: truncated. */
static __always_inline bool farm_ports_of(void* data, void* end, struct farm_flow* f) {
  if (f->meta.proto == IPPROTO_TCP) {
    struct tcphdr* tcp = farm_at(data, end, f->l4, sizeof(*tcp));
    if (!tcp) return false;
    f->sport = tcp->source;
    f->dport = tcp->dest;
    f->meta.tcp_flags = ((__u8*)tcp)[13];
    return tcp->doff >= 5;
  }
  if (f->meta.proto == IPPROTO_UDP) {
    struct udphdr* udp = farm_at(data, end, f->l4, sizeof(*udp));
    if (!udp) return false;
    f->sport = udp->source;
    f->dport = udp->dest;
  }
  return true;
}

/* What an ICMP error quotes: the packet that this farm sent. The flow becomes the client's side of
 * it (RFC 792 and RFC 4443 promise 8 bytes behind the inner IP header: the ports). */
static __always_inline bool farm_quoted_ports(void* data, void* end, __u32 off,
                                              struct farm_flow* f) {
  f->meta.kind = FARM_ICMP_ERROR;
  if (f->meta.fragment == FARM_LATER) return true;
  if (f->meta.proto != IPPROTO_TCP && f->meta.proto != IPPROTO_UDP) return true;
  struct farm_ports* ports = farm_at(data, end, off, sizeof(*ports));
  if (!ports) return false;
  f->sport = ports->dest;
  f->dport = ports->source;
  return true;
}

static __always_inline bool farm_quoted4(void* data, void* end, struct farm_flow* f) {
  __u32 off = f->l4 + FARM_ICMP_HEADER;
  struct iphdr* inner = farm_at(data, end, off, sizeof(*inner));
  if (!inner || inner->version != 4 || inner->ihl < 5 || inner->saddr != f->dst[0]) return false;
  f->src[0] = inner->daddr;
  f->meta.proto = inner->protocol;
  f->meta.fragment = inner->frag_off & bpf_htons(0x1fff) ? FARM_LATER : FARM_WHOLE;
  return farm_quoted_ports(data, end, off + inner->ihl * 4, f);
}

static __always_inline bool farm_icmp4(void* data, void* end, struct farm_flow* f) {
  f->meta.kind = FARM_ECHO;
  if (f->meta.fragment == FARM_LATER) return true;
  __u8* icmp = farm_at(data, end, f->l4, FARM_ICMP_HEADER);
  if (!icmp) return false;
  switch (icmp[0]) {
    case FARM_ICMP_UNREACHABLE:
    case FARM_ICMP_QUENCH:
    case FARM_ICMP_REDIRECT:
    case FARM_ICMP_EXCEEDED:
    case FARM_ICMP_PARAMETER:
      return farm_quoted4(data, end, f);
    default:
      return true;
  }
}

/* Fills everything but side and vip. False: malformed. */
static __always_inline bool farm_flow4(void* data, void* end, struct iphdr* ip, __u32 l3,
                                       struct farm_flow* f) {
  __u32 ihl = ip->ihl;
  if (ihl < 5) return false;
  f->meta.family = 4;
  f->src[0] = ip->saddr;
  f->dst[0] = ip->daddr;
  f->ipid = ip->id;
  f->ident = ip->id;
  f->meta.proto = ip->protocol;
  f->meta.ttl = ip->ttl;
  f->l4 = l3 + ihl * 4;
  __u16 frag = ip->frag_off & bpf_htons(0x3fff);
  if (frag) f->meta.fragment = frag & bpf_htons(0x1fff) ? FARM_LATER : FARM_FIRST;
  if (f->meta.proto == IPPROTO_ICMP) return farm_icmp4(data, end, f);
  return f->meta.fragment == FARM_LATER || farm_ports_of(data, end, f);
}

/* Walks at most 8 extension headers from *off; *next becomes the transport protocol. */
static __always_inline bool farm_extensions(void* data, void* end, __u32* off, __u8* next,
                                            struct farm_flow* f) {
  for (int i = 0; i <= 8; i++) {
    __u8* h;
    switch (*next) {
      case IPPROTO_HOPOPTS:
      case IPPROTO_ROUTING:
      case IPPROTO_DSTOPTS:
        if (!(h = farm_at(data, end, *off, 8))) return false;
        *next = h[0];
        *off += (h[1] + 1) * 8;
        break;
      case IPPROTO_AH:
        if (!(h = farm_at(data, end, *off, 8))) return false;
        *next = h[0];
        *off += (h[1] + 2) * 4;
        break;
      case IPPROTO_FRAGMENT: {
        if (!(h = farm_at(data, end, *off, 8))) return false;
        __u16 place = bpf_ntohs(*(__u16*)(h + 2));
        f->ident = *(__u32*)(h + 4);
        *next = h[0];
        *off += 8;
        if (place & 0xfff8) {
          f->meta.fragment = FARM_LATER;
          return true;
        }
        if (place & 1) f->meta.fragment = FARM_FIRST;
        break;
      }
      default:
        return true;
    }
    *off = (__u32)farm_opaque(*off);
    *next = (__u8)farm_opaque(*next);
    *off = (__u32)farm_opaque(*off);
    *next = (__u8)farm_opaque(*next);
  }
  return false;
}

static __always_inline void farm_copy6(__u32* to, const struct in6_addr* from) {
  to[0] = from->in6_u.u6_addr32[0];
  to[1] = from->in6_u.u6_addr32[1];
  to[2] = from->in6_u.u6_addr32[2];
  to[3] = from->in6_u.u6_addr32[3];
}

static __always_inline bool farm_same6(const __u32* a, const struct in6_addr* b) {
  return a[0] == b->in6_u.u6_addr32[0] && a[1] == b->in6_u.u6_addr32[1] &&
         a[2] == b->in6_u.u6_addr32[2] && a[3] == b->in6_u.u6_addr32[3];
}

/* Quoted IPv6: an inner fragment header is understood, other extension headers are not (errors
 * about packets that carried some are dropped: Linux sends none on TCP or UDP by itself). */
static __always_inline bool farm_quoted6(void* data, void* end, struct farm_flow* f) {
  __u32 off = f->l4 + FARM_ICMP_HEADER;
  struct ipv6hdr* inner = farm_at(data, end, off, sizeof(*inner));
  if (!inner || inner->version != 6 || !farm_same6(f->dst, &inner->saddr)) return false;
  farm_copy6(f->src, &inner->daddr);
  __u8 next = inner->nexthdr;
  off += sizeof(*inner);
  f->meta.fragment = FARM_WHOLE;
  if (next == IPPROTO_FRAGMENT) {
    __u8* h = farm_at(data, end, off, 8);
    if (!h) return false;
    next = h[0];
    off += 8;
    if (bpf_ntohs(*(__u16*)(h + 2)) & 0xfff8) f->meta.fragment = FARM_LATER;
  }
  f->meta.proto = next == IPPROTO_ICMPV6 ? IPPROTO_ICMP : next;
  return farm_quoted_ports(data, end, off, f);
}

static __always_inline bool farm_icmp6(void* data, void* end, struct farm_flow* f) {
  f->meta.proto = IPPROTO_ICMP;
  f->meta.kind = FARM_ECHO;
  if (f->meta.fragment == FARM_LATER) return true;
  __u8* icmp = farm_at(data, end, f->l4, FARM_ICMP_HEADER);
  if (!icmp) return false;
  __u8 type = icmp[0];
  if (type < 128) return farm_quoted6(data, end, f);
  if (type == FARM_ND_NS) {
    f->meta.kind = FARM_SOLICIT;
  } else if (type >= FARM_ND_FIRST && type <= FARM_ND_LAST) {
    f->meta.kind = FARM_NEIGHBOUR;
  }
  return true;
}

/* Fills everything but side and vip. False: malformed. */
static __always_inline bool farm_flow6(void* data, void* end, struct ipv6hdr* ip, __u32 l3,
                                       struct farm_flow* f) {
  f->meta.family = 6;
  farm_copy6(f->src, &ip->saddr);
  farm_copy6(f->dst, &ip->daddr);
  f->ipid = ip->flow_lbl[1] | (__u16)(ip->flow_lbl[2] << 8);
  f->meta.ttl = ip->hop_limit;
  __u8 next = ip->nexthdr;
  __u32 off = l3 + sizeof(*ip);
  if (next != IPPROTO_TCP && next != IPPROTO_UDP && !farm_extensions(data, end, &off, &next, f)) {
    return false;
  }
  f->l4 = off;
  f->meta.proto = next;
  if (next == IPPROTO_ICMPV6) return farm_icmp6(data, end, f);
  return f->meta.fragment == FARM_LATER || farm_ports_of(data, end, f);
}

#endif
