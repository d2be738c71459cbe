#pragma once
#include <optional>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/result.h"

/** Mounts of the worker's own namespace: what is there, the read-only view, taking it away. */
namespace holdfast::replica {

struct MountInfo {
  int id = 0;
  uint32_t device_major = 0, device_minor = 0;
  std::string root;   // of the mount within its file system
  std::string point;  // where it is mounted
  std::string type;
  bool read_only = false;
};

/** /proc/self/mountinfo (Linux Documentation/filesystems/proc.rst, 3.5), in the order of mounting.
 */
Result<std::vector<MountInfo>> read_mounts();

/** The topmost mount exactly at `path`; asks no file system, so a dead one cannot hang it. */
std::optional<MountInfo> mount_at(const std::string& path);

/**
 * Mounts the directory over itself, read-only, at once: the copy of the mount is made read-only
 * before it is attached. Descriptors opened before keep writing. 0 or errno. Kernel 5.12.
 */
int mount_read_only(const std::string& path);

/** Takes the topmost mount away. While it is busy it is tried again for `wait_ms`; then it is
 * detached: those who have files open in it keep them, and `lazy` says so. 0 or errno. */
int unmount(const std::string& path, int wait_ms, bool& lazy);

/** Ends the FUSE connection of that device number: everything that waits in it gets ECONNABORTED.
 * 0 or errno. (fusectl: Documentation/filesystems/fuse.rst) */
int abort_fuse(uint32_t device_minor);

}  // namespace holdfast::replica
