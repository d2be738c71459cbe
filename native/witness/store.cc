#include "witness/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "common/sha256.h"

namespace holdfast::witness {
namespace {

constexpr uint64_t file_magic = 0x3154494e54574648;  // "HFWTNIT1"
constexpr char temporary[] = ".new";

/** What a file holds. */
struct FileContent {
  uint64_t magic = file_magic;
  uint64_t inode = 0;
  int64_t born_s = 0;  // 0: the file system does not tell
  int64_t born_ns = 0;
  char module[module_size_max] = {};
  Record record;
};
static_assert(sizeof(FileContent) == 96);

struct File {
  FileContent content;
  uint8_t sha256[Sha256::digest_size] = {};
};
static_assert(sizeof(File) == 128);

void digest_of(const FileContent& content, uint8_t* digest) {
  Sha256 hash;
  hash.update(&content, sizeof content);
  hash.finish(digest);
}

bool is_sealed(const File& file) {
  uint8_t digest[Sha256::digest_size];
  digest_of(file.content, digest);
  return std::memcmp(file.sha256, digest, sizeof digest) == 0;
}

/** What no copy of the file has. False: errno. */
bool birth_of(int fd, FileContent& content) {
  struct statx about {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &about) != 0) return false;
  content.inode = about.stx_ino;
  const bool told = (about.stx_mask & STATX_BTIME) != 0;
  content.born_s = told ? about.stx_btime.tv_sec : 0;
  content.born_ns = told ? about.stx_btime.tv_nsec : 0;
  return true;
}

bool write_all(int fd, const void* data, size_t size) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = write(fd, at, size);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    at += done;
    size -= static_cast<size_t>(done);
  }
  return true;
}

/** A whole file of just that size. */
bool read_all(int fd, void* data, size_t size) {
  struct stat about {};
  if (fstat(fd, &about) != 0 || about.st_size != static_cast<off_t>(size)) return false;
  return pread(fd, data, size, 0) == static_cast<ssize_t>(size);
}

int kernel_rename(int folder, const char* from, const char* to) {
  return renameat(folder, from, folder, to);
}

Reply refused(std::string text) {
  return {Outcome::unreachable, std::nullopt, std::move(text)};
}

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

}  // namespace

bool is_module(std::string_view name) {
  const auto is_alnum = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  };
  if (name.empty() || name.size() > module_size_max || !is_alnum(name[0])) return false;
  return std::all_of(name.begin(), name.end(),
                     [&](char c) { return is_alnum(c) || c == '_' || c == '-' || c == '.'; });
}

Result<bool> Store::open(const std::string& folder, const StoreCalls& calls) {
  calls_ = calls;
  if (calls_.fsync == nullptr) calls_.fsync = ::fsync;
  if (calls_.rename == nullptr) calls_.rename = kernel_rename;
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return Result<bool>::failure(errno, "mkdir");
  }
  folder_.reset(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder_.valid()) return Result<bool>::failure(errno, "open");
  const std::unique_ptr<DIR, CloseDir> dir(opendir(folder.c_str()));
  if (!dir) return Result<bool>::failure(errno, "opendir");
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (is_module(name)) names.emplace_back(name);
    if (names.size() > modules_max) return Result<bool>::failure(EOVERFLOW, "readdir");
  }
  if (errno != 0) return Result<bool>::failure(errno, "readdir");
  for (const auto& name : names) {
    const auto loaded = load(name);
    if (!loaded.ok()) return loaded;
  }
  // What a former process had renamed and not made durable is durable before it is told.
  if (calls_.fsync(folder_.get()) != 0) return Result<bool>::failure(errno, "fsync");
  return Result<bool>::success(true);
}

Result<bool> Store::load(const std::string& name) {
  const Fd fd(openat(folder_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return Result<bool>::failure(errno, "open");
  if (calls_.fsync(fd.get()) != 0) return Result<bool>::failure(errno, "fsync");
  File file;
  FileContent here;
  if (!birth_of(fd.get(), here)) return Result<bool>::failure(errno, "statx");
  const FileContent& content = file.content;
  const bool is_whole =
      read_all(fd.get(), &file, sizeof file) && content.magic == file_magic && is_sealed(file) &&
      name == std::string_view(content.module, strnlen(content.module, module_size_max)) &&
      is_valid(content.record);
  if (!is_whole) {
    damaged_++;
    records_[name] = {};
    return Result<bool>::success(false);
  }
  if (content.inode != here.inode || content.born_s != here.born_s ||
      content.born_ns != here.born_ns) {
    restored_++;
    return set_aside(name);
  }
  records_[name] = {content.record};
  return Result<bool>::success(true);
}

Result<bool> Store::set_aside(const std::string& name) {
  const std::string aside = ".restored-" + name;
  if (calls_.rename(folder_.get(), name.c_str(), aside.c_str()) != 0) {
    return Result<bool>::failure(errno, "rename");
  }
  return Result<bool>::success(false);
}

Reply Store::read(std::string_view module) const {
  if (is_broken_) return refused("the witness lost its disk");
  if (!is_module(module)) return refused("no name of a module");
  const auto found = records_.find(module);
  if (found == records_.end()) return {Outcome::record, std::nullopt, ""};
  if (!found->second.record) return refused("the record is damaged");
  return {Outcome::record, found->second.record, ""};
}

Reply Store::swap(std::string_view module, const std::optional<Record>& from, const Record& to) {
  const Reply now = read(module);
  if (now.outcome != Outcome::record) return now;
  if (!is_valid(to) || (from && !is_valid(*from))) return refused("no valid record");
  // It was heard twice, and done the first time.
  if (now.record == to) return {Outcome::won, std::nullopt, ""};
  if (now.record != from) return {Outcome::lost, now.record, ""};
  if (from && !is_later(to, *from)) return refused("not later than the record in its place");
  const bool is_new = records_.find(module) == records_.end();
  if (is_new && records_.size() >= modules_max) return refused("too many modules");
  return put(std::string(module), to);
}

Reply Store::broken(const char* call) {
  is_broken_ = true;
  return {Outcome::unknown, std::nullopt, std::string(call) + ": " + strerror(errno)};
}

Reply Store::put(const std::string& module, const Record& to) {
  const auto failed = [&](const char* call) {
    const int error = errno;
    unlinkat(folder_.get(), temporary, 0);
    return refused(std::string(call) + ": " + strerror(error));
  };
  if (unlinkat(folder_.get(), temporary, 0) != 0 && errno != ENOENT) return failed("unlink");
  const Fd fd(openat(folder_.get(), temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return failed("open");
  File file;
  std::memcpy(file.content.module, module.data(), module.size());
  file.content.record = to;
  if (!birth_of(fd.get(), file.content)) return failed("statx");
  digest_of(file.content, file.sha256);
  if (!write_all(fd.get(), &file, sizeof file)) return failed("write");
  if (calls_.fsync(fd.get()) != 0) return failed("fsync");
  if (calls_.rename(folder_.get(), temporary, module.c_str()) != 0) {
    if (errno == ENOSPC || errno == EDQUOT || errno == EROFS) return failed("rename");
    return broken("rename");
  }
  if (calls_.fsync(folder_.get()) != 0) return broken("fsync");
  records_[module] = {to};
  return {Outcome::won, std::nullopt, ""};
}

}  // namespace holdfast::witness
