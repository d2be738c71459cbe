#include "witness/clusters.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/clock.h"

namespace holdfast::witness {
namespace {

/** As ClusterKeys.clusterId: 16 hexadecimal digits. */
bool is_id(std::string_view text) {
  return text.size() == 16 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

}  // namespace

Result<bool> Clusters::open(const std::string& state) {
  state_ = state;
  if (mkdir(state.c_str(), 0700) != 0 && errno != EEXIST) {
    return Result<bool>::failure(errno, "mkdir");
  }
  lock_.reset(::open((state + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_.valid()) return Result<bool>::failure(errno, "open");
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return Result<bool>::failure(errno == EWOULDBLOCK ? EBUSY : errno, "flock");
  }
  const std::unique_ptr<DIR, CloseDir> dir(opendir(state.c_str()));
  if (!dir) return Result<bool>::failure(errno, "opendir");
  while (const dirent* entry = readdir(dir.get())) {
    // One that is bad does not keep out the next.
    retry_ns_ = 0;
    if (is_id(entry->d_name)) (void)find(entry->d_name);
  }
  return Result<bool>::success(true);
}

Cluster* Clusters::find(const char* id) {
  const auto found = clusters_.find(std::string_view(id));
  if (found != clusters_.end()) return found->second.get();
  if (!is_id(id) || clusters_.size() >= clusters_max) return nullptr;
  struct stat about {};
  const std::string folder = state_ + "/" + id;
  if (stat((folder + "/witness.crt").c_str(), &about) != 0) return nullptr;
  // Whoever asks for a cluster whose folder is bad does not make work or fill the log.
  const int64_t now = boot_ns();
  if (now < retry_ns_) return nullptr;
  Cluster* loaded = load(id);
  if (loaded == nullptr) retry_ns_ = now + 5 * ns_per_s;
  return loaded;
}

Cluster* Clusters::load(const std::string& id) {
  const std::string folder = state_ + "/" + id;
  auto cluster = std::make_unique<Cluster>();
  cluster->id = id;
  auto opened = cluster->identity.open(
      {folder + "/witness.crt", folder + "/witness.key", folder + "/ca.crt"});
  if (opened.ok()) opened = cluster->store.open(folder + "/records");
  if (!opened.ok()) {
    fprintf(stderr, "holdfast-witness: cluster %s: %s: %s\n", id.c_str(), opened.call,
            strerror(opened.error));
    return nullptr;
  }
  const Store& store = cluster->store;
  fprintf(stderr, "holdfast-witness: cluster %s: %zu records", id.c_str(), store.size());
  if (store.damaged() > 0) fprintf(stderr, ", %zu damaged", store.damaged());
  if (store.restored() > 0) {
    fprintf(stderr, ", %zu of a backup set aside", store.restored());
  }
  fprintf(stderr, "\n");
  return clusters_.emplace(id, std::move(cluster)).first->second.get();
}

bool Clusters::is_broken() const {
  return std::any_of(clusters_.begin(), clusters_.end(),
                     [](const auto& entry) { return entry.second->store.is_broken(); });
}

}  // namespace holdfast::witness
