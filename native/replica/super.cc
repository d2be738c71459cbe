#include "replica/super.h"

#include <bit>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include "replica/disk.h"

namespace holdfast::replica {
namespace {

constexpr uint64_t slot_magic = 0x3130'5055'5346'4448;  // "HDFSUP01"
constexpr uint64_t slots = 2;
static_assert(std::endian::native == std::endian::little);

struct Slot {
  uint64_t magic;
  uint64_t sequence;  // this slot lies at index sequence % 2
  uint32_t crc;       // CRC-32C of the whole slot, with 0 here
  uint32_t node;
  uint8_t set[16];
  uint64_t epoch;
  uint32_t state;
  uint32_t required_peer;
  uint32_t role;
  uint32_t clean;
  uint64_t cursor;
  Tail checkpoint;
  Tail last;
  uint32_t history_size;
  uint32_t reserved;
  EpochStart history[max_history];
  Tail base;
  uint64_t resync;
  uint32_t base_state;
  uint8_t rest[860];
};
static_assert(sizeof(Slot) == disk_block && std::has_unique_object_representations_v<Slot>);

uint32_t crc_of(const Slot& slot) {
  Slot copy = slot;
  copy.crc = 0;
  return crc32c(0, &copy, sizeof copy);
}

void encode(const SuperState& state, uint64_t sequence, Slot& slot) {
  slot = Slot{};
  slot.magic = slot_magic;
  slot.sequence = sequence;
  slot.node = state.node;
  std::memcpy(slot.set, state.set, sizeof slot.set);
  slot.epoch = state.epoch;
  slot.state = static_cast<uint32_t>(state.state);
  slot.required_peer = state.required_peer;
  slot.role = state.role;
  slot.clean = state.clean;
  slot.cursor = state.checkpoint.cursor;
  slot.checkpoint = state.checkpoint.tail;
  slot.last = state.last;
  slot.history_size = state.history_size;
  std::memcpy(slot.history, state.history, sizeof slot.history);
  slot.base = state.base;
  slot.resync = state.resync;
  slot.base_state = state.base_state;
  slot.crc = crc_of(slot);
}

bool whole(const Slot& slot, uint64_t index) {
  return slot.magic == slot_magic && slot.crc == crc_of(slot) && slot.sequence % slots == index &&
         slot.state <= static_cast<uint32_t>(DiskState::inconsistent) && slot.required_peer <= 1 &&
         slot.role <= 2 && slot.clean <= 1 && slot.history_size <= max_history &&
         slot.base_state <= static_cast<uint32_t>(DiskState::inconsistent);
}

SuperState decode(const Slot& slot) {
  SuperState state;
  state.node = slot.node;
  std::memcpy(state.set, slot.set, sizeof state.set);
  state.epoch = slot.epoch;
  state.state = static_cast<DiskState>(slot.state);
  state.required_peer = slot.required_peer;
  state.role = slot.role;
  state.clean = slot.clean;
  state.checkpoint = {slot.cursor, slot.checkpoint};
  state.last = slot.last;
  state.history_size = slot.history_size;
  std::memcpy(state.history, slot.history, sizeof state.history);
  state.base = slot.base;
  state.resync = slot.resync;
  state.base_state = slot.base_state;
  return state;
}

}  // namespace

Result<bool> Super::open(const std::string& path) {
  AlignedBuffer buffer(slots * disk_block);
  Slot slot;
  // Even, so that it belongs into the first slot, which `open_durable` writes for a new file.
  encode(SuperState(), slots, slot);
  std::memcpy(buffer.data(), &slot, sizeof slot);
  Result<DurableFile> file = open_durable(path, slots * disk_block, buffer.data());
  if (!file.ok()) return Result<bool>::failure(file.error, file.call);
  if (file.value.size != slots * disk_block) return Result<bool>::failure(EBADMSG, "fstat");
  const int error = read_at(file.value.fd.get(), buffer.data(), buffer.size(), 0);
  if (error != 0) return Result<bool>::failure(error, "pread");
  uint64_t newest = 0;
  for (uint64_t index = 0; index < slots; index++) {
    std::memcpy(&slot, buffer.data() + index * disk_block, sizeof slot);
    if (!whole(slot, index) || slot.sequence <= newest) continue;
    newest = slot.sequence;
    state_ = decode(slot);
  }
  if (newest == 0) return Result<bool>::failure(EBADMSG, "read");
  sequence_ = newest;
  fd_ = std::move(file.value.fd);
  return Result<bool>::success(file.value.made);
}

int Super::save(const SuperState& state) {
  if (state.history_size > max_history) return EINVAL;
  AlignedBuffer buffer(disk_block);
  Slot slot;
  encode(state, sequence_ + 1, slot);
  std::memcpy(buffer.data(), &slot, sizeof slot);
  const uint64_t offset = (sequence_ + 1) % slots * disk_block;
  const int error = write_at(fd_.get(), buffer.data(), disk_block, offset);
  // Not durable: the next attempt takes the same slot, and the other one still counts.
  if (error != 0) return error;
  sequence_++;
  state_ = state;
  return 0;
}

}  // namespace holdfast::replica
