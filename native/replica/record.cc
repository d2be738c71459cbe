#include "replica/record.h"

#include <sys/stat.h>

#include <cstring>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace holdfast::replica {
namespace {

constexpr uint32_t crc_polynomial = 0x82f63b78;  // Castagnoli, reflected
constexpr size_t max_name = 255;
constexpr size_t max_target = 4095;
constexpr size_t max_xattr_value = 1u << 16;
constexpr uint32_t nanoseconds_end = 1000000000;

struct CrcTable {
  uint32_t entry[8][256];
  constexpr CrcTable() : entry{} {
    for (uint32_t byte = 0; byte < 256; byte++) {
      uint32_t crc = byte;
      for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? crc_polynomial : 0);
      entry[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
      for (int k = 1; k < 8; k++) {
        const uint32_t before = entry[k - 1][byte];
        entry[k][byte] = (before >> 8) ^ entry[0][before & 0xff];
      }
    }
  }
};
constexpr CrcTable crc_table;

/** Eight bytes per step by tables (Kounavis and Berry, "Slicing-by-8", 2008). */
uint32_t crc_by_table(uint32_t crc, const uint8_t* data, size_t size) {
  while (size >= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    word ^= crc;
    crc = 0;
    for (int k = 0; k < 8; k++) crc ^= crc_table.entry[7 - k][(word >> (8 * k)) & 0xff];
    data += 8;
    size -= 8;
  }
  for (; size > 0; size--) crc = (crc >> 8) ^ crc_table.entry[0][(crc ^ *data++) & 0xff];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc_by_cpu(uint32_t crc, const uint8_t* data,
                                                      size_t size) {
  uint64_t wide = crc;
  for (; size >= 8; size -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; size > 0; size--) crc = __builtin_ia32_crc32qi(crc, *data++);
  return crc;
}
#endif

bool good_name(std::string_view name) {
  if (name.empty() || name.size() > max_name || name == "." || name == "..") return false;
  return name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

bool good_time(const Time& time) {
  return time.nanoseconds < nanoseconds_end && time.reserved == 0;
}

bool good_type(uint32_t mode) {
  const uint32_t type = mode & S_IFMT;
  const bool known = type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFCHR ||
                     type == S_IFBLK || type == S_IFIFO || type == S_IFSOCK;
  return known && (mode & ~(S_IFMT | 07777u)) == 0;
}

bool good_target(uint32_t mode, std::string_view target) {
  if ((mode & S_IFMT) != S_IFLNK) return target.empty();
  return !target.empty() && target.size() <= max_target &&
         target.find('\0') == std::string_view::npos;
}

bool good_range(uint64_t offset, uint64_t length) {
  constexpr uint64_t most = INT64_MAX;
  return offset <= most && length <= most - offset;
}

/** Takes a payload apart from the front. */
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : left_(bytes) {}

  template <typename T>
  bool body(T& out) {
    if (left_.size() < sizeof(T)) return false;
    std::memcpy(&out, left_.data(), sizeof(T));
    left_ = left_.subspan(sizeof(T));
    return true;
  }
  bool text(size_t size, std::string_view& out) {
    if (left_.size() < size) return false;
    out = {reinterpret_cast<const char*>(left_.data()), size};
    left_ = left_.subspan(size);
    return true;
  }
  bool bytes(size_t size, std::span<const uint8_t>& out) {
    if (left_.size() < size) return false;
    out = left_.first(size);
    left_ = left_.subspan(size);
    return true;
  }
  std::span<const uint8_t> rest() { return std::exchange(left_, {}); }
  bool done() const { return left_.empty(); }

 private:
  std::span<const uint8_t> left_;
};

bool parse_create(Reader& in, Record& out) {
  if (!in.body(out.create)) return false;
  const CreateBody& body = out.create;
  if (!in.text(body.name_size, out.name) || !in.text(body.target_size, out.second) ||
      body.access_size > max_xattr_value || body.default_size > max_xattr_value ||
      !in.bytes(body.access_size, out.data) || !in.bytes(body.default_size, out.more)) {
    return false;
  }
  return good_type(body.mode) && good_target(body.mode, out.second) && body.parent != 0 &&
         body.reserved == 0 && good_name(out.name) && good_time(body.mtime) &&
         good_time(body.parent_mtime);
}

bool parse_entry(Reader& in, Record& out) {
  if (!in.body(out.entry) || !in.text(out.entry.name_size, out.name)) return false;
  const EntryBody& body = out.entry;
  const bool nothing = body.type == 0 && out.head.file == body.parent;
  const bool something =
      body.type != 0 && (body.type & ~S_IFMT) == 0 && good_type(body.type) && out.head.file != 0;
  return (nothing || something) && body.parent != 0 && good_name(out.name) &&
         good_time(body.parent_mtime);
}

bool parse_inode(Reader& in, Record& out) {
  if (!in.body(out.inode) || !in.text(out.inode.target_size, out.second)) return false;
  const InodeBody& body = out.inode;
  out.data = in.rest();
  if (out.data.size() != body.xattrs_size ||
      (body.flags & ~uint32_t{inode_with_values | inode_all_follows}) != 0 ||
      body.volume >= max_root || !good_range(body.size, 0) || !good_time(body.atime) ||
      !good_time(body.mtime) || !good_type(body.mode) || !good_target(body.mode, out.second) ||
      (body.size != 0 && (body.mode & S_IFMT) != S_IFREG)) {
    return false;
  }
  std::string_view name;
  std::span<const uint8_t> items = out.data, value;
  while (next_xattr(items, name, value)) {
    if (!value.empty() && (body.flags & inode_with_values) == 0) return false;
  }
  return items.empty();
}

bool parse_listing(Reader& in, Record& out) {
  if (!in.body(out.listing) || out.listing.reserved != 0 || !good_time(out.listing.mtime) ||
      !in.text(out.listing.after_size, out.name) || !in.text(out.listing.upto_size, out.second)) {
    return false;
  }
  const auto good_end = [](std::string_view text) { return text.empty() || good_name(text); };
  if (!good_end(out.name) || !good_end(out.second)) return false;
  out.data = in.rest();
  std::span<const uint8_t> names = out.data;
  std::string_view last = out.name, name;
  uint32_t count = 0;
  for (; next_name(names, name); count++) {
    if (!good_name(name) || name <= last) return false;
    last = name;
  }
  return names.empty() && count == out.listing.count && (out.second.empty() || last <= out.second);
}

bool parse_rename(Reader& in, Record& out) {
  if (!in.body(out.rename)) return false;
  const RenameBody& body = out.rename;
  return in.text(body.name_size, out.name) && in.text(body.new_name_size, out.second) &&
         good_name(out.name) && good_name(out.second) && body.parent != 0 && body.new_parent != 0 &&
         body.exchange <= 1 && (body.exchange == 0 || body.replaced != 0) &&
         good_time(body.parent_mtime) && good_time(body.new_parent_mtime);
}

bool parse_xattr(Reader& in, Record& out) {
  if (!in.body(out.xattr)) return false;
  const XattrBody& body = out.xattr;
  if (body.value_size > max_xattr_value || !in.text(body.name_size, out.name)) return false;
  out.data = in.rest();
  return out.data.size() == body.value_size && !out.name.empty() && out.name.size() <= max_name &&
         out.name.find('\0') == std::string_view::npos && (body.mode & ~07777u) == 0 &&
         body.reserved == 0 && (out.kind == Kind::set_xattr || body.value_size == 0);
}

bool parse_payload(Reader& in, Record& out) {
  switch (out.kind) {
    case Kind::write:
      if (!in.body(out.write)) return false;
      out.data = in.rest();
      return !out.data.empty() && out.data.size() <= max_data && good_time(out.write.mtime) &&
             good_range(out.write.offset, out.data.size());
    case Kind::attributes: {
      if (!in.body(out.attributes)) return false;
      const AttributesBody& body = out.attributes;
      return body.mask != 0 && body.mask < 64 && (body.mode & ~07777u) == 0 &&
             good_range(body.size, 0) && good_time(body.atime) && good_time(body.mtime);
    }
    case Kind::create:
      return parse_create(in, out);
    case Kind::link:
      return in.body(out.link) && in.text(out.link.name_size, out.name) && good_name(out.name) &&
             out.link.parent != 0 && out.link.reserved == 0 && good_time(out.link.parent_mtime);
    case Kind::unlink:
      return in.body(out.unlink) && in.text(out.unlink.name_size, out.name) &&
             good_name(out.name) && out.unlink.parent != 0 && out.unlink.is_directory <= 1 &&
             good_time(out.unlink.parent_mtime);
    case Kind::rename:
      return parse_rename(in, out);
    case Kind::allocate:
      return in.body(out.allocate) && out.allocate.reserved == 0 &&
             good_range(out.allocate.offset, out.allocate.length) && good_time(out.allocate.mtime);
    case Kind::set_xattr:
    case Kind::remove_xattr:
      return parse_xattr(in, out);
    case Kind::check:
      out.data = in.rest();
      return !out.data.empty();
    case Kind::entry:
      return parse_entry(in, out);
    case Kind::inode:
      return parse_inode(in, out);
    case Kind::listing:
      return parse_listing(in, out);
    case Kind::synced:
      return in.body(out.synced) && out.synced.run != 0;
    case Kind::pad:
      break;
  }
  return false;
}

}  // namespace

bool next_xattr(std::span<const uint8_t>& items, std::string_view& name,
                std::span<const uint8_t>& value) {
  XattrItem item;
  if (items.size() < sizeof item) return false;
  std::memcpy(&item, items.data(), sizeof item);
  const size_t left = items.size() - sizeof item;
  if (item.name_size == 0 || item.name_size > max_name || item.value_size > max_xattr_value ||
      left < size_t{item.name_size} + item.value_size) {
    return false;
  }
  name = {reinterpret_cast<const char*>(items.data() + sizeof item), item.name_size};
  if (name.find('\0') != std::string_view::npos) return false;
  value = items.subspan(sizeof item + item.name_size, item.value_size);
  items = items.subspan(sizeof item + item.name_size + item.value_size);
  return true;
}

bool next_name(std::span<const uint8_t>& names, std::string_view& name) {
  uint16_t size;
  if (names.size() < sizeof size) return false;
  std::memcpy(&size, names.data(), sizeof size);
  if (names.size() - sizeof size < size) return false;
  name = {reinterpret_cast<const char*>(names.data() + sizeof size), size};
  names = names.subspan(sizeof size + size);
  return true;
}

uint32_t crc32c(uint32_t crc, const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
#if defined(__x86_64__)
  static const bool by_cpu = __builtin_cpu_supports("sse4.2") != 0;
  if (by_cpu) return ~crc_by_cpu(~crc, bytes, size);
#endif
  return ~crc_by_table(~crc, bytes, size);
}

uint64_t chain_of(uint64_t previous, const RecordHead& head) {
  RecordHead copy = head;
  copy.chain = previous;
  return XXH3_64bits(&copy, sizeof copy);
}

bool follows(const Tail& tail, const RecordHead& head) {
  return head.lsn == tail.lsn + 1 && head.epoch >= tail.epoch &&
         head.chain == chain_of(tail.chain, head);
}

void measure_payload(std::span<const iovec> payload, RecordHead& head) {
  size_t size = 0;
  uint32_t crc = 0;
  for (const iovec& part : payload) {
    crc = crc32c(crc, part.iov_base, part.iov_len);
    size += part.iov_len;
  }
  head.payload_size = static_cast<uint32_t>(size);
  head.payload_crc = crc;
}

void write_record(uint8_t* to, RecordHead head, std::span<const iovec> payload, Tail& tail,
                  uint64_t epoch) {
  head.size = static_cast<uint32_t>(record_size(head.payload_size));
  head.lsn = tail.lsn + 1;
  head.epoch = epoch;
  head.chain = chain_of(tail.chain, head);
  std::memcpy(to, &head, sizeof head);
  uint8_t* at = to + sizeof head;
  for (const iovec& part : payload) {
    if (part.iov_len > 0) std::memcpy(at, part.iov_base, part.iov_len);
    at += part.iov_len;
  }
  std::memset(at, 0, static_cast<size_t>(to + head.size - at));
  tail = tail_after(head);
}

ParseStatus parse_record(std::span<const uint8_t> bytes, Record& out, bool checked) {
  out = Record();
  if (bytes.size() < sizeof(RecordHead)) return ParseStatus::incomplete;
  std::memcpy(&out.head, bytes.data(), sizeof(RecordHead));
  const RecordHead& head = out.head;
  const auto kind = static_cast<Kind>(head.kind);
  if (kind == Kind::pad) {
    // A pad is a head and nothing: the bytes that follow are not read.
    const bool good = head.size >= sizeof(RecordHead) && head.size % record_align == 0 &&
                      head.payload_size == 0 && head.lsn == 0;
    return good ? ParseStatus::ok : ParseStatus::malformed;
  }
  if (head.kind > static_cast<uint16_t>(last_kind) || head.payload_size > max_record ||
      head.size > max_record || head.size != record_size(head.payload_size) || head.file == 0 ||
      head.lsn == 0 || (head.flags & ~flag_last_name) != 0) {
    return ParseStatus::malformed;
  }
  if (bytes.size() < head.size) return ParseStatus::incomplete;
  const auto payload = bytes.subspan(sizeof(RecordHead), head.payload_size);
  if (!checked && crc32c(0, payload.data(), payload.size()) != head.payload_crc) {
    return ParseStatus::corrupt;
  }
  out.kind = kind;
  Reader in(payload);
  return parse_payload(in, out) && in.done() ? ParseStatus::ok : ParseStatus::malformed;
}

}  // namespace holdfast::replica
