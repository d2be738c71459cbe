#include "filter/pins.h"

#include <bpf/bpf.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "filter/farm_abi.h"

namespace holdfast::filter {

std::string sentence(const std::string& what, int error) {
  return what + ": " + std::strerror(error);
}

namespace {

bool is_bpffs(const std::string& path) {
  struct statfs fs {};
  return statfs(path.c_str(), &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

bool exists(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0;
}

bool make_dirs(const std::string& dir, std::string* why) {
  for (size_t at = 1; at != std::string::npos;) {
    at = dir.find('/', at);
    std::string part = dir.substr(0, at);
    if (at != std::string::npos) at++;
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      *why = sentence("cannot make the folder " + part, errno);
      return false;
    }
  }
  return true;
}

std::string nearest(std::string path) {
  while (!exists(path) && path.size() > 1) {
    size_t slash = path.rfind('/');
    path = slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
  }
  return path;
}

}  // namespace

bool ensure_bpffs(const std::string& dir, std::string* note, std::string* why) {
  static const std::string usual = "/sys/fs/bpf";
  if (!is_bpffs(nearest(dir))) {
    bool below = dir == usual || dir.rfind(usual + "/", 0) == 0;
    std::string at = below ? usual : dir;
    if (!exists(at) && !make_dirs(at, why)) return false;
    if (mount("bpf", at.c_str(), "bpf", 0, "mode=0700") != 0) {
      *why = sentence("there is no bpffs at " + at + " and it cannot be mounted", errno);
      return false;
    }
    *note = "a bpffs was mounted at " + at;
  }
  return make_dirs(dir, why);
}

std::string device_dir(const std::string& pin_dir, const std::string& device) {
  std::string name = device;
  std::replace(name.begin(), name.end(), '.', '@');
  return pin_dir + "/" + name;
}

Fd open_pin(const std::string& path) {
  return Fd(bpf_obj_get(path.c_str()));
}

bool replace_pin(int fd, const std::string& path, std::string* why) {
  unlink(path.c_str());
  if (bpf_obj_pin(fd, path.c_str()) == 0) return true;
  *why = sentence("cannot pin " + path, errno);
  return false;
}

Fd open_leases(const std::string& pin_dir, std::string* why) {
  std::string path = pin_dir + "/leases";
  for (int attempt = 0; attempt < 3; attempt++) {
    Fd map = open_pin(path);
    if (map.valid()) {
      bpf_map_info info{};
      __u32 size = sizeof(info);
      if (bpf_obj_get_info_by_fd(map.get(), &info, &size) == 0 && info.type == BPF_MAP_TYPE_ARRAY &&
          info.max_entries == FARM_LEASES && info.value_size == sizeof(__u64) &&
          (info.map_flags & BPF_F_MMAPABLE) != 0) {
        return map;
      }
      unlink(path.c_str());
    }
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
    map.reset(bpf_map_create(BPF_MAP_TYPE_ARRAY, "leases", sizeof(__u32), sizeof(__u64),
                             FARM_LEASES, &options));
    if (!map.valid()) {
      *why = sentence("the kernel makes no mappable array for the leases", errno);
      return {};
    }
    if (bpf_obj_pin(map.get(), path.c_str()) == 0) return map;
    if (errno != EEXIST) break; /* EEXIST: another process was faster; take its map */
  }
  *why = sentence("cannot pin " + path, errno);
  return {};
}

}  // namespace holdfast::filter
