#include "replica/mirror.h"

#include <cstring>

namespace holdfast::replica {

Failure check_set(const SuperState& state, const OpenLine& line, bool resume) {
  constexpr uint8_t none[16] = {};
  const bool fresh = memcmp(state.set, none, sizeof none) == 0;
  if (!fresh && memcmp(state.set, line.set, sizeof state.set) != 0)
    return Failure::of("SET", "state=" + line.state + " belongs to another mirror");
  // It had the role already: that its copy is unfit by now is told to its peer and its agent, and
  // takes no directory away from an application.
  if (resume && state.role == uint32_t(line.role)) return {};
  if (line.epoch < state.epoch)
    return Failure::of("EPOCH", "epoch=" + std::to_string(line.epoch) + " is older than " +
                                    std::to_string(state.epoch) + ", which this server has seen");
  return {};
}

Failure check_super(const SuperState& state, const OpenLine& line, bool resume) {
  if (Failure failure = check_set(state, line, resume); failure.failed()) return failure;
  if (resume && state.role == uint32_t(line.role)) return {};
  // A secondary may come as it is: it is made equal.
  if (line.role != RoleKind::prim) return {};
  if (state.state == DiskState::failed)
    return Failure::of("STATE", "this copy failed: it has to be made equal to the other");
  if (state.state == DiskState::outdated && !line.force)
    return Failure::of("STATE", "this copy is outdated: it has to be made equal to the other");
  if (state.state == DiskState::inconsistent && !line.force)
    return Failure::of("STATE", "this copy is in the middle of a resync");
  return {};
}

}  // namespace holdfast::replica
