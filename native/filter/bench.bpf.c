/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Programs of the filter's bench: the packet generator, and the bare program to compare with.
 */
/* clang-format off */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
/* clang-format on */

/* Sends the frame with a random client: source 10.64.0.0/10 and a random source port. The IP
 * checksum is made right again (RFC 1624), UDP carries none, TCP's is left wrong. */
SEC("xdp")
int bench_send(struct xdp_md* ctx) {
  void* data = (void*)(long)ctx->data;
  void* end = (void*)(long)ctx->data_end;
  struct ethhdr* eth = data;
  struct iphdr* ip = (void*)(eth + 1);
  struct udphdr* ports = (void*)(ip + 1);
  if ((void*)(ports + 1) > end) return XDP_DROP;
  __u32 random = bpf_get_prandom_u32();
  __u32 from = bpf_htonl(0x0a400000u | (random & 0x3fffff));
  __u32 old = ip->saddr;
  __u32 sum = (__u16)~ip->check + (__u16) ~(old & 0xffff) + (__u16) ~(old >> 16) + (from & 0xffff) +
              (from >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  ip->check = (__u16)~sum;
  ip->saddr = from;
  ports->source = (__u16)(random >> 16) | 4;
  return XDP_TX;
}

SEC("xdp")
int bench_drop(struct xdp_md* ctx) {
  return XDP_DROP;
}

SEC("xdp")
int bench_pass(struct xdp_md* ctx) {
  return XDP_PASS;
}

char bench_license[] SEC("license") = "GPL";
