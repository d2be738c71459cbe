#pragma once
#include <cstdint>
#include <string>

#include "common/fd.h"
#include "filter/farm_abi.h"

namespace holdfast::filter {

/** farm_state mapped into this process; unmaps itself. */
class MappedState {
 public:
  MappedState() = default;
  MappedState(const MappedState&) = delete;
  MappedState& operator=(const MappedState&) = delete;
  MappedState(MappedState&& other) noexcept : state_(other.state_) { other.state_ = nullptr; }
  MappedState& operator=(MappedState&& other) noexcept;
  ~MappedState() { unmap(); }

  bool map(int fd);
  void unmap();
  farm_state* get() const { return state_; }

 private:
  farm_state* state_ = nullptr;
};

/**
 * The programs and maps of one instance of farm.bpf.o. They live in the kernel as long as this, an
 * attachment or a pin holds them.
 */
struct FarmObject {
  Fd xdp; /* invalid when the kernel refuses it; the sentence is then in xdp_refused */
  Fd tc;
  Fd host;
  Fd egress;
  Fd state_map;
  Fd counters;
  Fd fragments;
  MappedState state;
  std::string xdp_refused;
};

/** Keeps libbpf from printing; its last warning goes into the sentences of load_object. */
void silence_libbpf();

/** FNV-1a 64 of a file's content; 0 when it cannot be read. */
uint64_t hash_file(const std::string& path);

/**
 * Loads farm.bpf.o into the kernel. The state is all zero but for magic, ABI and object hash: no
 * VIP, every packet passes.
 * @param leases the node's lease map, which the programs read.
 */
bool load_object(const std::string& path, int leases, FarmObject* object, std::string* why);

/** Pins all of it below `dir`. */
bool pin_object(const FarmObject& object, const std::string& dir, std::string* why);

/**
 * Opens what an earlier process pinned below `dir`.
 * @param hash what the object file must hash to; else false, as for anything that is missing.
 */
bool adopt_object(const std::string& dir, uint64_t hash, FarmObject* object);

/** Takes the pins of pin_object away (not the link's). */
void unpin_object(const std::string& dir);

}  // namespace holdfast::filter
