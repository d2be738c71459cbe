#pragma once
#include <string>

#include "replica/dirty_state.h"

/**
 * The dirty set as a file of the state folder: a head of 32 bytes (0 `HFDIRTY1`, 8 number of items,
 * 16 bytes of them (8 each), 24 CRC-32C of the items, 28 CRC-32C of the head before it), then the
 * items: u32 Work, u32 bytes of the name, u64 file (entry: the parent), u64 from, u64 to, the name.
 * Little-endian.
 */
namespace holdfast::replica {

/** Durable when it returns 0; the file that was there stays until then. errno. */
int save_dirty(const DirtyState& state, const std::string& path);
/** Adds to `out`, which is to be used only when it returns 0. ENOENT; EBADMSG; errno. */
int load_dirty(const std::string& path, DirtyState& out);

}  // namespace holdfast::replica
