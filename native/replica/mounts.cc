#include "replica/mounts.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "common/clock.h"

namespace holdfast::replica {

namespace {

/** mountinfo writes space, tab, newline and backslash as \ooo. */
std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += char((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> words;
  size_t from = 0;
  while (from < line.size()) {
    size_t end = line.find(' ', from);
    if (end == std::string::npos) end = line.size();
    words.push_back(line.substr(from, end - from));
    from = end + 1;
  }
  return words;
}

/** "36 35 98:0 /root /point rw,noatime opt:1 - ext4 /dev/sda rw" */
bool parse_mount(const std::string& line, MountInfo& out) {
  const auto words = split(line);
  size_t dash = 6;
  while (dash < words.size() && words[dash] != "-") dash++;
  if (dash + 1 >= words.size()) return false;
  if (sscanf(words[2].c_str(), "%u:%u", &out.device_major, &out.device_minor) != 2) return false;
  out.id = atoi(words[0].c_str());
  out.root = unescape(words[3]);
  out.point = unescape(words[4]);
  out.read_only = words[5] == "ro" || words[5].starts_with("ro,");
  out.type = words[dash + 1];
  return true;
}

}  // namespace

Result<std::vector<MountInfo>> read_mounts() {
  using Mounts = Result<std::vector<MountInfo>>;
  Fd fd(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Mounts::failure(errno, "open");
  std::string text;
  char buffer[8192];
  ssize_t size;
  while ((size = read(fd.get(), buffer, sizeof buffer)) > 0) text.append(buffer, size_t(size));
  if (size < 0) return Mounts::failure(errno, "read");
  std::vector<MountInfo> mounts;
  for (size_t from = 0; from < text.size();) {
    size_t end = text.find('\n', from);
    if (end == std::string::npos) end = text.size();
    MountInfo mount;
    if (parse_mount(text.substr(from, end - from), mount)) mounts.push_back(std::move(mount));
    from = end + 1;
  }
  return Mounts::success(std::move(mounts));
}

std::optional<MountInfo> mount_at(const std::string& path) {
  auto mounts = read_mounts();
  for (auto at = mounts.value.rbegin(); at != mounts.value.rend(); ++at)
    if (at->point == path) return *at;
  return std::nullopt;
}

int mount_read_only(const std::string& path) {
  Fd tree(open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!tree.valid()) return errno;
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  attributes.propagation = MS_PRIVATE;
  if (mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
    return errno;
  if (move_mount(tree.get(), "", AT_FDCWD, path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return errno;
  return 0;
}

int unmount(const std::string& path, int wait_ms, bool& lazy) {
  lazy = false;
  const int64_t end = boot_ns() + wait_ms * ns_per_ms;
  while (umount2(path.c_str(), UMOUNT_NOFOLLOW) != 0) {
    if (errno != EBUSY) return errno;
    if (boot_ns() >= end) {
      lazy = true;
      return umount2(path.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) == 0 ? 0 : errno;
    }
    const timespec pause = to_timespec(20 * ns_per_ms);
    nanosleep(&pause, nullptr);
  }
  return 0;
}

int abort_fuse(uint32_t device_minor) {
  // Through a mount of fusectl that is attached nowhere: /sys/fs/fuse/connections may be empty.
  Fd context(fsopen("fusectl", FSOPEN_CLOEXEC));
  if (!context.valid()) return errno;
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return errno;
  Fd root(fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!root.valid()) return errno;
  const std::string name = std::to_string(device_minor) + "/abort";
  Fd file(openat(root.get(), name.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return errno;
  return write(file.get(), "1", 1) == 1 ? 0 : errno;
}

}  // namespace holdfast::replica
