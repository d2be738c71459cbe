#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "filter/hook.h"
#include "filter/object.h"

namespace holdfast::filter {

struct OpenOptions {
  std::string device;
  std::string pin_dir;
  std::string hook; /* "auto", a name of hook_name(), or "none": loaded, not attached, not pinned */
  std::string object_path;
};

/**
 * The filter of one device: loads or adopts the BPF program, attaches it, commits configurations.
 * What is attached stays in the kernel when this is destroyed; detach() takes it away.
 * Not thread-safe. Functions that return false have set *why to one sentence.
 */
class Filter {
 public:
  static std::unique_ptr<Filter> open(const OpenOptions& options, std::string* why);

  const Device& device() const { return device_; }
  Hook hook() const { return hook_; }
  const std::vector<std::string>& reasons() const { return reasons_; }
  bool adopted() const { return adopted_; }

  /**
   * Puts a farm_config (bytes in its exact layout) in force by one store. The device's MAC is
   * filled in here. Blocks for up to 4 ms when the last flip was that recent: packets that began
   * with the older configuration must have left it before it is overwritten.
   */
  bool commit(std::span<const uint8_t> config, std::string* why);

  /** Sums over all CPUs. */
  bool counters(farm_counters* sum, std::string* why) const;

  /**
   * Who else spoke as the VIP of this place in the configuration since that came into force; at_ns
   * 0: nobody.
   */
  farm_claim claim(uint32_t vip) const;

  /** Time of the store that flips, and of the copy before it, ns; of the last commit. */
  int64_t last_copy_ns() const { return last_copy_ns_; }

  void detach();

  /** For test runs and benches. */
  const FarmObject& object() const { return object_; }
  int leases() const { return leases_.get(); }

 private:
  Filter() = default;
  bool adopt(uint64_t hash);
  bool attach(const std::string& wanted, std::string* why);
  bool replace(std::string* why);
  void remember_reasons();

  Device device_;
  std::string dir_;
  Hook hook_ = Hook::tc;
  std::vector<std::string> reasons_;
  bool adopted_ = false;
  bool attached_ = false;
  /* Loaded beside another version that is attached; takes its place at the first commit. */
  bool pending_ = false;
  int64_t last_copy_ns_ = 0;
  Fd leases_;
  Fd link_;
  FarmObject object_;
};

}  // namespace holdfast::filter
