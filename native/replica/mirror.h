#pragma once
#include "replica/lineage.h"
#include "replica/role.h"
#include "replica/super.h"

/** What both roles of a mirror ask of the superblock. */
namespace holdfast::replica {

/**
 * Refuses a line that the superblock does not allow: another set (SET), an older epoch (EPOCH), a
 * primary with a copy that failed, or is outdated or in the middle of a resync and not forced
 * (STATE). `resume`: a new worker goes on with the role that the
 * last one had; the epoch may have moved on since the line came (`alone`, or the peer's).
 */
Failure check_super(const SuperState& state, const OpenLine& line, bool resume);
/** The same for a role that any copy of the mirror may have: whatever its state. */
Failure check_set(const SuperState& state, const OpenLine& line, bool resume);

}  // namespace holdfast::replica
