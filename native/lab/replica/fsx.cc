// replica_tool fsx DIR --seed S --seconds N [--ops K] [--keep 1]: random operations on a few files
// beside a model of each in memory; the first difference ends the program with seed, operation and
// range. The idea is that of Apple's fsx.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "common/clock.h"
#include "tool.h"

namespace holdfast::replica_tool {
namespace {

constexpr size_t page = 4096;
constexpr size_t max_size = 512 * 1024;
constexpr size_t files = 3;
constexpr size_t remembered = 40;

struct Range {
  size_t offset;
  size_t length;
};

struct File {
  std::string name;
  std::string model;
  Fd cached, direct, appending;
  char* mapping = nullptr;  // of max_size bytes, for the file's whole life
};

class Checker {
 public:
  Checker(const std::string& folder, uint64_t seed, bool keep)
      : seed_(seed), random_(seed), keep_(keep) {
    require(chdir(folder.c_str()) == 0, folder);
    buffer_ = static_cast<char*>(std::aligned_alloc(page, max_size));
    for (size_t i = 0; i < files; i++) {
      files_[i].name = "fsx-" + std::to_string(seed) + "-" + std::to_string(i);
      reopen(files_[i], O_CREAT | O_TRUNC);
    }
  }
  Checker(const Checker&) = delete;
  Checker& operator=(const Checker&) = delete;
  ~Checker() {
    for (File& file : files_) {
      munmap(file.mapping, max_size);
      if (!keep_) unlink(file.name.c_str());
    }
    std::free(buffer_);
  }

  void step();
  void check_all() {
    for (File& file : files_) check_whole(file);
  }
  uint64_t operations() const { return operation_; }
  uint64_t unsupported() const { return unsupported_; }

 private:
  [[noreturn]] void fail(const File& file, const std::string& what);
  void note(const File& file, const char* what, const Range& range);
  void expect(const File& file, const char* what, ssize_t got, size_t wanted);
  void compare(const File& file, const char* what, const char* got, const Range& range);
  void check_size(const File& file);
  void check_whole(File& file);
  void check_holes(File& file);

  Range any(size_t longest);
  Range inside(const File& file, size_t longest);
  static void aligned(Range& range);
  void put(File& file, const Range& range);
  void resize(File& file, size_t size);

  void reopen(File& file, int flags);
  void read_some(File& file);
  void write_some(File& file);
  void write_direct(File& file);
  void read_direct(File& file);
  void append(File& file);
  void truncate_to(File& file);
  void allocate(File& file, int mode, const char* what);
  void store(File& file);
  void load(File& file);
  void copy(File& file);
  void sync(File& file);

  uint64_t seed_;
  Random random_;
  bool keep_;
  File files_[files];
  char* buffer_ = nullptr;
  uint64_t operation_ = 0;
  uint64_t unsupported_ = 0;
  std::deque<std::string> notes_;
};

void Checker::fail(const File& file, const std::string& what) {
  for (const std::string& line : notes_) std::printf("%s\n", line.c_str());
  std::printf("fsx: seed %lu, operation %lu, %s: %s\n", seed_, operation_, file.name.c_str(),
              what.c_str());
  std::fflush(stdout);
  _exit(1);
}

void Checker::note(const File& file, const char* what, const Range& range) {
  notes_.push_back(std::to_string(operation_) + " " + file.name + " " + what + " " +
                   std::to_string(range.offset) + "+" + std::to_string(range.length) + " of " +
                   std::to_string(file.model.size()));
  if (notes_.size() > remembered) notes_.pop_front();
}

void Checker::expect(const File& file, const char* what, ssize_t got, size_t wanted) {
  if (got == static_cast<ssize_t>(wanted)) return;
  fail(file, std::string(what) + ": " +
                 (got < 0 ? error_name(errno) : "returned " + std::to_string(got)) + ", not " +
                 std::to_string(wanted));
}

void Checker::compare(const File& file, const char* what, const char* got, const Range& range) {
  const char* model = file.model.data() + range.offset;
  if (std::memcmp(got, model, range.length) == 0) return;
  size_t first = 0, last = range.length - 1;
  while (got[first] == model[first]) first++;
  while (got[last] == model[last]) last--;
  char text[160];
  std::snprintf(text, sizeof(text), "%s: differs from %zu to %zu; at the first byte %02x, not %02x",
                what, range.offset + first, range.offset + last,
                static_cast<unsigned char>(got[first]), static_cast<unsigned char>(model[first]));
  fail(file, text);
}

void Checker::check_size(const File& file) {
  struct stat by_fd {
  }, by_name{};
  require(fstat(file.cached.get(), &by_fd) == 0, "fstat");
  require(stat(file.name.c_str(), &by_name) == 0, "stat");
  expect(file, "size by descriptor", by_fd.st_size, file.model.size());
  expect(file, "size by name", by_name.st_size, file.model.size());
}

void Checker::check_holes(File& file) {
  // Over FUSE the kernel asks the server without writing stores back first.
  require(msync(file.mapping, max_size, MS_SYNC) == 0, "msync");
  const int fd = file.cached.get();
  off_t at = 0;
  while (at < static_cast<off_t>(file.model.size())) {
    const off_t hole = lseek(fd, at, SEEK_HOLE);
    if (hole < 0) fail(file, "SEEK_HOLE: " + error_name(errno));
    off_t data = lseek(fd, hole, SEEK_DATA);
    if (data < 0 && errno != ENXIO) fail(file, "SEEK_DATA: " + error_name(errno));
    if (data < 0) data = static_cast<off_t>(file.model.size());
    const auto from = file.model.begin() + hole, to = file.model.begin() + data;
    if (std::any_of(from, to, [](char c) { return c != 0; })) {
      fail(file, "data in what SEEK_HOLE calls a hole at " + std::to_string(hole));
    }
    if (data <= at) break;
    at = data;
  }
}

void Checker::check_whole(File& file) {
  check_size(file);
  const Fd fd(open(file.name.c_str(), O_RDONLY | O_CLOEXEC));
  const Range all{0, file.model.size()};
  expect(file, "whole read", pread(fd.get(), buffer_, max_size, 0), all.length);
  compare(file, "whole read", buffer_, all);
  check_holes(file);
}

Range Checker::any(size_t longest) {
  const size_t offset = random_.below(max_size - 1);
  return {offset, 1 + random_.below(std::min(longest, max_size - offset))};
}

Range Checker::inside(const File& file, size_t longest) {
  const size_t offset = random_.below(file.model.size());
  return {offset, 1 + random_.below(std::min(longest, file.model.size() - offset))};
}

void Checker::aligned(Range& range) {
  range.offset &= ~(page - 1);
  range.length = std::min((range.length + page - 1) & ~(page - 1), max_size - range.offset);
}

/** New bytes in buffer_ and in the model. */
void Checker::put(File& file, const Range& range) {
  fill(buffer_, range.length, random_.next());
  if (file.model.size() < range.offset + range.length) {
    file.model.resize(range.offset + range.length);
  }
  std::memcpy(file.model.data() + range.offset, buffer_, range.length);
}

void Checker::resize(File& file, size_t size) {
  file.model.resize(size);
}

void Checker::reopen(File& file, int flags) {
  note(file, "reopen", {0, 0});
  if (file.mapping != nullptr) munmap(file.mapping, max_size);
  const char* name = file.name.c_str();
  file.cached.reset(open(name, O_RDWR | O_CLOEXEC | flags, 0644));
  require(file.cached.valid(), file.name);
  file.direct.reset(open(name, O_RDWR | O_CLOEXEC | O_DIRECT));
  file.appending.reset(open(name, O_WRONLY | O_CLOEXEC | O_APPEND));
  if (!file.direct.valid() || !file.appending.valid()) fail(file, "open: " + error_name(errno));
  void* memory = mmap(nullptr, max_size, PROT_READ | PROT_WRITE, MAP_SHARED, file.cached.get(), 0);
  if (memory == MAP_FAILED) fail(file, "mmap: " + error_name(errno));
  file.mapping = static_cast<char*>(memory);
}

void Checker::read_some(File& file) {
  const Range range = any(128 * 1024);
  note(file, "read", range);
  const size_t size = file.model.size();
  const size_t there = range.offset >= size ? 0 : std::min(range.length, size - range.offset);
  expect(file, "read",
         pread(file.cached.get(), buffer_, range.length, static_cast<off_t>(range.offset)), there);
  if (there > 0) compare(file, "read", buffer_, {range.offset, there});
}

void Checker::write_some(File& file) {
  const Range range = any(random_.chance(10) ? max_size : 20'000);
  const bool durable = random_.chance(10);
  note(file, durable ? "write, RWF_DSYNC" : "write", range);
  put(file, range);
  const iovec part{buffer_, range.length};
  expect(file, "write",
         pwritev2(file.cached.get(), &part, 1, static_cast<off_t>(range.offset),
                  durable ? RWF_DSYNC : 0),
         range.length);
}

void Checker::write_direct(File& file) {
  Range range = any(64 * 1024);
  aligned(range);
  note(file, "direct write", range);
  put(file, range);
  expect(file, "direct write",
         pwrite(file.direct.get(), buffer_, range.length, static_cast<off_t>(range.offset)),
         range.length);
}

void Checker::read_direct(File& file) {
  Range range = any(128 * 1024);
  aligned(range);
  note(file, "direct read", range);
  const size_t size = file.model.size();
  const size_t there = range.offset >= size ? 0 : std::min(range.length, size - range.offset);
  expect(file, "direct read",
         pread(file.direct.get(), buffer_, range.length, static_cast<off_t>(range.offset)), there);
  if (there > 0) compare(file, "direct read", buffer_, {range.offset, there});
}

void Checker::append(File& file) {
  const size_t room = max_size - file.model.size();
  if (room == 0) return;
  const Range range{file.model.size(), 1 + random_.below(std::min(room, size_t{10'000}))};
  note(file, "append", range);
  put(file, range);
  expect(file, "append", write(file.appending.get(), buffer_, range.length), range.length);
}

void Checker::truncate_to(File& file) {
  const size_t size = random_.chance(10) ? 0 : random_.below(max_size);
  note(file, "truncate", {size, 0});
  resize(file, size);
  const int result = random_.chance(50) ? ftruncate(file.cached.get(), static_cast<off_t>(size))
                                        : truncate(file.name.c_str(), static_cast<off_t>(size));
  expect(file, "truncate", result, 0);
  check_size(file);
}

void Checker::allocate(File& file, int mode, const char* what) {
  const Range range = any(64 * 1024);
  note(file, what, range);
  const int result = fallocate(file.cached.get(), mode, static_cast<off_t>(range.offset),
                               static_cast<off_t>(range.length));
  if (result != 0 && errno == EOPNOTSUPP) {
    unsupported_++;
    return;
  }
  expect(file, what, result, 0);
  const size_t end = range.offset + range.length;
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && file.model.size() < end) resize(file, end);
  if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
    const size_t from = std::min(range.offset, file.model.size());
    const size_t to = std::min(end, file.model.size());
    std::fill(file.model.data() + from, file.model.data() + to, '\0');
  }
  check_size(file);
}

void Checker::store(File& file) {
  if (file.model.empty()) return;
  const Range range = inside(file, 20'000);
  const bool durable = random_.chance(50);
  note(file, durable ? "store, msync" : "store", range);
  put(file, range);
  std::memcpy(file.mapping + range.offset, buffer_, range.length);
  if (durable) expect(file, "msync", msync(file.mapping, max_size, MS_SYNC), 0);
}

void Checker::load(File& file) {
  if (file.model.empty()) return;
  const Range range = inside(file, 128 * 1024);
  note(file, "load", range);
  compare(file, "load", file.mapping + range.offset, range);
}

void Checker::copy(File& file) {
  File& from = files_[random_.below(files)];
  if (from.model.empty()) return;
  Range range = inside(from, 100'000);
  size_t to = random_.below(max_size);
  range.length = std::min(range.length, max_size - to);
  const bool overlaps =
      &from == &file && to < range.offset + range.length && range.offset < to + range.length;
  if (overlaps) return;
  note(file, ("copy from " + from.name + " " + std::to_string(range.offset) + " to").c_str(),
       {to, range.length});
  size_t done = 0;
  while (done < range.length) {
    auto in = static_cast<off64_t>(range.offset + done), out = static_cast<off64_t>(to + done);
    const ssize_t got =
        copy_file_range(from.cached.get(), &in, file.cached.get(), &out, range.length - done, 0);
    if (got <= 0) fail(file, "copy_file_range: " + (got < 0 ? error_name(errno) : "returned 0"));
    done += static_cast<size_t>(got);
  }
  const std::string bytes = from.model.substr(range.offset, range.length);
  if (file.model.size() < to + range.length) resize(file, to + range.length);
  std::memcpy(file.model.data() + to, bytes.data(), bytes.size());
}

void Checker::sync(File& file) {
  note(file, "fsync", {0, 0});
  const bool data_only = random_.chance(50);
  expect(file, "fsync", data_only ? fdatasync(file.cached.get()) : fsync(file.cached.get()), 0);
}

void Checker::step() {
  File& file = files_[random_.below(files)];
  operation_++;
  const uint64_t kind = random_.below(100);
  if (kind < 18) return read_some(file);
  if (kind < 38) return write_some(file);
  if (kind < 44) return write_direct(file);
  if (kind < 50) return read_direct(file);
  if (kind < 55) return append(file);
  if (kind < 62) return truncate_to(file);
  if (kind < 66) return allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch");
  if (kind < 69) return allocate(file, FALLOC_FL_ZERO_RANGE, "zero");
  if (kind < 71) return allocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero, keep");
  if (kind < 73) return allocate(file, 0, "allocate");
  if (kind < 74) return allocate(file, FALLOC_FL_KEEP_SIZE, "allocate, keep");
  if (kind < 83) return store(file);
  if (kind < 90) return load(file);
  if (kind < 94) return copy(file);
  if (kind < 97) return sync(file);
  if (kind < 98) return reopen(file, 0);
  check_whole(file);
}

}  // namespace

int run_fsx(const Args& args) {
  const Options options =
      parse_options(args, {{"seed", "1"}, {"seconds", "10"}, {"ops", "0"}, {"keep", "0"}}, 1);
  const uint64_t seed = options.number("seed"), limit = options.number("ops");
  Checker checker(options.words[0], seed, options.number("keep") != 0);
  const int64_t end = boot_ns() + static_cast<int64_t>(options.number("seconds")) * ns_per_s;
  while (boot_ns() < end && (limit == 0 || checker.operations() < limit)) checker.step();
  checker.check_all();
  std::printf("fsx: seed %lu: %lu operations, no difference, %lu unsupported\n", seed,
              checker.operations(), checker.unsupported());
  return 0;
}

}  // namespace holdfast::replica_tool
