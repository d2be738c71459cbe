#pragma once
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "replica/changes.h"
#include "replica/xattrs.h"
#include "test/replica_copy.h"

/** Statements of how a copy's directories are. */
namespace holdfast::replica::test {

using Bytes = std::vector<uint8_t>;

/** The source of a resync as far as records go: reads its directories, and states how they are. */
class Source {
 public:
  explicit Source(const Life& life) : life_(const_cast<Life&>(life)) {}

  /** All of a file but its names and data; empty: there is no such file. */
  Bytes inode(FileId id, bool values = true) {
    struct stat now;
    const Result<FileRef> file = open(id, now);
    if (!file.ok()) return {};
    InodeBody body{};
    body.size = S_ISREG(now.st_mode) ? static_cast<uint64_t>(now.st_size) : 0;
    body.atime = time_of(now.st_atim);
    body.mtime = time_of(now.st_mtim);
    body.mode = now.st_mode;
    body.uid = now.st_uid;
    body.gid = now.st_gid;
    body.rdev = static_cast<uint32_t>(now.st_rdev);
    body.volume = file.value->volume;
    body.flags = values ? uint32_t{inode_with_values} : 0;
    char target[256];
    ssize_t size = 0;
    if (S_ISLNK(now.st_mode)) {
      size = readlinkat(file.value->fd.get(), "", target, sizeof target);
    }
    body.target_size = static_cast<uint32_t>(size);
    Bytes xattrs;
    REQUIRE(read_xattrs(ProcPath(file.value->fd.get()).text, values, xattrs) == 0);
    body.xattrs_size = static_cast<uint32_t>(xattrs.size());
    return record(Kind::inode, id,
                  {{&body, sizeof body},
                   {target, static_cast<size_t>(size)},
                   {xattrs.data(), xattrs.size()}});
  }

  /** What a name is; empty: there is no such folder. */
  Bytes entry(FileId parent, std::string name) {
    struct stat now, above;
    const Result<FileRef> folder = open(parent, above);
    if (!folder.ok()) return {};
    Handle handle;
    FileId id = 0;
    EntryBody body{};
    if (life_.tree.identify(folder.value->fd.get(), name.c_str(), handle, now) == 0) {
      id = life_.ids.find(folder.value->volume, handle);
      body.type = now.st_mode & S_IFMT;
    }
    body.parent = parent;
    body.parent_mtime = time_of(above.st_mtim);
    body.name_size = static_cast<uint32_t>(name.size());
    return record(Kind::entry, id == 0 ? parent : id,
                  {{&body, sizeof body}, {name.data(), name.size()}});
  }

  /** The names between two others. */
  Bytes listing(FileId id, std::string after = {}, std::string upto = {}) {
    struct stat now;
    const Result<FileRef> folder = open(id, now);
    if (!folder.ok() || folder.value->type != S_IFDIR) return {};
    std::vector<std::string> names;
    REQUIRE(list_names(folder.value->fd.get(), names) == 0);
    std::sort(names.begin(), names.end());
    ListingBody body{};
    Bytes list;
    for (const std::string& name : names) {
      if (name <= after || (!upto.empty() && name > upto)) continue;
      const auto size = static_cast<uint16_t>(name.size());
      list.insert(list.end(), reinterpret_cast<const uint8_t*>(&size),
                  reinterpret_cast<const uint8_t*>(&size) + sizeof size);
      list.insert(list.end(), name.begin(), name.end());
      body.count++;
    }
    body.after_size = static_cast<uint32_t>(after.size());
    body.upto_size = static_cast<uint32_t>(upto.size());
    body.mtime = time_of(now.st_mtim);
    return record(Kind::listing, id,
                  {{&body, sizeof body},
                   {after.data(), after.size()},
                   {upto.data(), upto.size()},
                   {list.data(), list.size()}});
  }

  /** The content of a file; empty: it has none. */
  Bytes data(FileId id) {
    struct stat now;
    const Result<FileRef> file = open(id, now);
    if (!file.ok() || file.value->type != S_IFREG || now.st_size == 0) return {};
    Bytes content(static_cast<size_t>(now.st_size));
    REQUIRE(pread(file.value->fd.get(), content.data(), content.size(), 0) == now.st_size);
    WriteBody body{0, time_of(now.st_mtim)};
    return record(Kind::write, id, {{&body, sizeof body}, {content.data(), content.size()}});
  }

  Bytes record(Kind kind, FileId file, std::vector<iovec> parts, uint16_t flags = 0) {
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(parts, head);
    Bytes out(record_size(head.payload_size));
    write_record(out.data(), head, parts, tail, 1);
    return out;
  }

  Tail tail;

 private:
  /** Not of one that is removed and still open. */
  Result<FileRef> open(FileId id, struct stat& now) {
    Result<FileRef> file = life_.tree.open(id);
    if (!file.ok()) return file;
    REQUIRE(fstat(file.value->fd.get(), &now) == 0);
    return now.st_nlink > 0 ? std::move(file) : Result<FileRef>::failure(ESTALE, "open");
  }
  static Time time_of(const timespec& time) {
    return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec), 0};
  }
  Life& life_;
};

inline std::string apply_one(Changes& changes, const Bytes& bytes) {
  Record record;
  const ParseStatus status = parse_record(bytes, record);
  if (status != ParseStatus::ok) return "parse " + std::to_string(static_cast<int>(status));
  const int error = changes.apply(record);
  return error == 0 ? ""
                    : "kind " + std::to_string(static_cast<int>(record.kind)) + ": " +
                          changes.call() + ": " + std::strerror(error);
}

}  // namespace holdfast::replica::test
