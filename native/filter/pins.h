#pragma once
#include <string>

#include "common/fd.h"

namespace holdfast::filter {

/** `what: <strerror(error)>`. */
std::string sentence(const std::string& what, int error);

/**
 * Makes sure that `dir` exists on a bpffs (mode 0700), mounting one when there is none: at
 * /sys/fs/bpf for a path below it, else at `dir` itself.
 * @return false with *why set; *note says what was mounted, if anything.
 */
bool ensure_bpffs(const std::string& dir, std::string* note, std::string* why);

/** The folder of one device below `pin_dir`. bpffs takes no '.' in a name, VLAN devices have one.
 */
std::string device_dir(const std::string& pin_dir, const std::string& device);

/** Opens a pinned object; invalid when absent. */
Fd open_pin(const std::string& path);

/** Pins an object, replacing what is pinned there. */
bool replace_pin(int fd, const std::string& path, std::string* why);

/**
 * The node's lease map (64 x u64, boot time in ns), pinned at `pin_dir`/leases: opened, or made
 * when absent or of another shape. All lease words of a new map are 0: lapsed.
 */
Fd open_leases(const std::string& pin_dir, std::string* why);

}  // namespace holdfast::filter
