#pragma once
#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "replica/record.h"

/**
 * Random histories of replicated directories: records as a primary would make them, and beside them
 * what the directories must be after each. Few names and folders, so that names are used again,
 * folders change places and files replace each other all the time.
 */
namespace holdfast::replica::test {

struct Node {
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0, rdev = 0;
  Time mtime{};
  std::string content;  // or the target of a symbolic link
  std::map<std::string, std::string> xattrs;
  std::map<std::string, FileId> names;  // of a folder
  FileId parent = 0;                    // of a folder
  uint8_t volume = 0;
  int links = 0;

  uint32_t type() const { return mode & S_IFMT; }
  bool is_folder() const { return S_ISDIR(mode); }
};

inline const char default_acl[] =
    "\x02\0\0\0\x01\0\7\0\xff\xff\xff\xff\x04\0\5\0\xff\xff\xff\xff\x20\0\1\0\xff\xff\xff\xff";

/** An access ACL that gives a file this mode. */
inline std::string access_acl(uint32_t mode) {
  const struct {
    uint16_t tag, permissions;
    uint32_t id;
  } entries[] = {{1, static_cast<uint16_t>(mode >> 6 & 7), 0xffffffff},
                 {2, 5, 12001},
                 {4, 3, 0xffffffff},
                 {16, static_cast<uint16_t>(mode >> 3 & 7), 0xffffffff},
                 {32, static_cast<uint16_t>(mode & 7), 0xffffffff}};
  return std::string("\x02\0\0\0", 4) +
         std::string(reinterpret_cast<const char*>(entries), sizeof entries);
}

class History {
 public:
  struct Options {
    int volumes = 1;
    int folders = 4;  // at most, besides the roots
    bool names_only = false;
    bool folders_only = false;  // changes of names alone, mostly moves of folders

    void only_folders() {
      folders_only = true;
      folders += 6;
    }
  };

  History(uint64_t seed, Options options) : random_(seed), options_(options) {
    for (int v = 0; v < options.volumes; v++) {
      Node root;
      root.mode = S_IFDIR | 0755;
      root.mtime = now();
      root.volume = static_cast<uint8_t>(v);
      root.links = 1;
      nodes[static_cast<FileId>(v) + 1] = root;
    }
  }

  /** Appends one change. */
  void step() {
    for (;;) {
      const size_t before = ends.size();
      const unsigned pick = below(100);
      if (options_.folders_only)
        folders(pick);
      else if (pick < 22)
        create();
      else if (pick < 32)
        unlink();
      else if (pick < 38)
        link();
      else if (pick < 62)
        rename();
      else if (pick < 68)
        exchange();
      else if (!options_.names_only)
        content(pick);
      if (ends.size() > before) return;
    }
  }

  /** From here on another history: as if another server had gone on with this one. */
  void fork(uint64_t seed) {
    random_.seed(seed);
    maker_++;
  }

  size_t size() const { return ends.size(); }
  /** Bytes of the records from `first` (0 …) to before `end`. */
  std::span<const uint8_t> records(size_t first, size_t end) const {
    const size_t from = first == 0 ? 0 : ends[first - 1];
    return std::span(bytes).subspan(from, (end == 0 ? 0 : ends[end - 1]) - from);
  }

  std::map<FileId, Node> nodes;
  std::vector<uint8_t> bytes;
  std::vector<size_t> ends;  // of each record in `bytes`
  Tail tail;
  unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }

 private:
  struct Spot {
    FileId parent = 0;
    std::string name;
    FileId file = 0;
  };

  Time now() {
    clock_++;
    return {1'600'000'000 + static_cast<int64_t>(maker_ * 10'000'000 + clock_),
            clock_ % 1000 * 1000, 0};
  }

  void add(Kind kind, uint16_t flags, FileId file, const void* body, size_t size,
           const std::string& a = {}, const std::string& b = {}, const std::string& c = {},
           const std::string& d = {}) {
    const iovec parts[] = {{const_cast<void*>(body), size},
                           {const_cast<char*>(a.data()), a.size()},
                           {const_cast<char*>(b.data()), b.size()},
                           {const_cast<char*>(c.data()), c.size()},
                           {const_cast<char*>(d.data()), d.size()}};
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(parts, head);
    const size_t at = bytes.size();
    bytes.resize(at + record_size(head.payload_size));
    write_record(bytes.data() + at, head, parts, tail, 1);
    ends.push_back(bytes.size());
  }

  std::vector<FileId> all(bool (*want)(const Node&)) {
    std::vector<FileId> found;
    for (const auto& [id, node] : nodes) {
      if (want(node)) found.push_back(id);
    }
    return found;
  }
  FileId any(bool (*want)(const Node&)) {
    const std::vector<FileId> found = all(want);
    return found.empty() ? 0 : found[below(static_cast<unsigned>(found.size()))];
  }
  FileId folder() {
    return any([](const Node& n) { return n.is_folder(); });
  }
  std::string name() { return std::string(1, static_cast<char>('a' + below(5))); }
  bool spot(Spot& out) {  // an existing name
    out.parent = folder();
    const auto& names = nodes[out.parent].names;
    if (names.empty()) return false;
    auto it = names.begin();
    std::advance(it, below(static_cast<unsigned>(names.size())));
    out.name = it->first;
    out.file = it->second;
    return true;
  }
  Spot target(uint8_t volume) {  // any name, existing or not, in that volume
    Spot out;
    do out.parent = folder();
    while (nodes[out.parent].volume != volume);
    out.name = name();
    const auto& names = nodes[out.parent].names;
    const auto it = names.find(out.name);
    out.file = it == names.end() ? 0 : it->second;
    return out;
  }
  bool is_above(FileId folder, FileId other) const {  // or the same
    for (; other != 0; other = nodes.at(other).parent) {
      if (other == folder) return true;
    }
    return false;
  }
  void touch(FileId folder, Time time) { nodes[folder].mtime = time; }
  /** A name of a file goes; true: it was the last. */
  bool lose(FileId id) {
    if (--nodes[id].links > 0) return false;
    nodes.erase(id);
    return true;
  }
  void put(FileId folder, const std::string& name, FileId id) {
    nodes[folder].names[name] = id;
    if (nodes[id].is_folder()) nodes[id].parent = folder;
  }

  void folders(unsigned pick) {
    if (pick < 20)
      create();
    else if (pick < 28)
      unlink();
    else if (pick < 90)
      rename();
    else
      exchange();
  }

  void create() {
    const uint8_t volume = static_cast<uint8_t>(below(static_cast<unsigned>(options_.volumes)));
    const Spot at = target(volume);
    if (at.file != 0) return;
    static constexpr uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG,  S_IFDIR, S_IFDIR,
                                         S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR};
    uint32_t type = options_.folders_only ? S_IFDIR : types[below(std::size(types))];
    const auto folders = all([](const Node& n) { return n.is_folder(); });
    if (type == S_IFDIR &&
        static_cast<int>(folders.size()) >= options_.folders + options_.volumes) {
      type = S_IFREG;
    }
    Node node;
    node.mode = type | (type == S_IFLNK ? 0777 : 0400 | below(07000));
    node.uid = below(3);
    node.gid = below(3);
    node.rdev = type == S_IFCHR ? 0x103 : 0;
    node.mtime = now();
    node.volume = volume;
    node.links = 1;
    if (type == S_IFLNK) node.content = "target" + std::to_string(clock_);
    CreateBody body{};
    body.parent = at.parent;
    body.mode = node.mode;
    body.uid = node.uid;
    body.gid = node.gid;
    body.rdev = node.rdev;
    body.mtime = node.mtime;
    body.parent_mtime = now();
    body.name_size = static_cast<uint16_t>(at.name.size());
    body.target_size = static_cast<uint16_t>(node.content.size());
    // Whether the folder has a default ACL here or not: the record says what is.
    std::string access, inherited;
    if (type != S_IFLNK && below(4) == 0) {
      access = node.xattrs["system.posix_acl_access"] = access_acl(node.mode);
    }
    if (type == S_IFDIR && below(2) == 0) {
      inherited = node.xattrs["system.posix_acl_default"] =
          std::string(default_acl, sizeof default_acl - 1);
    }
    body.access_size = static_cast<uint32_t>(access.size());
    body.default_size = static_cast<uint32_t>(inherited.size());
    const FileId id = (maker_ << 40) | (100 + next_id_++);
    add(Kind::create, 0, id, &body, sizeof body, at.name, node.content, access, inherited);
    nodes[id] = node;
    put(at.parent, at.name, id);
    touch(at.parent, body.parent_mtime);
  }

  void unlink() {
    Spot at;
    if (!spot(at)) return;
    const Node& node = nodes[at.file];
    if (node.is_folder() && !node.names.empty()) return;
    UnlinkBody body{};
    body.parent = at.parent;
    body.parent_mtime = now();
    body.name_size = static_cast<uint32_t>(at.name.size());
    body.is_directory = node.is_folder() ? 1 : 0;
    nodes[at.parent].names.erase(at.name);
    touch(at.parent, body.parent_mtime);
    const bool last = lose(at.file);
    add(Kind::unlink, last ? flag_last_name : 0, at.file, &body, sizeof body, at.name);
  }

  void link() {
    Spot from;
    if (!spot(from) || nodes[from.file].is_folder()) return;
    const Spot to = target(nodes[from.file].volume);
    if (to.file != 0) return;
    LinkBody body{};
    body.parent = to.parent;
    body.parent_mtime = now();
    body.name_size = static_cast<uint32_t>(to.name.size());
    nodes[from.file].links++;
    put(to.parent, to.name, from.file);
    touch(to.parent, body.parent_mtime);
    add(Kind::link, 0, from.file, &body, sizeof body, to.name);
  }

  RenameBody rename_body(const Spot& from, const Spot& to, bool exchange) {
    RenameBody body{};
    body.parent = from.parent;
    body.new_parent = to.parent;
    body.replaced = to.file;
    body.parent_mtime = body.new_parent_mtime = now();
    body.name_size = static_cast<uint16_t>(from.name.size());
    body.new_name_size = static_cast<uint16_t>(to.name.size());
    body.exchange = exchange ? 1 : 0;
    return body;
  }

  void rename() {
    Spot from;
    if (!spot(from)) return;
    const bool folder = nodes[from.file].is_folder();
    const Spot to = target(nodes[from.file].volume);
    if (to.file == from.file || (folder && is_above(from.file, to.parent))) return;
    if (to.file != 0) {
      const Node& old = nodes[to.file];
      if (old.is_folder() != folder || !old.names.empty()) return;
    }
    const RenameBody body = rename_body(from, to, false);
    nodes[from.parent].names.erase(from.name);
    put(to.parent, to.name, from.file);
    touch(from.parent, body.parent_mtime);
    touch(to.parent, body.new_parent_mtime);
    const bool last = to.file != 0 && lose(to.file);
    add(Kind::rename, last ? flag_last_name : 0, from.file, &body, sizeof body, from.name, to.name);
  }

  void exchange() {
    Spot a, b;
    if (!spot(a) || !spot(b) || a.file == b.file) return;
    if (nodes[a.file].volume != nodes[b.file].volume) return;
    if (is_above(a.file, b.parent) || is_above(b.file, a.parent)) return;
    const RenameBody body = rename_body(a, b, true);
    put(a.parent, a.name, b.file);
    put(b.parent, b.name, a.file);
    touch(a.parent, body.parent_mtime);
    touch(b.parent, body.new_parent_mtime);
    add(Kind::rename, 0, a.file, &body, sizeof body, a.name, b.name);
  }

  void content(unsigned pick) {
    const FileId file = any([](const Node& n) { return n.type() == S_IFREG; });
    if (pick < 80 && file != 0) return write(file);
    if (pick < 84 && file != 0) return allocate(file);
    if (pick < 92) return attributes();
    return xattr();
  }

  void write(FileId id) {
    Node& node = nodes[id];
    WriteBody body{below(3) * 4000 + below(500), now()};
    const std::string data(1 + below(5000), static_cast<char>('A' + below(26)));
    if (node.content.size() < body.offset + data.size()) {
      node.content.resize(body.offset + data.size());
    }
    node.content.replace(body.offset, data.size(), data);
    node.mtime = body.mtime;
    add(Kind::write, 0, id, &body, sizeof body, data);
  }

  void allocate(FileId id) {
    Node& node = nodes[id];
    static constexpr uint32_t modes[] = {
        0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE};
    AllocateBody body{};
    body.offset = below(9000);
    body.length = 1 + below(9000);
    body.mode = modes[below(4)];
    body.mtime = node.mtime = now();
    const size_t end = body.offset + body.length;
    if ((body.mode & FALLOC_FL_KEEP_SIZE) == 0 && end > node.content.size()) {
      node.content.resize(end);
    }
    if ((body.mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
      for (size_t i = body.offset; i < std::min(end, node.content.size()); i++) node.content[i] = 0;
    }
    add(Kind::allocate, 0, id, &body, sizeof body);
  }

  void attributes() {
    const FileId id = any([](const Node& n) { return n.links > 0; });
    Node& node = nodes[id];
    AttributesBody body{};
    const unsigned what = below(4);
    if (what == 0 && S_ISREG(node.mode)) {
      body.mask = attribute_size | attribute_mtime;
      body.size = below(9000);
      node.content.resize(body.size);
      body.mtime = node.mtime = now();
    } else if (what == 1) {
      body.mask = attribute_mtime | attribute_atime;
      body.mtime = body.atime = node.mtime = now();
    } else if (what == 2 && !S_ISLNK(node.mode)) {
      body.mask = attribute_uid | attribute_gid | attribute_mode;
      body.uid = node.uid = below(3);
      body.gid = node.gid = below(3);
      body.mode = 0400 | below(07000);
      node.mode = node.type() | body.mode;
    } else {
      body.mask = attribute_uid;
      body.uid = node.uid = below(3);
      if (!S_ISLNK(node.mode)) {
        body.mask |= attribute_mode;
        body.mode = node.mode & 0777;
        node.mode = node.type() | body.mode;
      }
    }
    // A mode is the owner's, the mask's and the others' entry of an ACL.
    const auto acl = node.xattrs.find("system.posix_acl_access");
    if (acl != node.xattrs.end()) acl->second = access_acl(node.mode);
    add(Kind::attributes, 0, id, &body, sizeof body);
  }

  void xattr() {
    const FileId id = any([](const Node& n) { return n.links > 0; });
    Node& node = nodes[id];
    XattrBody body{};
    std::string key = "trusted." + name(), value;
    if (node.is_folder() && below(3) == 0) key = "system.posix_acl_default";
    const bool set = !node.xattrs.contains(key) || below(2) == 0;
    if (set) {
      value = key[0] == 's' ? std::string(default_acl, sizeof default_acl - 1)
                            : std::string(below(40), static_cast<char>('a' + below(26)));
      node.xattrs[key] = value;
    } else {
      node.xattrs.erase(key);
    }
    body.name_size = static_cast<uint32_t>(key.size());
    body.value_size = static_cast<uint32_t>(value.size());
    body.mode = node.mode & 07777;
    add(set ? Kind::set_xattr : Kind::remove_xattr, 0, id, &body, sizeof body, key, value);
  }

  std::mt19937_64 random_;
  Options options_;
  uint32_t clock_ = 0;
  FileId next_id_ = 0;
  FileId maker_ = 1;
};

}  // namespace holdfast::replica::test
