#pragma once
#include <cstdint>
#include <string_view>

#include "common/result.h"
#include "replica/ids.h"
#include "replica/skip.h"
#include "replica/tree.h"

/** Giving ids to what a directory already has. */
namespace holdfast::replica {

/** The folder in a replicated directory's root where the applier puts what stands in its way. */
inline constexpr const char* orphanage_name = ".holdfast";
/** The folder there for what a resync took away and must not lose (quarantine.h). */
inline constexpr const char* quarantine_name = ".holdfast-quarantine";
/** The file there by which a copy knows its directory again (copy_mark.h). */
inline constexpr const char* copy_mark_name = ".holdfast-copy";
/** Of the root: its mtime, while one of them is made or removed. */
inline constexpr const char* root_mtime_attribute = "trusted.holdfast.mtime";

/** True for names in a replicated directory's root that are this product's: neither shown by the
 * mount, nor replicated, nor compared. */
inline bool is_internal_name(std::string_view name) {
  return name == orphanage_name || name == quarantine_name || name == copy_mark_name;
}

/** True when an open root holds nothing but what is this product's and an empty lost+found. */
Result<bool> is_empty(int root);
Result<bool> is_empty(const Tree& tree, uint8_t volume);

/**
 * Walks all volumes and gives every file that has none an id. Whether a file is replicated is what
 * its name says (`skip`), also of one that has an id: a server that was killed may have given it a
 * name and not yet the flags. It does not follow mounts or symbolic links. How many files were new.
 */
Result<uint64_t> scan_ids(Tree& tree, Ids& ids, uint64_t epoch, const Skip& skip);

}  // namespace holdfast::replica
