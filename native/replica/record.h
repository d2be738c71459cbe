#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

/**
 * One change of the replicated directories, as an outcome: what is true afterwards, not what was
 * asked for. The same bytes lie in the primary's ring, travel on the stream and stand in the
 * secondary's journal. Integers are little-endian; structs have no hidden padding.
 */
namespace holdfast::replica {

/** Place of a record in the history of a mirror: 1, 2, 3 …, without a gap. 0: before the first. */
using Lsn = uint64_t;

/** A file of the mirror, the same on both servers and for ever (ids.h). 1 to 16: the roots. */
using FileId = uint64_t;

inline constexpr size_t max_data = 1u << 20;  // of one write
inline constexpr size_t max_record = max_data + (1u << 12) + (1u << 16);
inline constexpr size_t record_align = 8;
inline constexpr FileId max_root = 16;

enum class Kind : uint16_t {
  pad = 0,  // fills a block or the end of a ring; has no LSN; never on the stream
  write = 1,
  attributes = 2,
  create = 3,
  link = 4,
  unlink = 5,
  rename = 6,
  allocate = 7,
  set_xattr = 8,
  remove_xattr = 9,
  check = 10,  // changes nothing: the secondary compares (verify.h)
  // Statements (statements.h): how something is, whatever it was before. For a resync.
  entry = 11,    // what a name is
  inode = 12,    // all about a file but its names and its data; makes it when it is not there
  listing = 13,  // which names of a range there are in a directory
  synced = 14,   // the copy is whole here: a resync ends
};
inline constexpr Kind last_kind = Kind::synced;

struct RecordHead {
  uint32_t size;         // head and payload, rounded up to record_align
  uint32_t payload_crc;  // CRC-32C of the payload
  uint64_t lsn;
  uint64_t epoch;  // never smaller than that of the record before
  uint64_t chain;  // XXH3-64 over the chain of the record before and the fields of this head
  uint64_t file;   // the FileId it is about
  uint16_t kind;
  uint16_t flags;
  uint32_t payload_size;
};
static_assert(sizeof(RecordHead) == 48);

/** flags of unlink and rename: the file (the replaced one, for rename) has no name left. */
inline constexpr uint16_t flag_last_name = 1;

struct Time {
  int64_t seconds;
  uint32_t nanoseconds;
  uint32_t reserved;
};

struct WriteBody {  // then the data, to the end of the payload
  uint64_t offset;
  Time mtime;
};

enum AttributeMask : uint32_t {
  attribute_mode = 1,
  attribute_uid = 2,
  attribute_gid = 4,
  attribute_size = 8,
  attribute_atime = 16,
  attribute_mtime = 32,
};

struct AttributesBody {
  uint32_t mask;
  uint32_t mode;  // permission bits only
  uint32_t uid;
  uint32_t gid;
  uint64_t size;
  Time atime;
  Time mtime;
};

struct CreateBody {  // then the name, the target of a symbolic link, the two ACLs
  FileId parent;
  uint32_t mode;  // type and permission bits
  uint32_t uid;
  uint32_t gid;
  uint32_t rdev;
  Time mtime;
  Time parent_mtime;
  uint16_t name_size;
  uint16_t target_size;
  uint32_t access_size;   // system.posix_acl_access as the kernel has it, inherited; 0: none
  uint32_t default_size;  // system.posix_acl_default
  uint32_t reserved;
};

struct LinkBody {  // then the name
  FileId parent;
  Time parent_mtime;
  uint32_t name_size;
  uint32_t reserved;
};

struct UnlinkBody {  // of a file or an empty directory; then the name
  FileId parent;
  Time parent_mtime;
  uint32_t name_size;
  uint32_t is_directory;
};

struct RenameBody {  // then the old name, then the new one
  FileId parent;
  FileId new_parent;
  FileId replaced;  // what stood at the new name: 0 none; with exchange, what goes to the old one
  Time parent_mtime;
  Time new_parent_mtime;
  uint16_t name_size;
  uint16_t new_name_size;
  uint32_t exchange;  // 1: RENAME_EXCHANGE
};

struct AllocateBody {
  uint64_t offset;
  uint64_t length;
  uint32_t mode;  // FALLOC_FL_KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
  uint32_t reserved;
  Time mtime;
};

struct XattrBody {  // then the name, then the value; remove_xattr: no value
  uint32_t name_size;
  uint32_t value_size;
  uint32_t mode;  // permission bits afterwards (an access ACL changes them)
  uint32_t reserved;
};

struct EntryBody {  // then the name; the record's file is what the name is, or the parent: nothing
  FileId parent;
  Time parent_mtime;
  uint32_t name_size;
  uint32_t type;  // S_IFMT of the file; 0: there is nothing at the name
};

struct InodeBody {  // then the target of a symbolic link, then the xattrs
  uint64_t size;    // of a regular file; 0 of all others
  Time atime;
  Time mtime;
  uint32_t mode;  // type and permission bits
  uint32_t uid;
  uint32_t gid;
  uint32_t rdev;
  uint32_t volume;  // where it is made, without a name, when it is not there
  uint32_t flags;   // InodeFlags
  uint32_t target_size;
  uint32_t xattrs_size;  // of XattrItems, with names and values
};

enum InodeFlags : uint32_t {
  /** The xattrs are all there are, with their values. Without it: all names, no values; each value
   * comes in a set_xattr record. */
  inode_with_values = 1,
  /** All its data (names) is stated after this, or there is none. Without it the target reports as
   * missing what it has to make. */
  inode_all_follows = 2,
};

struct XattrItem {  // then the name, then the value; not aligned
  uint32_t name_size;
  uint32_t value_size;
};

/** Names in bytewise order; those after the first text and up to the second, and no others. Each
 * text may be empty: from the first name, to the last one. */
struct ListingBody {  // then the two texts, then `count` times u16 size and the name
  uint32_t after_size;
  uint32_t upto_size;
  uint32_t count;
  uint32_t reserved;
  Time mtime;  // of the directory: names that go change it
};

struct SyncedBody {
  uint64_t run;    // number of the resync
  uint64_t epoch;  // from here on the copy counts as in sync
};

/** A record that was read and found well-formed; it points into the bytes that were given. */
struct Record {
  RecordHead head;
  Kind kind = Kind::pad;
  union {
    WriteBody write;
    AttributesBody attributes;
    CreateBody create;
    LinkBody link;
    UnlinkBody unlink;
    RenameBody rename;
    AllocateBody allocate;
    XattrBody xattr;
    EntryBody entry;
    InodeBody inode;
    ListingBody listing;
    SyncedBody synced;
  };
  std::string_view name;    // create, link, unlink, rename (old), xattr, entry; listing: after
  std::string_view second;  // rename: new name; create, inode: target of a link; listing: up to
  // write: data; xattr: value; check: the body as it is; create: access ACL; inode: XattrItems;
  // listing: names
  std::span<const uint8_t> data;
  std::span<const uint8_t> more;  // create: default ACL

  Record() : head{}, write{} {}
};

/** CRC-32C (Castagnoli; RFC 3720 B.4) of `size` bytes, going on from `crc` (0 at first). */
uint32_t crc32c(uint32_t crc, const void* data, size_t size);

/** The chain value of a record: ties it to all records before it. */
uint64_t chain_of(uint64_t previous, const RecordHead& head);

/** Bytes that a record with such a payload takes. */
constexpr size_t record_size(size_t payload) {
  return (sizeof(RecordHead) + payload + record_align - 1) & ~(record_align - 1);
}

enum class ParseStatus {
  ok,
  incomplete,  // more bytes are needed to say
  malformed,   // sizes, kind or a field are not those of a record
  corrupt,     // the payload is not the one that was sent
};

/**
 * Reads the record at the start of `bytes`: sizes, kind, every field and the payload's CRC. Hostile
 * input is answered with a status, never followed. LSN, epoch and chain are the caller's to check
 * (`follows`). A pad is ok, with kind pad and nothing else set. `checked`: the payload's CRC was
 * found right before, and is not computed again.
 */
ParseStatus parse_record(std::span<const uint8_t> bytes, Record& out, bool checked = false);

/** Takes the next xattr from the front of an inode record's `data`. False: there is no more. */
bool next_xattr(std::span<const uint8_t>& items, std::string_view& name,
                std::span<const uint8_t>& value);
/** Takes the next name from the front of a listing record's `data`. False: there is no more. */
bool next_name(std::span<const uint8_t>& names, std::string_view& name);

/** What comes before the next record. */
struct Tail {
  Lsn lsn = 0;
  uint64_t epoch = 0;
  uint64_t chain = 0;
};

/** True when the record is the one that comes right after `tail`: LSN, epoch, chain. */
bool follows(const Tail& tail, const RecordHead& head);

/** The tail after this record. */
inline Tail tail_after(const RecordHead& head) {
  return {head.lsn, head.epoch, head.chain};
}

/**
 * Writes a whole record (padding included) to `to`, which has room for record_size(sum of the
 * parts). `head` comes with file, kind, flags, payload_size and payload_crc set; LSN, epoch and
 * chain are set here from `tail`, which moves on.
 */
void write_record(uint8_t* to, RecordHead head, std::span<const iovec> payload, Tail& tail,
                  uint64_t epoch);

/** payload_size and payload_crc of the parts together. */
void measure_payload(std::span<const iovec> payload, RecordHead& head);

}  // namespace holdfast::replica
