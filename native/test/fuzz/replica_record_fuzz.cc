#include "test/fuzz/replica_fuzz.h"

/**
 * parse_record on anything: as it comes, and with sizes, CRC and chain made right, so that the
 * fields behind them are reached. What is called a good record must be one.
 */
using namespace holdfast::replica;
using namespace holdfast::replica::fuzz;

namespace {

bool inside(const void* data, size_t size, std::span<const uint8_t> bytes) {
  const auto* at = static_cast<const uint8_t*>(data);
  return size == 0 || (at >= bytes.data() && at + size <= bytes.data() + bytes.size());
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

/** What was found well-formed can be taken apart to its end, and lies inside. */
void check_xattrs(const Record& record) {
  std::span<const uint8_t> left = record.data, value;
  std::string_view name;
  while (next_xattr(left, name, value)) {
    must(inside(name.data(), name.size(), record.data), "an attribute's name lies inside");
    must(inside(value.data(), value.size(), record.data), "its value lies inside");
  }
  must(left.empty(), "nothing is left of the attributes");
}

void check_names(const Record& record) {
  std::span<const uint8_t> left = record.data;
  std::string_view name, last = record.name;
  uint32_t count = 0;
  for (; next_name(left, name); count++) {
    must(is_name(name) && name > last, "names in order");
    last = name;
  }
  must(left.empty() && count == record.listing.count, "as many as it says");
}

void check(std::span<const uint8_t> bytes) {
  Record record;
  const ParseStatus status = parse_record(bytes, record);
  if (status == ParseStatus::incomplete) {
    must(bytes.size() < max_record, "a record that needs more is not longer than the longest");
  }
  if (status != ParseStatus::ok) return;
  if (record.kind == Kind::pad) return;
  must(record.head.size <= bytes.size(), "its size is there");
  must(inside(record.name.data(), record.name.size(), bytes), "the name lies inside");
  must(inside(record.second.data(), record.second.size(), bytes), "the second name lies inside");
  must(inside(record.data.data(), record.data.size(), bytes), "the data lie inside");
  must(record.head.file != 0 && record.head.lsn != 0, "file and LSN are some");
  switch (record.kind) {
    case Kind::create:
    case Kind::link:
    case Kind::unlink:
      must(is_name(record.name), "a name that can be one");
      break;
    case Kind::rename:
      must(is_name(record.name) && is_name(record.second), "names that can be some");
      break;
    case Kind::write:
      must(record.data.size() <= max_data && !record.data.empty(), "data of a possible size");
      must(record.write.offset + record.data.size() <= INT64_MAX, "a possible place");
      break;
    case Kind::entry:
      must(is_name(record.name), "a name that can be one");
      must(record.entry.type != 0 || record.head.file == record.entry.parent, "nothing is there");
      break;
    case Kind::inode:
      check_xattrs(record);
      break;
    case Kind::listing:
      check_names(record);
      break;
    default:
      break;
  }
  must(inside(record.more.data(), record.more.size(), bytes), "the second value lies inside");
  // Its own bytes, alone, are the same record; one byte less is none.
  Record again;
  must(parse_record(bytes.first(record.head.size), again) == ParseStatus::ok, "alone");
  must(parse_record(bytes.first(record.head.size - 1), again) == ParseStatus::incomplete, "short");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  check({data, size});
  Input input(data, size);
  const auto kind = input.take<uint8_t>();
  const auto flags = input.take<uint8_t>();
  Tail tail;
  // A copy of exactly its size, so that a read behind it is seen.
  const std::vector<uint8_t> made =
      record_of(kind % 16, flags % 3, 1 + flags, input.bytes(size), tail, 1);
  check(made);
  return 0;
}
