#include "replica/comparison.h"

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

namespace holdfast::replica {

namespace {

/** Numbers of comparisons go on after a restart: an answer to an older one is then not taken for
 * one to this. */
uint64_t first_run() {
  return uint64_t(time(nullptr)) << 20;
}

/** A name of the file, as good as it can be had. */
std::string path_of(Tree& tree, FileId id) {
  const auto file = tree.open(id);
  if (!file.ok()) return "";
  char path[PATH_MAX];
  const ssize_t size = readlink(ProcPath(file.value->fd.get()).text, path, sizeof path);
  return size <= 0 ? std::string() : std::string(path, size_t(size));
}

const char* kind_of(uint32_t kind) {
  switch (Check(kind)) {
    case Check::data:
      return "data";
    case Check::attributes:
      return "attributes";
    case Check::entries:
      return "entries";
    case Check::end:
      return "end";
  }
  return "unknown";
}

}  // namespace

Failure Comparison::start(Locks& locks) {
  if (running_) return Failure::of(EBUSY, "a comparison is under way");
  stop();
  progress_.files = 0;
  progress_.bytes = 0;
  progress_.stop = false;
  runs_ = runs_ == 0 ? first_run() : runs_ + 1;
  running_ = true;
  thread_ = std::thread([this, &locks] { run(locks); });
  return {};
}

void Comparison::run(Locks& locks) {
  pthread_setname_np(pthread_self(), "hf-verify");
  VerifyOptions options;
  options.run = runs_;
  const int error = run_verify(tree_, ids_, locks, log_, options, progress_);
  running_ = false;
  if (error == 0) return;  // its end comes from the secondary
  events_.event("verified", {{"run", options.run},
                             {"error", error},
                             {"reason", error == ECANCELED ? "stopped" : strerror(error)},
                             {"files", progress_.files.load()},
                             {"bytes", progress_.bytes.load()}});
}

void Comparison::stop() {
  progress_.stop = true;
  if (thread_.joinable()) thread_.join();
}

void Comparison::found(std::span<const uint8_t> body) {
  CheckResult result;
  if (body.size() != sizeof result) return;
  memcpy(&result, body.data(), sizeof result);
  if (result.run != runs_) return;
  if (result.kind == uint32_t(Check::end)) {
    events_.event("verified", {{"run", result.run},
                               {"error", 0},
                               {"lsn", result.lsn},
                               {"differences", result.differences},
                               {"files", progress_.files.load()},
                               {"bytes", progress_.bytes.load()}});
    return;
  }
  const std::string path = path_of(tree_, result.file);
  events_.event("differs", {{"run", result.run},
                            {"what", kind_of(result.kind)},
                            {"file", result.file},
                            {"path", path},
                            {"lsn", result.lsn},
                            {"offset", result.offset},
                            {"errno", result.error}});
}

void Comparison::status(Line& line) const {
  line.add("verifying", uint64_t(running_));
  line.add("verify_files", progress_.files.load()).add("verify_bytes", progress_.bytes.load());
}

}  // namespace holdfast::replica
