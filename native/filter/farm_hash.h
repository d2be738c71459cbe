/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * From a client to its bucket: SipHash-1-3 (Aumasson and Bernstein, 2012; one compression round,
 * three finalization rounds) with the cluster's key over
 *   IPv4: address (4 bytes), extra (2)      IPv6: address (16 bytes), extra (2)
 * in network order. The IPv4 message fits the last, partial block: four rounds in all.
 * Included by the BPF program and by the C++ loader.
 */
#ifndef HOLDFAST_FARM_HASH_H
#define HOLDFAST_FARM_HASH_H

#include "farm_abi.h"

struct farm_sip {
  __u64 v0, v1, v2, v3;
};

static inline __attribute__((always_inline)) __u64 farm_rotl(__u64 x, int bits) {
  return (x << bits) | (x >> (64 - bits));
}

static inline __attribute__((always_inline)) void farm_sip_round(struct farm_sip* s) {
  s->v0 += s->v1;
  s->v1 = farm_rotl(s->v1, 13) ^ s->v0;
  s->v0 = farm_rotl(s->v0, 32);
  s->v2 += s->v3;
  s->v3 = farm_rotl(s->v3, 16) ^ s->v2;
  s->v0 += s->v3;
  s->v3 = farm_rotl(s->v3, 21) ^ s->v0;
  s->v2 += s->v1;
  s->v1 = farm_rotl(s->v1, 17) ^ s->v2;
  s->v2 = farm_rotl(s->v2, 32);
}

static inline __attribute__((always_inline)) void farm_sip_block(struct farm_sip* s, __u64 m) {
  s->v3 ^= m;
  farm_sip_round(s);
  s->v0 ^= m;
}

static inline __attribute__((always_inline)) void farm_sip_start(struct farm_sip* s,
                                                                 const __u64* key) {
  s->v0 = key[0] ^ 0x736f6d6570736575ull;
  s->v1 = key[1] ^ 0x646f72616e646f6dull;
  s->v2 = key[0] ^ 0x6c7967656e657261ull;
  s->v3 = key[1] ^ 0x7465646279746573ull;
}

static inline __attribute__((always_inline)) __u64 farm_sip_end(struct farm_sip* s) {
  s->v2 ^= 0xff;
  farm_sip_round(s);
  farm_sip_round(s);
  farm_sip_round(s);
  return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* addr, extra: as they stand in the packet. */
static inline __attribute__((always_inline)) __u32 farm_bucket4(const __u64* key, __u32 addr,
                                                                __u16 extra) {
  struct farm_sip s;
  farm_sip_start(&s, key);
  farm_sip_block(&s, (6ull << 56) | ((__u64)extra << 32) | addr);
  return (__u32)farm_sip_end(&s) & (FARM_BUCKETS - 1);
}

/* addr: the 16 bytes as four words as they stand in the packet. */
static inline __attribute__((always_inline)) __u32 farm_bucket6(const __u64* key, const __u32* addr,
                                                                __u16 extra) {
  struct farm_sip s;
  farm_sip_start(&s, key);
  farm_sip_block(&s, ((__u64)addr[1] << 32) | addr[0]);
  farm_sip_block(&s, ((__u64)addr[3] << 32) | addr[2]);
  farm_sip_block(&s, (18ull << 56) | extra);
  return (__u32)farm_sip_end(&s) & (FARM_BUCKETS - 1);
}

#endif
