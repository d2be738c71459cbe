#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

/** Extended attributes of the replicated files, all at once. */
namespace holdfast::replica {

/** Attributes that belong to this server, not to the file. XFS lists ACLs under two names. */
bool is_own_attribute(std::string_view name);

/**
 * What an inode record has: XattrItem, name and value of every attribute that belongs to the file,
 * in bytewise order of the names; `path` is followed (ProcPath). Without `values`: names alone. 0
 * or errno; a file system without attributes: none.
 */
int read_xattrs(const char* path, bool values, std::vector<uint8_t>& out);

}  // namespace holdfast::replica
