/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the filter's BPF program and its loader share: the layout of the mapped configuration, the
 * limits and the counters. src/native/filter-abi.ts mirrors it; a test compares the two.
 *
 * Hosts are little endian (checked at build time); addresses and ports are in network order.
 */
#ifndef HOLDFAST_FARM_ABI_H
#define HOLDFAST_FARM_ABI_H

#include <linux/types.h>

#define FARM_MAGIC 0x4d524146u /* "FARM" */
#define FARM_ABI 2u

#define FARM_BUCKETS 4096u
#define FARM_TABLES 16u
#define FARM_RULES 64u
#define FARM_VIPS 32u
#define FARM_NODES 64u
#define FARM_LEASES 64u
/* Entries of the map that remembers who takes the later fragments of a TCP packet. */
#define FARM_FRAGMENTS 1024u
#define FARM_REASONS_TEXT 1024u
/* Stands for "no node", "no table", "no rule". */
#define FARM_NONE 255u

/* Bits of one bucket of this node. */
#define FARM_OWN 1u
#define FARM_HOLD 2u
#define FARM_QUIET 4u

/* farm_vip.mode */
#define FARM_INVISIBLE 0u
#define FARM_DIRECTED 1u

/* farm_rule.hash */
#define FARM_ON_ADDR 0u
#define FARM_ON_PORT 1u
#define FARM_ON_IPID 2u

struct farm_vip {
  __u8 farm_mac[6]; /* what ARP and ND answer: the farm MAC, or this node's own in directed mode */
  __u8 mode;
  __u8 lease_slot;
  __u8 arp_table;  /* whose ownership decides who answers ARP and ND; FARM_NONE: every live node */
  __u8 echo_table; /* ICMP that no rule names; FARM_NONE: dropped */
  __u8 unused[6];
};

/* The first rule that matches decides. The last four bytes are read as one word. */
struct farm_rule {
  __u32 vip_mask; /* bit n: farm_config.vips[n] */
  __u16 port_low; /* host order */
  __u16 port_high;
  __u8 proto; /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP (which also stands for ICMPv6) */
  __u8 hash;
  __u8 table;
  __u8 index; /* its own place; the loader sets it */
};

struct farm_mac {
  __u8 mac[6];
  __u8 known;
  __u8 unused;
};

/* One complete configuration. The tables are one array per field, so that the path of a packet that
 * belongs to another server touches one byte of one bucket. */
struct farm_config {
  __u64 hash_key[2];
  __u8 mac[6]; /* of the device */
  __u8 me;
  __u8 vip_count;
  __u8 rule_count;
  __u8 table_count;
  __u8 unused[6];
  __u32 vip4[FARM_VIPS];    /* 0 where the VIP is IPv6 */
  __u64 vip6[FARM_VIPS][2]; /* 0 where the VIP is IPv4 */
  struct farm_vip vips[FARM_VIPS];
  struct farm_rule rules[FARM_RULES];
  struct farm_mac macs[FARM_NODES];
  __u8 flags[FARM_TABLES][FARM_BUCKETS];
  __u8 owner[FARM_TABLES][FARM_BUCKETS];
  __u8 holder[FARM_TABLES][FARM_BUCKETS];
};

/* Who else spoke as a VIP in directed mode, last; the program writes it, and at_ns after mac. */
struct farm_claim {
  __u64 at_ns; /* CLOCK_BOOTTIME; 0: nobody */
  __u8 mac[6];
  __u8 unused[2];
};

/* The mapped memory: two configurations, and the word that says which one counts. */
struct farm_state {
  __u32 magic;
  __u32 abi;
  __u64 object_hash; /* of the object file that the attached programs come from */
  __u64 flipped_ns;  /* CLOCK_BOOTTIME of the last flip */
  __u32 side;        /* 0 or 1; the only word that changes under running programs */
  __u32 commits;
  char
      reasons[FARM_REASONS_TEXT]; /* why no better hook, one sentence a line; for who adopts this */
  struct farm_config config[2];
  struct farm_claim claims[FARM_VIPS]; /* by place in the configuration that counted then */
};

/* X(name, what it counts). The order is the ABI; the names are metric labels. */
#define FARM_REASONS(X)                                                                \
  X(accepted_own, "bucket owned by this server")                                       \
  X(accepted_hold, "bucket moved away, but this server has the socket")                \
  X(accepted_quiet, "bucket just received, and this server has the socket")            \
  X(accepted_cookie, "a valid SYN cookie of this server")                              \
  X(accepted_fragment, "later fragment of a TCP packet accepted before")               \
  X(accepted_neighbour, "neighbour resolution answered to the VIP")                    \
  X(dropped_foreign, "another server answers")                                         \
  X(dropped_quiet, "bucket just received, connection unknown, its holder may have it") \
  X(dropped_no_rule, "traffic to a VIP that no rule names")                            \
  X(dropped_lease, "lease lapsed")                                                     \
  X(dropped_malformed, "header truncated or nonsensical")                              \
  X(dropped_fragment, "later fragment of an unknown TCP packet")                       \
  X(dropped_neighbour, "ARP or ND about a VIP that another server answers")            \
  X(dropped_hop_guard, "forwarded by a server before, not to be forwarded again")      \
  X(dropped_not_mine, "directed mode: frame for another MAC")                          \
  X(dropped_no_mac, "directed mode: MAC of the owner unknown")                         \
  X(forwarded_owner, "directed mode: sent on to the owner")                            \
  X(forwarded_holder, "directed mode: second chance at the previous owner")            \
  X(answered_arp, "ARP request answered")                                              \
  X(answered_nd, "neighbour solicitation answered")                                    \
  X(egress_rewritten, "own MAC replaced by the farm MAC in ARP or ND sent")            \
  X(egress_lease, "packet from a VIP held back, lease lapsed")

#define FARM_REASON_ID(name, text) FARM_REASON_##name,
enum farm_reason { FARM_REASONS(FARM_REASON_ID) FARM_REASON_COUNT };
#undef FARM_REASON_ID

/* One per CPU. */
struct farm_counters {
  __u64 reasons[FARM_REASON_COUNT];
  struct {
    __u64 accepted;
    __u64 dropped;
  } rules[FARM_RULES];
};

#endif
