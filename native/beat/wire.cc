#include "beat/wire.h"

#include <cstring>

namespace holdfast::beat {

size_t encode(const Heartbeat& beat, const HmacSha256& key, uint8_t* out) {
  WireHeader header = beat.header;
  header.magic = wire_magic;
  header.version = wire_version;
  header.zero = 0;
  const size_t echoes = header.lan_count * sizeof(WireEcho);
  const size_t modules = header.module_count * sizeof(WireModule);
  uint8_t* at = out;
  std::memcpy(at, &header, sizeof header);
  at += sizeof header;
  std::memcpy(at, beat.echoes, echoes);
  at += echoes;
  std::memcpy(at, beat.modules, modules);
  at += modules;
  const size_t covered = static_cast<size_t>(at - out);
  key.tag(out, covered, at, wire_tag_size);
  return covered + wire_tag_size;
}

WireFault decode(const uint8_t* data, size_t size, uint64_t cluster, const HmacSha256& key,
                 Heartbeat& out) {
  if (size < wire_min_size || size > wire_max_size) return WireFault::malformed;
  WireHeader& header = out.header;
  std::memcpy(&header, data, sizeof header);
  if (header.magic != wire_magic || header.version != wire_version) return WireFault::malformed;
  if (header.cluster != cluster) return WireFault::foreign;
  if (header.lan_count == 0 || header.lan_count > max_lans || header.module_count > max_modules) {
    return WireFault::malformed;
  }
  const size_t echoes = header.lan_count * sizeof(WireEcho);
  const size_t modules = header.module_count * sizeof(WireModule);
  const size_t covered = sizeof header + echoes + modules;
  if (size != covered + wire_tag_size) return WireFault::malformed;
  uint8_t tag[wire_tag_size];
  key.tag(data, covered, tag, wire_tag_size);
  if (!equal_constant_time(tag, data + covered, wire_tag_size)) return WireFault::bad_mac;
  std::memcpy(out.echoes, data + sizeof header, echoes);
  std::memcpy(out.modules, data + sizeof header + echoes, modules);
  return WireFault::none;
}

}  // namespace holdfast::beat
