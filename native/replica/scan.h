#pragma once
#include <cstdint>

#include "common/result.h"
#include "replica/ids.h"
#include "replica/tree.h"

/** Giving ids to what a directory already has. */
namespace holdfast::replica {

/** The folder in a replicated directory's root where the applier puts what stands in its way. */
inline constexpr const char* orphanage_name = ".holdfast";

/** True when the volume's root holds nothing but an orphanage and an empty lost+found. */
Result<bool> is_empty(const Tree& tree, uint8_t volume);

/**
 * Walks all volumes and gives every file that has none an id. It does not follow mounts or symbolic
 * links. How many files were new.
 */
Result<uint64_t> scan_ids(Tree& tree, Ids& ids, uint64_t epoch);

}  // namespace holdfast::replica
