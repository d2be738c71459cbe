#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "replica/orphanage.h"
#include "replica/scan.h"
#include "replica/verify.h"
#include "replica/xattrs.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* What both sides of a comparison compute. */
namespace holdfast::replica {
namespace {

/** Hashes a sequence of fields, each with its size before it. */
class Hasher {
 public:
  Hasher() { XXH3_128bits_reset(&state_); }
  void add(const void* data, size_t size) {
    const uint64_t length = size;
    XXH3_128bits_update(&state_, &length, sizeof length);
    if (size > 0) XXH3_128bits_update(&state_, data, size);
  }
  void add(uint64_t value) { XXH3_128bits_update(&state_, &value, sizeof value); }
  Hash value() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
    return {hash.low64, hash.high64};
  }

 private:
  XXH3_state_t state_;
};

int hash_xattrs(const char* path, Hasher& hasher) {
  std::vector<uint8_t> all;
  if (const int error = read_xattrs(path, true, all); error != 0) return error;
  std::span<const uint8_t> items = all, value;
  std::string_view name;
  while (next_xattr(items, name, value)) {
    hasher.add(name.data(), name.size());
    hasher.add(value.data(), value.size());
  }
  return 0;
}

/** The offset of the first leaf that is another; ~0: none. */
uint64_t first_difference(const CheckBody& body, std::span<const uint8_t> theirs,
                          const std::vector<Hash>& ours, uint64_t our_size) {
  const size_t both = std::min<size_t>(body.count, ours.size());
  for (size_t i = 0; i < both; i++) {
    if (std::memcmp(theirs.data() + i * sizeof(Hash), &ours[i], sizeof(Hash)) != 0) {
      return body.offset + i * leaf_size;
    }
  }
  if (body.count != ours.size()) return body.offset + both * leaf_size;
  return body.size == our_size ? ~uint64_t{0} : std::min(body.size, our_size);
}

}  // namespace

int open_quietly(const Tree& tree, const IdEntry& entry, FileRef& out) {
  Result<FileRef> opened = tree.open_entry(entry);
  if (!opened.ok()) return opened.error;
  out = std::move(opened.value);
  // Refused (EPERM) on a file that is not ours to hide reads of: then the time changes.
  if (out->type == S_IFREG) fcntl(out->fd.get(), F_SETFL, O_NOATIME);
  return 0;
}

int hash_leaves(int fd, uint64_t offset, uint32_t count, std::vector<Hash>& out, uint64_t& size) {
  out.clear();
  struct stat now;
  if (fstat(fd, &now) != 0) return errno;
  size = static_cast<uint64_t>(now.st_size);
  const auto buffer = std::make_unique<uint8_t[]>(leaf_size);
  for (uint32_t i = 0; i < count && offset < size; i++, offset += leaf_size) {
    const size_t wanted = std::min<uint64_t>(leaf_size, size - offset);
    size_t filled = 0;
    while (filled < wanted) {
      const ssize_t got =
          pread(fd, buffer.get() + filled, wanted - filled, static_cast<off_t>(offset + filled));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return got < 0 ? errno : EIO;
      filled += static_cast<size_t>(got);
    }
    const XXH128_hash_t hash = XXH3_128bits(buffer.get(), filled);
    out.push_back({hash.low64, hash.high64});
  }
  return 0;
}

int hash_attributes(const OpenFile& file, Hash& out) {
  const int fd = file.fd.get();
  struct stat now;
  if (fstatat(fd, "", &now, AT_EMPTY_PATH) != 0) return errno;
  Hasher hasher;
  hasher.add(now.st_mode);
  hasher.add(now.st_uid);
  hasher.add(now.st_gid);
  const bool device = S_ISCHR(now.st_mode) || S_ISBLK(now.st_mode);
  hasher.add(device ? now.st_rdev : 0);
  hasher.add(S_ISREG(now.st_mode) ? static_cast<uint64_t>(now.st_size) : 0);
  hasher.add(static_cast<uint64_t>(now.st_mtim.tv_sec));
  hasher.add(static_cast<uint64_t>(now.st_mtim.tv_nsec));
  if (S_ISLNK(now.st_mode)) {
    char target[4096];
    const ssize_t size = readlinkat(fd, "", target, sizeof target);
    if (size < 0) return errno;
    hasher.add(target, static_cast<size_t>(size));
  }
  if (const int error = hash_xattrs(ProcPath(fd).text, hasher); error != 0) return error;
  out = hasher.value();
  return 0;
}

int hash_entries(const Tree& tree, const Ids& ids, const OpenFile& directory, Hash& out,
                 uint64_t& entries) {
  std::vector<std::string> names;
  if (const int error = list_names(directory.fd.get(), names); error != 0) return error;
  std::sort(names.begin(), names.end());
  Hasher hasher;
  entries = 0;
  for (const std::string& name : names) {
    Handle handle;
    struct stat attributes;
    const int error = tree.identify(directory.fd.get(), name.c_str(), handle, attributes);
    if (error == ENOENT) continue;
    if (error != 0) return error;
    IdEntry entry;
    const FileId id = ids.find(directory.volume, handle);
    if (id == 0 || !ids.get(id, entry) || (entry.flags & id_local) != 0) continue;
    hasher.add(name.data(), name.size());
    hasher.add(id);
    entries++;
  }
  out = hasher.value();
  return 0;
}

bool parse_check(std::span<const uint8_t> bytes, CheckBody& body,
                 std::span<const uint8_t>& hashes) {
  if (bytes.size() < sizeof body) return false;
  std::memcpy(&body, bytes.data(), sizeof body);
  hashes = bytes.subspan(sizeof body);
  if (hashes.size() != size_t{body.count} * sizeof(Hash)) return false;
  switch (static_cast<Check>(body.kind)) {
    case Check::data:
      return body.count <= leaves_per_check && body.offset % leaf_size == 0 &&
             body.offset <= INT64_MAX;
    case Check::attributes:
    case Check::entries:
      return body.count == 1;
    case Check::end:
      return body.count == 0;
  }
  return false;
}

bool compare(const Tree& tree, const Ids& ids, FileId file, const CheckBody& body,
             std::span<const uint8_t> hashes, CheckResult& result) {
  const auto kind = static_cast<Check>(body.kind);
  IdEntry entry;
  FileRef open;
  int error = ids.get(file, entry) ? open_quietly(tree, entry, open) : ESTALE;
  std::vector<Hash> ours(1);
  uint64_t size = 0;
  if (error == 0 && kind == Check::data) {
    // No more than were sent: that the file is longer here is seen by the size.
    error = open->type == S_IFREG ? hash_leaves(open->fd.get(), body.offset, body.count, ours, size)
                                  : EINVAL;
  } else if (error == 0 && kind == Check::attributes) {
    error = hash_attributes(*open, ours[0]);
  } else if (error == 0) {
    error = open->type == S_IFDIR ? hash_entries(tree, ids, *open, ours[0], size) : ENOTDIR;
  }
  uint64_t offset = 0;
  if (error == 0) {
    const bool sized = kind != Check::attributes;
    offset = kind == Check::data ? first_difference(body, hashes, ours, size)
             : std::memcmp(hashes.data(), ours.data(), sizeof(Hash)) == 0 &&
                     (!sized || size == body.size)
                 ? ~uint64_t{0}
                 : 0;
    if (offset == ~uint64_t{0}) return true;
  }
  result.kind = body.kind;
  result.error = error;
  result.file = file;
  result.offset = offset;
  return false;
}

}  // namespace holdfast::replica
