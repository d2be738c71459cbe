// replica_tool history DIR --log FILE [--seed S] [--threads T] [--seconds N] [--ops K] [--on 1]
// [--replaces 1]: several threads do random operations in DIR; the log tells when each began and
// ended and what came out. --on 1: DIR is what an earlier history left, and goes on from there.
// --replaces 1: files whose names end in ".new" are not replicated, and some are made to be moved
// over others. Each thread has a folder of its own; one more is shared, its operations ordered by a
// lock; one file is appended to by all at once. Prints "ready" when the folders are there. SIGTERM
// ends it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <thread>

#include "choose.h"
#include "common/clock.h"
#include "model.h"
#include "operation.h"
#include "tool.h"

namespace holdfast::replica_tool {
namespace {

constexpr mode_t folder_mode = 0755;

std::atomic<bool> stopping{false};

struct Domain {
  Domain(size_t which, Chooser chooses, Fd where)
      : number(which),
        model(Model::of(where.get())),
        chooser(std::move(chooses)),
        folder(std::move(where)) {}
  size_t number;
  Model model;
  Chooser chooser;
  uint64_t index = 0;
  Fd folder;
  std::mutex mutex;
};

class History {
 public:
  History(const std::string& directory, const std::string& log, uint64_t seed, size_t threads,
          uint64_t most, bool goes_on, bool replaces);
  void run(int64_t end);
  bool failed() const { return failed_; }
  uint64_t operations() const { return operations_; }

 private:
  void set_up(uint64_t seed, size_t threads, bool goes_on, bool replaces);
  void loop(size_t thread, uint64_t seed, int64_t end);
  bool step(Domain& domain);
  bool unexpected(const Domain& domain, const Operation& operation, int error, int expected);

  Fd root_, log_;
  uint64_t seed_;
  uint64_t most_;
  std::vector<std::unique_ptr<Domain>> domains_;  // the last is shared
  std::atomic<bool> failed_{false};
  std::atomic<uint64_t> operations_{0};
};

History::History(const std::string& directory, const std::string& log, uint64_t seed,
                 size_t threads, uint64_t most, bool goes_on, bool replaces)
    : root_(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      log_(open(log.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600)),
      seed_(seed),
      most_(most) {
  require(root_.valid(), directory);
  require(log_.valid(), log);
  write_all(log_.get(), "history " + std::to_string(threads + 1) + "\n");
  set_up(seed, threads, goes_on, replaces);
}

void History::set_up(uint64_t seed, size_t threads, bool goes_on, bool replaces) {
  umask(0);
  Random seeds(seed);
  for (size_t i = 0; i <= threads; i++) {
    const std::string name = domain_name(i);
    if (!goes_on) require(mkdirat(root_.get(), name.c_str(), folder_mode) == 0, name);
    Fd folder(openat(root_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    require(folder.valid(), name);
    domains_.push_back(
        std::make_unique<Domain>(i, Chooser(seeds.next(), replaces), std::move(folder)));
  }
  if (goes_on) return;
  const Fd all(openat(root_.get(), all_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  require(all.valid(), all_name);
  require(fsync(all.get()) == 0 && fsync(root_.get()) == 0, "fsync");
}

bool History::step(Domain& domain) {
  const bool is_shared = domain.number + 1 == domains_.size();
  const Operation operation = domain.chooser.next(domain.model, !is_shared);
  const std::string head = std::to_string(domain.number) + " " + std::to_string(++domain.index);
  const int64_t start = clock_ns(CLOCK_MONOTONIC);
  write_all(log_.get(),
            "b " + head + " " + std::to_string(start) + " " + to_text(operation) + "\n");
  const int error = perform(operation, root_.get(), domain.folder.get(), domain.number);
  const int64_t end = clock_ns(CLOCK_MONOTONIC);
  const int expected = domain.model.apply(operation, domain.index);
  // One that failed as it should not is left as one that has not returned: nobody knows what it
  // did.
  if (error != expected) return unexpected(domain, operation, error, expected);
  std::string line = "e " + head + " " + std::to_string(end) + " " + std::to_string(error);
  if (error == 0) {
    for (const std::string& path : Model::touched(operation)) {
      struct stat attributes {};
      const char* name = path.empty() ? "." : path.c_str();
      if (fstatat(domain.folder.get(), name, &attributes, AT_SYMLINK_NOFOLLOW) != 0) break;
      line += " " + std::to_string(attributes.st_mtim.tv_sec) + "." +
              std::to_string(attributes.st_mtim.tv_nsec);
    }
  }
  write_all(log_.get(), line + "\n");
  operations_++;
  return true;
}

bool History::unexpected(const Domain& domain, const Operation& operation, int error,
                         int expected) {
  std::printf("history: seed %lu, domain %zu, operation %lu: %s: %s, not %s\n", seed_,
              domain.number, domain.index, to_text(operation).c_str(), error_name(error).c_str(),
              error_name(expected).c_str());
  std::fflush(stdout);
  failed_ = true;
  return false;
}

void History::loop(size_t thread, uint64_t seed, int64_t end) {
  Random random(seed);
  while (!stopping && !failed_ && boot_ns() < end && (most_ == 0 || operations_ < most_)) {
    Domain& domain = random.chance(15) ? *domains_.back() : *domains_[thread];
    const std::lock_guard lock(domain.mutex);
    if (!step(domain)) return;
  }
}

void History::run(int64_t end) {
  std::vector<std::thread> threads;
  Random seeds(~seed_);
  for (size_t i = 0; i + 1 < domains_.size(); i++) {
    threads.emplace_back([this, i, end, own = seeds.next()] { loop(i, own, end); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int run_history(const Args& args) {
  const Options options = parse_options(args,
                                        {{"log", ""},
                                         {"seed", "1"},
                                         {"threads", "4"},
                                         {"seconds", "10"},
                                         {"ops", "0"},
                                         {"on", "0"},
                                         {"replaces", "0"}},
                                        1);
  std::signal(SIGTERM, [](int) { stopping = true; });
  History history(options.words[0], options.text("log"), options.number("seed"),
                  options.number("threads"), options.number("ops"), options.number("on") != 0,
                  options.number("replaces") != 0);
  std::printf("ready\n");
  std::fflush(stdout);
  history.run(boot_ns() + static_cast<int64_t>(options.number("seconds")) * ns_per_s);
  std::printf("history: %lu operations\n", history.operations());
  return history.failed() ? 3 : 0;
}

}  // namespace holdfast::replica_tool
