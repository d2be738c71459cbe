#pragma once
#include <span>
#include <string>
#include <vector>

#include "replica/disk.h"
#include "replica/marks.h"

/**
 * The file of a generation of marks. It is written in blocks of 4096 bytes, O_DIRECT and O_DSYNC;
 * each block is eight sectors of 512 bytes that speak for themselves, since a sector is what a disk
 * writes whole or not at all. A commit writes the blocks that it changes, over what is there: a
 * sector that has marks already keeps them whether its old or its new bytes are found.
 *
 * So after a loss of power a sector of the last commit is old or new, and all others are as they
 * were. Anything else (a sector with a wrong CRC, one that is not full before the last commit, a
 * file that is too short) is damage: then everything counts as marked.
 */
namespace holdfast::replica {

inline constexpr size_t mark_sector = 512;
inline constexpr size_t sector_marks = 28;
inline constexpr size_t mark_growth = 1u << 20;  // bytes

struct MarkSector {
  uint32_t magic;
  uint32_t crc;  // CRC-32C of the sector, with 0 here
  uint64_t generation;
  uint64_t first_new;
  uint64_t commit;  // number of the write that made it so: 1 with the file
  uint32_t sector;  // its place
  uint32_t first;   // first sector that this commit changed
  uint32_t blocks;  // of the file, at least
  uint16_t count;   // of marks
  uint16_t flags;   // MarkSectorFlags
  Lsn since;        // last record before the generation began
  uint64_t reserved;
  Mark marks[sector_marks];
};
static_assert(sizeof(MarkSector) == mark_sector);

enum MarkSectorFlags : uint16_t {
  sector_everything = 1,  // everything is marked
};

/** What a file holds; `everything` also when it is damaged or not readable. */
struct MarkFileContent {
  std::vector<Mark> marks;
  FileId first_new = 0;
  Lsn since = 0;
  bool everything = false;
};
MarkFileContent read_marks(const std::string& path, uint64_t generation);

/** Numbers of the generations in a folder, ascending. errno of opendir(3); ENOENT: none. */
Result<std::vector<uint64_t>> list_marks(const std::string& folder);
std::string marks_path(const std::string& folder, uint64_t generation);

/** One that is being written. One thread at a time. */
class MarkFile {
 public:
  /** Makes the file, with room for `marks`. */
  int make(const std::string& folder, uint64_t generation, FileId first_new, Lsn since,
           uint64_t marks);
  /** Durable when it returns 0. An errno: nothing counts as added. ENOSPC: `grow` first. */
  int add(std::span<const Mark> marks);
  /** From now on everything is marked; needs no room. 0 or errno. */
  int add_everything();
  /** Makes room for `mark_growth` bytes of marks more; 0 or errno. */
  int grow();
  uint64_t used() const { return used_; }
  /** How many may be added before it must grow. */
  uint64_t room() const;
  const std::string& path() const { return path_; }
  void close() { fd_.reset(); }

 private:
  int write(std::span<const Mark> marks, uint16_t flags);
  void write_sector(uint64_t place, uint64_t first, size_t count, uint16_t flags);
  MarkSector& sector_at(uint64_t sector);

  Fd fd_;
  std::string path_;
  uint64_t generation_ = 0;
  FileId first_new_ = 0;
  Lsn since_ = 0;
  uint64_t blocks_ = 0;
  uint64_t used_ = 0;
  uint64_t commit_ = 1;
  uint16_t flags_ = 0;
  uint64_t base_ = 0;    // block that `image_` begins with: the one with the last mark, or the next
  AlignedBuffer image_;  // as it is on disk
};

}  // namespace holdfast::replica
