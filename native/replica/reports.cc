#include "replica/reports.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "replica/disk.h"

namespace holdfast::replica {
namespace {

constexpr uint64_t magic = 0x3130'5045'5246'4448;  // "HDFREP01"

struct Head {
  uint64_t lsn;
  uint32_t type;
  uint32_t size;
  uint32_t crc;
  uint32_t reserved;
};
static_assert(sizeof(Head) == 24);

uint32_t crc_of(const Head& head, std::span<const uint8_t> body) {
  return crc32c(crc32c(0, &head, 16), body.data(), body.size());
}

constexpr size_t round_up(size_t size) {
  return (size + 7) & ~size_t{7};
}

/** Makes the entry of a file in its folder durable. 0 or errno. */
int sync_folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.valid() && fsync(fd.get()) == 0 ? 0 : errno;
}

}  // namespace

Result<bool> Reports::open(const std::string& path) {
  using Outcome = Result<bool>;
  const std::lock_guard lock(mutex_);
  path_ = path;
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return errno == ENOENT ? Outcome::success(false) : Outcome::failure(errno, "open");
  }
  struct stat now;
  if (fstat(fd.get(), &now) != 0) return Outcome::failure(errno, "fstat");
  std::vector<uint8_t> bytes(static_cast<size_t>(now.st_size));
  const int error = read_at(fd.get(), bytes.data(), bytes.size(), 0);
  if (error != 0) return Outcome::failure(error, "pread");
  uint64_t first[2] = {};
  if (bytes.size() >= sizeof first) std::memcpy(first, bytes.data(), sizeof first);
  if (first[0] != magic) return Outcome::failure(EBADMSG, "reports");
  dropped_ = first[1];
  file_size_ = sizeof first;
  parse(std::span(bytes).subspan(sizeof first));
  saved_ = all_.size();
  return Outcome::success(true);
}

void Reports::parse(std::span<const uint8_t> bytes) {
  while (bytes.size() >= sizeof(Head)) {
    Head head;
    std::memcpy(&head, bytes.data(), sizeof head);
    const size_t size = round_up(sizeof head + head.size);
    if (head.size > max_frame || size > bytes.size()) return;
    const std::span<const uint8_t> body = bytes.subspan(sizeof head, head.size);
    if (head.crc != crc_of(head, body)) return;
    all_.push_back({head.lsn, static_cast<Frame>(head.type), {body.begin(), body.end()}});
    memory_ += cost(all_.back());
    count_++;
    file_size_ += size;
    bytes = bytes.subspan(size);
  }
}

void Reports::drop_first() {
  memory_ -= cost(all_.front());
  dropped_ = std::max(dropped_, all_.front().lsn);
  // Nobody was told: the source can only compare.
  if (told_ == 0) lost_ = true;
  all_.pop_front();
  if (told_ > 0) told_--;
  if (saved_ > 0) saved_--;
}

void Reports::add(Lsn lsn, Frame type, std::span<const uint8_t> body) {
  const std::lock_guard lock(mutex_);
  all_.push_back({lsn, type, {body.begin(), body.end()}});
  memory_ += cost(all_.back());
  count_++;
  while (memory_ > max_memory_ && all_.size() > 1) drop_first();
}

int Reports::append(int fd, size_t from) const {
  std::vector<uint8_t> bytes;
  for (size_t i = from; i < all_.size(); i++) {
    const Report& report = all_[i];
    Head head{report.lsn, static_cast<uint32_t>(report.type),
              static_cast<uint32_t>(report.body.size()), 0, 0};
    head.crc = crc_of(head, report.body);
    const size_t at = bytes.size();
    bytes.resize(at + round_up(sizeof head + report.body.size()));
    std::memcpy(bytes.data() + at, &head, sizeof head);
    std::copy(report.body.begin(), report.body.end(), bytes.data() + at + sizeof head);
  }
  struct stat now;
  if (fstat(fd, &now) != 0) return errno;
  const auto end = static_cast<uint64_t>(now.st_size);
  const int error = write_at(fd, bytes.data(), bytes.size(), end);
  if (error != 0) return error;
  return fdatasync(fd) == 0 ? 0 : errno;
}

/** The whole file anew, in place of what is there. */
int Reports::rewrite() {
  const std::string next = path_ + ".new";
  const Fd fd(::open(next.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  const uint64_t first[2] = {magic, dropped_};
  int error = write_at(fd.get(), reinterpret_cast<const uint8_t*>(first), sizeof first, 0);
  if (error == 0) error = append(fd.get(), 0);
  if (error == 0 && rename(next.c_str(), path_.c_str()) != 0) error = errno;
  if (error == 0) error = sync_folder(path_);
  struct stat now {};
  if (error == 0 && fstat(fd.get(), &now) != 0) error = errno;
  if (error != 0) return error;
  file_size_ = static_cast<uint64_t>(now.st_size);
  saved_ = all_.size();
  return 0;
}

int Reports::save() {
  const std::lock_guard lock(mutex_);
  if (saved_ == all_.size()) return 0;
  // A file that is mostly about what is gone, and one that does not end with a whole report.
  if (file_size_ == 0 || file_size_ > 2 * max_memory_) return rewrite();
  const Fd fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return errno;
  if (ftruncate(fd.get(), static_cast<off_t>(file_size_)) != 0) return errno;
  if (const int error = append(fd.get(), saved_); error != 0) return error;
  struct stat now;
  if (fstat(fd.get(), &now) != 0) return errno;
  file_size_ = static_cast<uint64_t>(now.st_size);
  saved_ = all_.size();
  return 0;
}

void Reports::begin(Lsn heard) {
  const std::lock_guard lock(mutex_);
  if (dropped_ > heard) lost_ = true;
  size_t kept = 0;
  size_t saved = 0;
  for (size_t i = 0; i < all_.size(); i++) {
    if (all_[i].lsn <= heard) {
      memory_ -= cost(all_[i]);
      continue;
    }
    if (i < saved_) saved++;
    if (kept != i) all_[kept] = std::move(all_[i]);
    kept++;
  }
  all_.resize(kept);
  saved_ = saved;
  told_ = 0;
}

bool Reports::next(Report& out) {
  const std::lock_guard lock(mutex_);
  if (told_ == all_.size()) return false;
  out = all_[told_++];
  return true;
}

bool Reports::more() const {
  const std::lock_guard lock(mutex_);
  return told_ < all_.size();
}

bool Reports::take_lost() {
  const std::lock_guard lock(mutex_);
  return std::exchange(lost_, false);
}

int Reports::clear() {
  const std::lock_guard lock(mutex_);
  all_.clear();
  memory_ = 0;
  told_ = saved_ = 0;
  file_size_ = 0;
  dropped_ = 0;
  lost_ = false;
  return unlink(path_.c_str()) == 0 || errno == ENOENT ? 0 : errno;
}

uint64_t Reports::count() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

uint64_t Reports::kept() const {
  const std::lock_guard lock(mutex_);
  return all_.size();
}

}  // namespace holdfast::replica
