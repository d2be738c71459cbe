#include <doctest/doctest.h>

#include <functional>

#include "replica/record.h"
#include "test/replica_world.h"

using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::test;

namespace {

const Time good_time{1700000000, 999999999, 0};
const Time bad_time{1, 1000000000, 0};

std::span<const iovec> parts_of(const std::vector<iovec>& parts) {
  return {parts.data(), parts.size()};
}

template <typename Body>
Bytes made(Kind kind, const Body& body, const std::string& rest, uint16_t flags = 0,
           FileId file = 99) {
  Body copy = body;
  std::string text = rest;
  Stream stream;
  return stream.record(kind, flags, file,
                       parts_of({{&copy, sizeof copy}, {text.data(), text.size()}}));
}

template <typename Body>
ParseStatus parsed(Kind kind, const Body& body, const std::string& rest, Record& out) {
  static Bytes bytes;  // `out` points into it
  bytes = made(kind, body, rest);
  return parse_record(bytes, out);
}

/** The status when one field is spoilt. */
template <typename Body>
ParseStatus spoilt(Kind kind, Body body, const std::string& rest,
                   const std::function<void(Body&)>& change) {
  change(body);
  Record out;
  return parsed(kind, body, rest, out);
}

WriteBody write_body() {
  return {4096, good_time};
}
CreateBody create_body() {
  CreateBody body{};
  body.parent = 1;
  body.mode = 0100644;
  body.mtime = body.parent_mtime = good_time;
  body.name_size = 4;
  return body;
}
RenameBody rename_body() {
  RenameBody body{};
  body.parent = 1;
  body.new_parent = 2;
  body.parent_mtime = body.new_parent_mtime = good_time;
  body.name_size = 3;
  body.new_name_size = 5;
  return body;
}

EntryBody entry_body() {
  return {1, good_time, 4, 0100000};
}

/** An attribute in an inode record. */
std::string item(const std::string& name, const std::string& value) {
  const XattrItem head{static_cast<uint32_t>(name.size()), static_cast<uint32_t>(value.size())};
  return std::string(reinterpret_cast<const char*>(&head), sizeof head) + name + value;
}
const std::string items = item("user.a", "one") + item("b", "");

InodeBody inode_body() {
  InodeBody body{};
  body.size = 77;
  body.atime = body.mtime = good_time;
  body.mode = 0100644;
  body.flags = inode_with_values;
  body.xattrs_size = static_cast<uint32_t>(items.size());
  return body;
}

/** Two names, after a and up to d. */
ListingBody listing_body() {
  return {1, 1, 2, 0, good_time};
}
std::string names(std::initializer_list<std::string> all) {
  std::string out;
  for (const std::string& name : all) {
    const auto size = static_cast<uint16_t>(name.size());
    out.append(reinterpret_cast<const char*>(&size), sizeof size);
    out += name;
  }
  return out;
}
std::string text_of(std::span<const uint8_t> bytes) {
  return {bytes.begin(), bytes.end()};
}

constexpr auto ok = ParseStatus::ok;
constexpr auto malformed = ParseStatus::malformed;

}  // namespace

TEST_CASE("record: CRC-32C as RFC 3720 B.4 and its sums in pieces") {
  const Bytes zeros(32), ones(32, 0xff);
  Bytes up(32);
  for (size_t i = 0; i < up.size(); i++) up[i] = static_cast<uint8_t>(i);
  CHECK(crc32c(0, zeros.data(), 32) == 0x8a9136aa);
  CHECK(crc32c(0, ones.data(), 32) == 0x62a8ab43);
  CHECK(crc32c(0, up.data(), 32) == 0x46dd794e);
  for (size_t cut = 0; cut <= 32; cut++) {
    CHECK(crc32c(crc32c(0, up.data(), cut), up.data() + cut, 32 - cut) == 0x46dd794e);
  }
}

TEST_CASE("record: each kind is read as it was written") {
  Record out;
  CHECK(parsed(Kind::write, write_body(), "data", out) == ok);
  CHECK(out.kind == Kind::write);
  CHECK(out.write.offset == 4096);
  CHECK(std::string(out.data.begin(), out.data.end()) == "data");
  CHECK(out.head.file == 99);

  AttributesBody attributes{attribute_mode | attribute_size, 0644, 1, 2, 77, good_time, good_time};
  CHECK(parsed(Kind::attributes, attributes, "", out) == ok);
  CHECK(out.attributes.size == 77);

  CHECK(parsed(Kind::create, create_body(), "name", out) == ok);
  CHECK(out.name == "name");
  CHECK(out.second.empty());
  CreateBody symlink = create_body();
  symlink.mode = 0120777;
  symlink.target_size = 6;
  CHECK(parsed(Kind::create, symlink, "nametarget", out) == ok);
  CHECK(out.second == "target");

  CHECK(parsed(Kind::link, LinkBody{1, good_time, 3, 0}, "abc", out) == ok);
  CHECK(out.name == "abc");
  CHECK(parsed(Kind::unlink, UnlinkBody{1, good_time, 3, 1}, "a\xff\x01", out) == ok);
  CHECK(out.unlink.is_directory == 1);
  CHECK(parsed(Kind::rename, rename_body(), "oldnewer", out) == ok);
  CHECK(out.name == "old");
  CHECK(out.second == "newer");
  CHECK(parsed(Kind::allocate, AllocateBody{0, 10, 3, 0, good_time}, "", out) == ok);
  CHECK(parsed(Kind::set_xattr, XattrBody{6, 2, 0644, 0}, "user.av!", out) == ok);
  CHECK(out.name == "user.a");
  CHECK(out.data.size() == 2);
  CHECK(parsed(Kind::remove_xattr, XattrBody{6, 0, 0644, 0}, "user.a", out) == ok);
  CHECK(parsed(Kind::check, uint64_t{1}, "", out) == ok);
  CHECK(out.data.size() == 8);

  CreateBody with_acls = create_body();
  with_acls.access_size = 2;
  with_acls.default_size = 3;
  CHECK(parsed(Kind::create, with_acls, "nameACdef", out) == ok);
  CHECK(text_of(out.data) == "AC");
  CHECK(text_of(out.more) == "def");
}

TEST_CASE("record: each statement is read as it was written") {
  Record out;
  CHECK(parsed(Kind::entry, entry_body(), "name", out) == ok);
  CHECK(out.name == "name");
  CHECK(out.entry.type == 0100000);
  EntryBody nothing = entry_body();
  nothing.type = 0;
  nothing.parent = 99;
  CHECK(parsed(Kind::entry, nothing, "name", out) == ok);

  CHECK(parsed(Kind::inode, inode_body(), items, out) == ok);
  CHECK(out.inode.size == 77);
  std::string_view name;
  std::span<const uint8_t> left = out.data, value;
  REQUIRE(next_xattr(left, name, value));
  CHECK(name == "user.a");
  CHECK(text_of(value) == "one");
  REQUIRE(next_xattr(left, name, value));
  CHECK(name == "b");
  CHECK(value.empty());
  CHECK_FALSE(next_xattr(left, name, value));
  InodeBody symlink = inode_body();
  symlink.mode = 0120777;
  symlink.size = symlink.xattrs_size = 0;
  symlink.target_size = 6;
  CHECK(parsed(Kind::inode, symlink, "target", out) == ok);
  CHECK(out.second == "target");

  CHECK(parsed(Kind::listing, listing_body(), "ad" + names({"b", "c"}), out) == ok);
  CHECK(out.name == "a");
  CHECK(out.second == "d");
  left = out.data;
  REQUIRE(next_name(left, name));
  CHECK(name == "b");
  REQUIRE(next_name(left, name));
  CHECK(name == "c");
  CHECK_FALSE(next_name(left, name));
  ListingBody all{};
  CHECK(parsed(Kind::listing, all, "", out) == ok);  // an empty directory

  CHECK(parsed(Kind::synced, SyncedBody{3, 4}, "", out) == ok);
  CHECK(out.synced.run == 3);
}

TEST_CASE("record: a statement with a field that cannot be is malformed") {
  const auto entry = [](auto change, const std::string& rest = "name") {
    return spoilt<EntryBody>(Kind::entry, entry_body(), rest, change);
  };
  CHECK(entry([](EntryBody&) {}, "na/e") == malformed);
  CHECK(entry([](EntryBody&) {}, "names") == malformed);
  CHECK(entry([](EntryBody&) {}, "nam") == malformed);
  CHECK(entry([](EntryBody& b) { b.name_size = UINT32_MAX; }) == malformed);
  CHECK(entry([](EntryBody& b) { b.parent = 0; }) == malformed);
  CHECK(entry([](EntryBody& b) { b.type = 0100644; }) == malformed);  // a type alone
  CHECK(entry([](EntryBody& b) { b.type = 0170000; }) == malformed);
  CHECK(entry([](EntryBody& b) { b.type = 0; }) == malformed);  // nothing is no file
  CHECK(entry([](EntryBody& b) { b.parent_mtime = bad_time; }) == malformed);

  const auto inode = [](auto change, const std::string& rest = items) {
    return spoilt<InodeBody>(Kind::inode, inode_body(), rest, change);
  };
  CHECK(inode([](InodeBody& b) { b.size = UINT64_MAX; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.mode = 040755; }) == malformed);  // a directory has no size
  CHECK(inode([](InodeBody& b) { b.mode = 0644; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.atime = bad_time; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.mtime = bad_time; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.volume = max_root; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.flags |= inode_all_follows; }) == ok);
  CHECK(inode([](InodeBody& b) { b.flags |= 4; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.flags = 0; }) == malformed);  // values, and says there are none
  CHECK(inode([](InodeBody& b) { b.target_size = 1; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.target_size = UINT32_MAX; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.xattrs_size--; }) == malformed);
  CHECK(inode([](InodeBody& b) { b.xattrs_size = UINT32_MAX; }) == malformed);
  const auto cut = [&](const std::string& rest) {
    return inode([&](InodeBody& b) { b.xattrs_size = static_cast<uint32_t>(rest.size()); }, rest);
  };
  CHECK(cut("") == ok);
  for (size_t size = 1; size < items.size(); size++) {
    const bool whole = size == sizeof(XattrItem) + 9;
    CHECK(cut(items.substr(0, size)) == (whole ? ok : malformed));
  }
  CHECK(cut(item(std::string("a\0b", 3), "")) == malformed);
  CHECK(cut(item("", "")) == malformed);
  CHECK(cut(item(std::string(255, 'a'), "")) == ok);
  CHECK(cut(item(std::string(256, 'a'), "")) == malformed);
  CHECK(cut(item("a", std::string(65536, 'v'))) == ok);
  CHECK(cut(item("a", std::string(65537, 'v'))) == malformed);

  const auto listing = [](auto change, const std::string& rest) {
    return spoilt<ListingBody>(Kind::listing, listing_body(), rest, change);
  };
  const auto as_it_is = [](ListingBody&) {};
  CHECK(listing(as_it_is, "ad" + names({"c", "b"})) == malformed);
  CHECK(listing(as_it_is, "ad" + names({"b", "b"})) == malformed);
  CHECK(listing(as_it_is, "ad" + names({"a", "b"})) == malformed);  // after a
  CHECK(listing(as_it_is, "ad" + names({"b", "e"})) == malformed);  // up to d
  CHECK(listing(as_it_is, "ad" + names({"b", "d"})) == ok);
  CHECK(listing(as_it_is, "ad" + names({"b", "c", "d"})) == malformed);  // two, it says
  CHECK(listing(as_it_is, "ad" + names({"b", "c/"})) == malformed);
  CHECK(listing(as_it_is, "a/" + names({"b", "c"})) == malformed);
  const std::string good = "ad" + names({"b", "c"});
  for (size_t size = 0; size < good.size(); size++) {
    CHECK(listing(as_it_is, good.substr(0, size)) == malformed);
  }
  CHECK(listing([](ListingBody& b) { b.count = 1; }, good) == malformed);
  CHECK(listing([](ListingBody& b) { b.after_size = UINT32_MAX; }, good) == malformed);
  CHECK(listing([](ListingBody& b) { b.upto_size = 300; }, good) == malformed);
  CHECK(listing([](ListingBody& b) { b.reserved = 1; }, good) == malformed);
  CHECK(listing([](ListingBody& b) { b.mtime = bad_time; }, good) == malformed);

  Record out;
  CHECK(parsed(Kind::synced, SyncedBody{0, 4}, "", out) == malformed);
  CHECK(parsed(Kind::synced, SyncedBody{3, 4}, "x", out) == malformed);

  const auto create = [](auto change, const std::string& rest) {
    return spoilt<CreateBody>(Kind::create, create_body(), rest, change);
  };
  CHECK(create([](CreateBody& b) { b.access_size = 3; }, "nameAC") == malformed);
  CHECK(create([](CreateBody& b) { b.access_size = 1; }, "nameAC") == malformed);
  CHECK(create([](CreateBody& b) { b.access_size = UINT32_MAX; }, "nameAC") == malformed);
  CHECK(create([](CreateBody& b) { b.default_size = UINT32_MAX; }, "nameAC") == malformed);
  const std::string most(65536, 'a');
  CHECK(create([](CreateBody& b) { b.access_size = b.default_size = 65536; },
               "name" + most + most) == ok);
  CHECK(create([](CreateBody& b) { b.access_size = 65537; }, "name" + most + "a") == malformed);
}

TEST_CASE("record: a field that cannot be is malformed") {
  const auto write = [](auto change, const std::string& rest = "data") {
    return spoilt<WriteBody>(Kind::write, write_body(), rest, change);
  };
  CHECK(write([](WriteBody&) {}, "") == malformed);
  CHECK(write([](WriteBody& b) { b.offset = INT64_MAX - 3ull; }) == malformed);
  CHECK(write([](WriteBody& b) { b.offset = UINT64_MAX; }) == malformed);
  CHECK(write([](WriteBody& b) { b.mtime = bad_time; }) == malformed);
  CHECK(write([](WriteBody&) {}, std::string(max_data, 'x')) == ok);
  CHECK(write([](WriteBody&) {}, std::string(max_data + 1, 'x')) == malformed);

  const auto create = [](auto change, const std::string& rest = "name") {
    return spoilt<CreateBody>(Kind::create, create_body(), rest, change);
  };
  CHECK(create([](CreateBody&) {}, "na/e") == malformed);
  CHECK(create([](CreateBody&) {}, std::string("na\0e", 4)) == malformed);
  CHECK(create([](CreateBody&) {}, "names") == malformed);
  CHECK(create([](CreateBody&) {}, "nam") == malformed);
  CHECK(create([](CreateBody& b) { b.name_size = 1; }, ".") == malformed);
  CHECK(create([](CreateBody& b) { b.name_size = 2; }, "..") == malformed);
  CHECK(create([](CreateBody& b) { b.name_size = 0; }, "") == malformed);
  CHECK(create([](CreateBody& b) { b.name_size = 255; }, std::string(255, 'n')) == ok);
  CHECK(create([](CreateBody& b) { b.name_size = 256; }, std::string(256, 'n')) == malformed);
  CHECK(create([](CreateBody& b) { b.mode = 0644; }) == malformed);
  CHECK(create([](CreateBody& b) { b.mode |= 1u << 20; }) == malformed);
  CHECK(create([](CreateBody& b) { b.mode = 0120777; }) == malformed);  // a link to nothing
  CHECK(create([](CreateBody& b) { b.target_size = 1; }, "namet") == malformed);
  CHECK(create([](CreateBody& b) { b.parent = 0; }) == malformed);
  CHECK(create([](CreateBody& b) { b.reserved = 1; }) == malformed);
  CHECK(create([](CreateBody& b) { b.parent_mtime = bad_time; }) == malformed);

  const auto rename = [](auto change) {
    return spoilt<RenameBody>(Kind::rename, rename_body(), "oldnewer", change);
  };
  CHECK(rename([](RenameBody& b) { b.new_parent = 0; }) == malformed);
  CHECK(rename([](RenameBody& b) { b.exchange = 1; }) == malformed);  // with what?
  CHECK(rename([](RenameBody& b) { b.exchange = 2; }) == malformed);
  CHECK(rename([](RenameBody& b) { b.exchange = 1, b.replaced = 7; }) == ok);
  CHECK(rename([](RenameBody& b) { b.name_size = 65535; }) == malformed);

  Record out;
  CHECK(parsed(Kind::attributes, AttributesBody{}, "", out) == malformed);
  CHECK(parsed(Kind::attributes, AttributesBody{64, 0, 0, 0, 0, {}, {}}, "", out) == malformed);
  CHECK(parsed(Kind::attributes, AttributesBody{1, 0100644, 0, 0, 0, {}, {}}, "", out) ==
        malformed);
  CHECK(parsed(Kind::attributes, AttributesBody{1, 0644, 0, 0, 0, {}, {}}, "x", out) == malformed);
  CHECK(parsed(Kind::allocate, AllocateBody{5, INT64_MAX, 0, 0, {}}, "", out) == malformed);
  CHECK(parsed(Kind::set_xattr, XattrBody{6, 3, 0, 0}, "user.av!", out) == malformed);
  CHECK(parsed(Kind::remove_xattr, XattrBody{6, 2, 0, 0}, "user.av!", out) == malformed);
  CHECK(parsed(Kind::set_xattr, XattrBody{0, 0, 0, 0}, "", out) == malformed);
  const auto unknown = static_cast<Kind>(static_cast<int>(last_kind) + 1);
  CHECK(parsed(unknown, uint64_t{1}, "", out) == malformed);
}

TEST_CASE("record: the head's own fields") {
  const Bytes good = made(Kind::write, write_body(), "data");
  Record out;
  const auto changed = [&](const std::function<void(RecordHead&)>& change) {
    Bytes bytes = good;
    bytes.resize(4096);
    RecordHead head;
    std::memcpy(&head, bytes.data(), sizeof head);
    change(head);
    std::memcpy(bytes.data(), &head, sizeof head);
    return parse_record(bytes, out);
  };
  CHECK(changed([](RecordHead&) {}) == ok);
  CHECK(changed([](RecordHead& h) { h.size += 8; }) == malformed);
  CHECK(changed([](RecordHead& h) { h.size = 0; }) == malformed);
  CHECK(changed([](RecordHead& h) { h.size = UINT32_MAX; }) == malformed);
  CHECK(changed([](RecordHead& h) { h.payload_size = UINT32_MAX; }) == malformed);
  CHECK(changed([](RecordHead& h) { h.file = 0; }) == malformed);
  CHECK(changed([](RecordHead& h) { h.lsn = 0; }) == malformed);
  CHECK(changed([](RecordHead& h) { h.flags = 2; }) == malformed);
  CHECK(changed([](RecordHead& h) { h.payload_crc ^= 1; }) == ParseStatus::corrupt);
  CHECK(changed([](RecordHead& h) { h.kind = 0; }) == malformed);
  const Bytes pad = [] {
    Bytes bytes(sizeof(RecordHead));
    RecordHead head{};
    head.size = 4096;
    std::memcpy(bytes.data(), &head, sizeof head);
    return bytes;
  }();
  CHECK(parse_record(pad, out) == ok);
  CHECK(out.kind == Kind::pad);
}

TEST_CASE("record: every shorter piece is incomplete, never read beyond") {
  const Bytes good = made(Kind::create, create_body(), "name");
  for (size_t size = 0; size < good.size(); size++) {
    // A copy of exactly that size, so that a sanitizer sees each byte that is read behind it.
    const Bytes piece(good.begin(), good.begin() + static_cast<long>(size));
    Record out;
    CHECK(parse_record(piece, out) == ParseStatus::incomplete);
  }
}

TEST_CASE("record: the chain ties each to all before it") {
  Stream stream;
  std::vector<RecordHead> heads;
  for (int i = 0; i < 5; i++) {
    if (i == 3) stream.epoch = 4;
    const Bytes bytes = stream.write(100);
    heads.emplace_back();
    std::memcpy(&heads.back(), bytes.data(), sizeof(RecordHead));
  }
  Tail tail;
  for (const RecordHead& head : heads) {
    CHECK(follows(tail, head));
    for (const RecordHead& other : heads) CHECK(follows(tail, other) == (other.lsn == head.lsn));
    Tail newer = tail, other_chain = tail;
    newer.epoch = head.epoch + 1;
    other_chain.chain ^= 1;
    CHECK_FALSE(follows(newer, head));
    CHECK_FALSE(follows(other_chain, head));
    for (size_t byte = 0; byte < sizeof head; byte++) {
      RecordHead bad = head;
      reinterpret_cast<uint8_t*>(&bad)[byte] ^= 0x10;
      CHECK_FALSE(follows(tail, bad));
    }
    tail = tail_after(head);
  }
  CHECK(tail.lsn == 5);
}
