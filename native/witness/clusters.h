#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "common/fd.h"
#include "common/result.h"
#include "common/tls_identity.h"
#include "witness/store.h"

/**
 * The clusters that this witness serves: one folder each below the state folder, named by the
 * cluster's id, with its keys (ca.crt, witness.crt, witness.key) and the folder `records`.
 */
namespace holdfast::witness {

inline constexpr size_t clusters_max = 64;
/** Connections of one cluster: no more of them, whatever becomes of its servers, so that there is
 * room for the others. Each server has one. */
inline constexpr size_t clients_max = 128;

struct Cluster {
  std::string id;
  TlsIdentity identity;
  Store store;
  size_t clients = 0;
};

class Clusters {
 public:
  /** Takes the lock of the state folder and opens what is there. EBUSY: another witness has it. A
   * cluster that cannot be opened is left out, and said on stderr. */
  Result<bool> open(const std::string& state);

  /** The cluster of that id; opened now if its folder came since. Null: there is none. */
  Cluster* find(const char* id);

  size_t size() const { return clusters_.size(); }
  bool is_broken() const;

 private:
  Cluster* load(const std::string& id);

  std::string state_;
  Fd lock_;
  int64_t retry_ns_ = 0;  // boot_ns; before that no folder is tried again
  std::map<std::string, std::unique_ptr<Cluster>, std::less<>> clusters_;
};

}  // namespace holdfast::witness
