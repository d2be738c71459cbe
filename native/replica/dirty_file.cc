#include "replica/dirty_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <vector>

#include "replica/disk.h"

namespace holdfast::replica {
namespace {

constexpr uint64_t file_magic = 0x3159545249444648;  // "HFDIRTY1"
constexpr size_t buffer_size = 1u << 20;

struct FileHead {
  uint64_t magic;
  uint64_t items;
  uint64_t bytes;
  uint32_t items_crc;
  uint32_t crc;
};
static_assert(sizeof(FileHead) == 32);

struct FileItem {  // then the name
  uint32_t what;
  uint32_t name_size;
  uint64_t file;
  uint64_t from;
  uint64_t to;
};
static_assert(sizeof(FileItem) == 32);

uint32_t head_crc(const FileHead& head) {
  return crc32c(0, &head, offsetof(FileHead, crc));
}

/** Writes items behind the head, which comes last. */
class Writer {
 public:
  explicit Writer(int fd) : fd_(fd) { buffer_.reserve(buffer_size + sizeof(FileItem) + NAME_MAX); }

  void add(const WorkItem& item) {
    const bool named = item.what == Work::entry;
    const FileItem fixed{static_cast<uint32_t>(item.what), static_cast<uint32_t>(item.name.size()),
                         named ? item.parent : item.file, item.from, item.to};
    const auto* bytes = reinterpret_cast<const uint8_t*>(&fixed);
    buffer_.insert(buffer_.end(), bytes, bytes + sizeof fixed);
    buffer_.insert(buffer_.end(), item.name.begin(), item.name.end());
    head_.items++;
    if (buffer_.size() >= buffer_size) flush();
  }

  int finish() {
    flush();
    if (error_ != 0) return error_;
    head_.magic = file_magic;
    head_.crc = head_crc(head_);
    return write_at(fd_, reinterpret_cast<const uint8_t*>(&head_), sizeof head_, 0);
  }

 private:
  void flush() {
    if (error_ == 0 && !buffer_.empty()) {
      error_ = write_at(fd_, buffer_.data(), buffer_.size(), sizeof head_ + head_.bytes);
    }
    head_.items_crc = crc32c(head_.items_crc, buffer_.data(), buffer_.size());
    head_.bytes += buffer_.size();
    buffer_.clear();
  }

  int fd_;
  int error_ = 0;
  FileHead head_{};
  std::vector<uint8_t> buffer_;
};

bool good_item(const FileItem& item, std::string_view name) {
  switch (static_cast<Work>(item.what)) {
    case Work::inode:
    case Work::listing:
    case Work::compare_inode:
      return item.file != 0 && name.empty();
    case Work::entry:
      return item.file != 0 && !name.empty() && name.size() <= NAME_MAX &&
             name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
    case Work::data:
    case Work::compare:
      return item.file != 0 && name.empty() && item.from < item.to && item.to <= to_the_end;
    case Work::compare_all:
      return name.empty();
    case Work::none:
      break;
  }
  return false;
}

/** Takes items from the front of `bytes`, as far as they are whole. False: one is none. */
bool take_items(std::vector<uint8_t>& bytes, uint64_t& count, DirtyState& out) {
  size_t at = 0;
  FileItem fixed;
  while (bytes.size() - at >= sizeof fixed) {
    std::memcpy(&fixed, bytes.data() + at, sizeof fixed);
    if (fixed.name_size > NAME_MAX) return false;
    if (bytes.size() - at - sizeof fixed < fixed.name_size) break;
    const std::string_view name(reinterpret_cast<char*>(bytes.data() + at + sizeof fixed),
                                fixed.name_size);
    if (!good_item(fixed, name)) return false;
    WorkItem item;
    item.what = static_cast<Work>(fixed.what);
    (item.what == Work::entry ? item.parent : item.file) = fixed.file;
    item.from = fixed.from;
    item.to = fixed.to;
    item.name = name;
    out.add(item);
    count++;
    at += sizeof fixed + fixed.name_size;
  }
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(at));
  return true;
}

int sync_folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd parent(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return parent.valid() && fsync(parent.get()) == 0 ? 0 : errno;
}

int write_new(const DirtyState& state, const std::string& path) {
  const Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  Writer writer(fd.get());
  state.for_each([&](const WorkItem& item) { writer.add(item); });
  if (const int error = writer.finish(); error != 0) return error;
  return fsync(fd.get()) == 0 ? 0 : errno;
}

}  // namespace

int save_dirty(const DirtyState& state, const std::string& path) {
  const std::string fresh = path + ".new";
  int error = write_new(state, fresh);
  if (error == 0 && rename(fresh.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return sync_folder(path);
  unlink(fresh.c_str());
  return error;
}

int load_dirty(const std::string& path, DirtyState& out) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat now;
  if (!fd.valid() || fstat(fd.get(), &now) != 0) return errno;
  const auto size = static_cast<uint64_t>(now.st_size);
  FileHead head;
  if (size < sizeof head) return EBADMSG;
  if (const int error = read_at(fd.get(), reinterpret_cast<uint8_t*>(&head), sizeof head, 0);
      error != 0) {
    return error;
  }
  if (head.magic != file_magic || head.crc != head_crc(head) || head.bytes != size - sizeof head) {
    return EBADMSG;
  }
  std::vector<uint8_t> bytes;
  uint64_t count = 0;
  uint32_t crc = 0;
  for (uint64_t at = 0; at < head.bytes;) {
    const size_t part = std::min<uint64_t>(buffer_size, head.bytes - at);
    const size_t kept = bytes.size();
    bytes.resize(kept + part);
    const int error = read_at(fd.get(), bytes.data() + kept, part, sizeof head + at);
    if (error != 0) return error;
    crc = crc32c(crc, bytes.data() + kept, part);
    if (!take_items(bytes, count, out)) return EBADMSG;
    at += part;
  }
  return crc == head.items_crc && count == head.items && bytes.empty() ? 0 : EBADMSG;
}

}  // namespace holdfast::replica
