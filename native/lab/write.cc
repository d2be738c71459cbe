// lab_tool write: one writer with one operation under way at a time, for bench/write-latency. Every
// operation's time is kept; the figures are printed as one JSON object.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "lab/commands.h"
#include "lab/util.h"

namespace holdfast::lab {
namespace {

using Buffer = std::unique_ptr<char, void (*)(void*)>;

struct Plan {
  std::string dir;
  std::string job;
  size_t count;
  size_t size;
  size_t span;  // bytes of the file that is written over and over
};

Buffer filled(size_t size) {
  void* memory = nullptr;
  require(posix_memalign(&memory, 4096, size) == 0, "posix_memalign");
  auto* bytes = static_cast<unsigned char*>(memory);
  uint32_t state = 12345;
  for (size_t i = 0; i < size; i++) {
    state = state * 1664525 + 1013904223;
    bytes[i] = static_cast<unsigned char>(state >> 24);
  }
  return {static_cast<char*>(memory), std::free};
}

void write_whole(int fd, const char* data, size_t size, size_t offset) {
  while (size > 0) {
    const ssize_t done = pwrite(fd, data, size, static_cast<off_t>(offset));
    require(done > 0, "pwrite");
    data += done;
    size -= static_cast<size_t>(done);
    offset += static_cast<size_t>(done);
  }
}

// A file whose blocks all exist, so that the jobs measure overwriting, as a database's log does.
Fd laid_out(const Plan& plan, int flags, const char* data) {
  const std::string path = plan.dir + "/write-" + plan.job;
  Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  require(fd.valid(), "open " + path);
  for (size_t at = 0; at < plan.span; at += plan.size) write_whole(fd.get(), data, plan.size, at);
  require(fsync(fd.get()) == 0, "fsync");
  if (flags == 0) return fd;
  Fd again(open(path.c_str(), O_RDWR | O_CLOEXEC | flags));
  require(again.valid(), "open " + path);
  return again;
}

std::vector<int64_t> overwrite(const Plan& plan, int flags, bool sync) {
  Buffer data = filled(plan.size);
  Fd fd = laid_out(plan, flags, data.get());
  std::vector<int64_t> times;
  times.reserve(plan.count);
  size_t at = 0;
  for (size_t i = 0; i < plan.count; i++) {
    std::memcpy(data.get(), &i, sizeof i);
    const int64_t before = boot_ns();
    write_whole(fd.get(), data.get(), plan.size, at);
    if (sync) require(fdatasync(fd.get()) == 0, "fdatasync");
    times.push_back(boot_ns() - before);
    at = at + plan.size >= plan.span ? 0 : at + plan.size;
  }
  require(fsync(fd.get()) == 0, "fsync");
  return times;
}

// What a mail server or a package manager does: a new file, durable, then in its place at once.
std::vector<int64_t> replace_files(const Plan& plan) {
  Buffer data = filled(plan.size);
  std::vector<int64_t> times;
  times.reserve(plan.count);
  for (size_t i = 0; i < plan.count; i++) {
    const std::string path = plan.dir + "/small-" + std::to_string(i % 512);
    const std::string draft = path + ".new";
    const int64_t before = boot_ns();
    Fd fd(open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    require(fd.valid(), "open " + draft);
    write_whole(fd.get(), data.get(), plan.size, 0);
    require(fsync(fd.get()) == 0, "fsync");
    fd.reset();
    require(rename(draft.c_str(), path.c_str()) == 0, "rename " + draft);
    times.push_back(boot_ns() - before);
  }
  return times;
}

// New data from beginning to end and one fdatasync; the time of the whole is in wall_ns.
std::vector<int64_t> write_sequence(const Plan& plan) {
  Buffer data = filled(plan.size);
  const std::string path = plan.dir + "/sequence";
  Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  require(fd.valid(), "open " + path);
  std::vector<int64_t> times;
  times.reserve(plan.count);
  for (size_t i = 0; i < plan.count; i++) {
    const int64_t before = boot_ns();
    write_whole(fd.get(), data.get(), plan.size, i * plan.size);
    times.push_back(boot_ns() - before);
  }
  require(fdatasync(fd.get()) == 0, "fdatasync");
  return times;
}

std::vector<int64_t> run_job(const Plan& plan) {
  if (plan.job == "fdatasync") return overwrite(plan, 0, true);
  if (plan.job == "dsync") return overwrite(plan, O_DSYNC, false);
  if (plan.job == "buffered") return overwrite(plan, 0, false);
  if (plan.job == "small") return replace_files(plan);
  if (plan.job == "sequential") return write_sequence(plan);
  die("job is fdatasync, dsync, buffered, small or sequential, not " + plan.job);
}

}  // namespace

// lab_tool write dir=FOLDER job=NAME [count=N] [size=BYTES] [span=BYTES]
// Prints {"ops","wall_ns","p50_ns","p99_ns","max_ns","mean_ns"}; the first twentieth warms up and
// is not counted in the distribution.
int run_write(const Args& args) {
  const Options options = parse_options(
      args, {{"dir", ""}, {"job", ""}, {"count", "1000"}, {"size", "4096"}, {"span", "16777216"}});
  const Plan plan{options.at("dir"), options.at("job"), number(options, "count"),
                  number(options, "size"), number(options, "span")};
  if (plan.dir.empty() || plan.count == 0 || plan.size == 0) die("dir, count and size are needed");
  const int64_t before = boot_ns();
  std::vector<int64_t> times = run_job(plan);
  const int64_t wall = boot_ns() - before;
  times.erase(times.begin(), times.begin() + static_cast<long>(times.size() / 20));
  std::sort(times.begin(), times.end());
  int64_t sum = 0;
  for (int64_t time : times) sum += time;
  const auto at = [&](double share) {
    return static_cast<long long>(
        times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))]);
  };
  std::printf(
      "{\"ops\":%zu,\"wall_ns\":%lld,\"p50_ns\":%lld,\"p99_ns\":%lld,\"max_ns\":%lld,"
      "\"mean_ns\":%lld}\n",
      plan.count, static_cast<long long>(wall), at(0.5), at(0.99), at(1.0),
      static_cast<long long>(sum / static_cast<int64_t>(times.size())));
  return 0;
}

}  // namespace holdfast::lab
