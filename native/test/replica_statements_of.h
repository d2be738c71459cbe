#pragma once
#include <map>
#include <string>
#include <vector>

#include "test/replica_history.h"

/** A stream as a resync makes it: the changes of a history, and between them statements. */
namespace holdfast::replica::test {

class ResyncStream {
 public:
  /** The records [first, end) of a history. */
  void change(const History& history, size_t first, size_t end) {
    for (; first < end; first++) {
      Record record;
      const auto raw = history.records(first, first + 1);
      if (parse_record(raw, record) != ParseStatus::ok) std::abort();
      iovec part = {const_cast<uint8_t*>(raw.data()) + sizeof(RecordHead),
                    record.head.payload_size};
      add(record.kind, record.head.flags, record.head.file, {&part, 1});
    }
  }

  /** How a random file, name or directory is at this place of the history. */
  void statement(History& history) {
    auto at = history.nodes.begin();
    std::advance(at, history.below(static_cast<unsigned>(history.nodes.size())));
    const unsigned what = history.below(4);
    if (what == 0) return inode(at->first, at->second);
    if (what == 1 && S_ISREG(at->second.mode)) {
      // As often with a name before it, as of a file that has not come yet.
      if (history.below(2) == 0) name_of(history, at->first);
      return data(at->first, at->second);
    }
    if (!at->second.is_folder()) return inode(at->first, at->second);
    if (what == 2) return listing(at->first, at->second);
    entry(history, at->first, std::string(1, static_cast<char>('a' + history.below(5))));
  }

  /** What a record made is stated instead; the file may have come or not. */
  void about(History& history, std::span<const uint8_t> raw) {
    Record record;
    if (parse_record(raw, record) != ParseStatus::ok) std::abort();
    const auto at = history.nodes.find(record.head.file);
    if (record.kind != Kind::create || at == history.nodes.end()) return statement(history);
    entry(history, record.create.parent, std::string(record.name));
    if (S_ISREG(at->second.mode) && at->second.content.empty()) {
      at->second.content.assign(1 + history.below(5000), 'x');
    }
    if (S_ISREG(at->second.mode)) data(at->first, at->second);
    if (history.below(2) == 0) inode(at->first, at->second);
  }

  /** An entry for one of its names. */
  void name_of(const History& history, FileId id) {
    for (const auto& [folder, node] : history.nodes) {
      for (const auto& [name, file] : node.names) {
        if (file == id) return entry(history, folder, name);
      }
    }
  }

  void inode(FileId id, const Node& node) {
    std::string items;
    for (const auto& [name, value] : node.xattrs) {
      const XattrItem item{static_cast<uint32_t>(name.size()), static_cast<uint32_t>(value.size())};
      items.append(reinterpret_cast<const char*>(&item), sizeof item);
      items += name + value;
    }
    const std::string target = S_ISLNK(node.mode) ? node.content : "";
    InodeBody body{};
    body.size = S_ISREG(node.mode) ? node.content.size() : 0;
    body.atime = body.mtime = node.mtime;
    body.mode = node.mode;
    body.uid = node.uid;
    body.gid = node.gid;
    body.rdev = node.rdev;
    body.volume = node.volume;
    body.flags = inode_with_values;
    body.target_size = static_cast<uint32_t>(target.size());
    body.xattrs_size = static_cast<uint32_t>(items.size());
    put(Kind::inode, id, &body, sizeof body, target, items);
  }

  void data(FileId id, const Node& node) {
    if (node.content.empty()) return;
    const WriteBody body{0, node.mtime};
    put(Kind::write, id, &body, sizeof body, node.content);
  }

  void entry(const History& history, FileId folder, const std::string& name) {
    const Node& parent = history.nodes.at(folder);
    const auto found = parent.names.find(name);
    EntryBody body{};
    body.parent = folder;
    body.parent_mtime = parent.mtime;
    body.name_size = static_cast<uint32_t>(name.size());
    body.type = found == parent.names.end() ? 0 : history.nodes.at(found->second).type();
    put(Kind::entry, body.type == 0 ? folder : found->second, &body, sizeof body, name);
  }

  void listing(FileId folder, const Node& node) {
    std::string names;
    for (const auto& [name, id] : node.names) {
      const auto size = static_cast<uint16_t>(name.size());
      names.append(reinterpret_cast<const char*>(&size), sizeof size);
      names += name;
    }
    ListingBody body{};
    body.mtime = node.mtime;
    body.count = static_cast<uint32_t>(node.names.size());
    put(Kind::listing, folder, &body, sizeof body, names);
  }

  void put(Kind kind, FileId file, const void* body, size_t size, const std::string& a = {},
           const std::string& b = {}) {
    const iovec parts[] = {{const_cast<void*>(body), size},
                           {const_cast<char*>(a.data()), a.size()},
                           {const_cast<char*>(b.data()), b.size()}};
    add(kind, 0, file, parts);
  }

  size_t size() const { return ends_.size(); }
  /** Parsed; they point into this object's bytes. */
  std::vector<Record> records(size_t first, size_t end) const {
    std::vector<Record> out(end - first);
    for (size_t i = first; i < end; i++) {
      const size_t from = i == 0 ? 0 : ends_[i - 1];
      const auto raw = std::span(bytes_).subspan(from, ends_[i] - from);
      if (parse_record(raw, out[i - first]) != ParseStatus::ok) std::abort();
    }
    return out;
  }

  std::span<const uint8_t> raw(size_t i) const {
    const size_t from = i == 0 ? 0 : ends_[i - 1];
    return std::span(bytes_).subspan(from, ends_[i] - from);
  }

  void add(Kind kind, uint16_t flags, FileId file, std::span<const iovec> parts) {
    RecordHead head{};
    head.kind = static_cast<uint16_t>(kind);
    head.flags = flags;
    head.file = file;
    measure_payload(parts, head);
    const size_t at = bytes_.size();
    bytes_.resize(at + record_size(head.payload_size));
    write_record(bytes_.data() + at, head, parts, tail_, 1);
    ends_.push_back(bytes_.size());
  }

 private:
  std::vector<uint8_t> bytes_;
  std::vector<size_t> ends_;
  Tail tail_;
};

}  // namespace holdfast::replica::test
