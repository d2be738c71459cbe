#pragma once
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "test/replica_source.h"

namespace holdfast::replica::test {

inline constexpr Time some_time{1'600'000'000, 5, 0};

/** One volume, and a process that applies to it; records by hand. */
struct Place {
  explicit Place(ApplyMode mode = ApplyMode::normal) { begin(mode); }

  void begin(ApplyMode mode) {
    changes.reset();
    life.reset();
    life = std::make_unique<Life>(copy);
    changes = std::make_unique<Changes>(life->tree, life->ids, nullptr);
    changes->on_missing([this](const Missing& m) { missing.push_back(m); });
    REQUIRE(changes->begin(mode) == 0);
  }

  std::string apply(Kind kind, FileId file, std::vector<iovec> parts, uint16_t flags = 0) {
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(parts, head);
    Bytes bytes(record_size(head.payload_size));
    write_record(bytes.data(), head, parts, tail, 1);
    said.push_back(bytes);
    return apply_one(*changes, bytes);
  }
  std::string inode(FileId file, uint32_t mode, uint64_t size = 0, std::string xattrs = {},
                    bool values = true, uint32_t more = inode_all_follows) {
    InodeBody body{};
    body.size = size;
    body.atime = body.mtime = some_time;
    body.mode = mode;
    body.flags = more | (values ? uint32_t{inode_with_values} : 0);
    body.xattrs_size = static_cast<uint32_t>(xattrs.size());
    return apply(Kind::inode, file, {{&body, sizeof body}, {xattrs.data(), xattrs.size()}});
  }
  std::string entry(FileId parent, std::string name, FileId file, uint32_t type = S_IFREG) {
    EntryBody body{parent, some_time, static_cast<uint32_t>(name.size()), file == 0 ? 0 : type};
    return apply(Kind::entry, file == 0 ? parent : file,
                 {{&body, sizeof body}, {name.data(), name.size()}});
  }
  std::string listing(FileId folder, std::vector<std::string> names) {
    ListingBody body{0, 0, static_cast<uint32_t>(names.size()), 0, some_time};
    std::string list;
    for (const std::string& name : names) {
      const auto size = static_cast<uint16_t>(name.size());
      list.append(reinterpret_cast<const char*>(&size), sizeof size);
      list += name;
    }
    return apply(Kind::listing, folder, {{&body, sizeof body}, {list.data(), list.size()}});
  }
  std::string link(FileId parent, std::string name, FileId file) {
    LinkBody body{parent, some_time, static_cast<uint32_t>(name.size()), 0};
    return apply(Kind::link, file, {{&body, sizeof body}, {name.data(), name.size()}});
  }
  std::string unlink(FileId parent, std::string name, FileId file) {
    UnlinkBody body{parent, some_time, static_cast<uint32_t>(name.size()), 0};
    return apply(Kind::unlink, file, {{&body, sizeof body}, {name.data(), name.size()}},
                 flag_last_name);
  }
  std::string write(FileId file, std::string text) {
    WriteBody body{0, some_time};
    return apply(Kind::write, file, {{&body, sizeof body}, {text.data(), text.size()}});
  }
  /** A file without a name that takes the place of another one. */
  std::string replace(FileId parent, std::string name, FileId file, FileId replaced) {
    RenameBody body{};
    body.parent = body.new_parent = parent;
    body.replaced = replaced;
    body.parent_mtime = body.new_parent_mtime = some_time;
    body.name_size = body.new_name_size = static_cast<uint16_t>(name.size());
    return apply(Kind::rename, file,
                 {{&body, sizeof body}, {name.data(), name.size()}, {name.data(), name.size()}},
                 flag_last_name);
  }
  /** Another name for a file, or in another folder; nothing is there. */
  std::string move(FileId file, FileId parent, std::string name, FileId to, std::string as) {
    RenameBody body{};
    body.parent = parent;
    body.new_parent = to;
    body.parent_mtime = body.new_parent_mtime = some_time;
    body.name_size = static_cast<uint16_t>(name.size());
    body.new_name_size = static_cast<uint16_t>(as.size());
    return apply(Kind::rename, file,
                 {{&body, sizeof body}, {name.data(), name.size()}, {as.data(), as.size()}});
  }
  /** A file with content at a name, by records. */
  void put(FileId parent, const std::string& name, FileId file, const std::string& text) {
    REQUIRE(inode(file, S_IFREG | 0644) == "");
    if (!text.empty()) REQUIRE(write(file, text) == "");
    REQUIRE(link(parent, name, file) == "");
    REQUIRE(changes->flush_times() == 0);
  }
  void put_folder(FileId parent, const std::string& name, FileId folder) {
    REQUIRE(inode(folder, S_IFDIR | 0755) == "");
    REQUIRE(entry(parent, name, folder, S_IFDIR) == "");
    REQUIRE(changes->flush_times() == 0);
  }

  std::string at(const std::string& name) const { return copy.scratch.at("v1/") + name; }
  bool there(const std::string& name) const {
    return faccessat(AT_FDCWD, at(name).c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
  }
  std::string text(const std::string& name) const {
    const Fd fd(open(at(name).c_str(), O_RDONLY));
    char buffer[100];
    const ssize_t size = read(fd.get(), buffer, sizeof buffer);
    return {buffer, static_cast<size_t>(std::max<ssize_t>(size, 0))};
  }
  void put_foreign(const std::string& name, const std::string& text) const {
    const Fd fd(open(at(name).c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600));
    REQUIRE(::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  uint8_t flags(FileId id) const {
    IdEntry found;
    REQUIRE(life->ids.get(id, found));
    return found.flags;
  }
  nlink_t links(const std::string& name) const {
    struct stat now;
    REQUIRE(stat(at(name).c_str(), &now) == 0);
    return now.st_nlink;
  }

  History nothing{1, {}};
  Copy copy{nothing};
  std::unique_ptr<Life> life;
  std::unique_ptr<Changes> changes;
  std::vector<Missing> missing;
  Tail tail;
  std::vector<Bytes> said;  // all records
};

}  // namespace holdfast::replica::test
