#include "replica/marks_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace holdfast::replica {
namespace {

constexpr uint32_t sector_magic = 0x4b4d4648;  // "HFMK"
constexpr size_t block_sectors = disk_block / mark_sector;
constexpr size_t block_marks = block_sectors * sector_marks;
constexpr size_t image_blocks = 16;         // what one write changes at most
constexpr uint64_t file_most = 256u << 20;  // a longer one is none of ours
constexpr std::string_view name_start = "marks-";

uint32_t crc_of(const MarkSector& sector) {
  MarkSector copy = sector;
  copy.crc = 0;
  return crc32c(0, &copy, sizeof copy);
}

bool is_zero(const MarkSector& sector) {
  static constexpr MarkSector zero{};
  return std::memcmp(&sector, &zero, sizeof zero) == 0;
}

bool is_whole(const MarkSector& sector, uint64_t generation, uint64_t place) {
  return sector.magic == sector_magic && sector.crc == crc_of(sector) &&
         sector.generation == generation && sector.sector == place &&
         sector.count <= sector_marks && sector.first <= sector.sector;
}

/** All of a file that has whole sectors only; none: the file is none of ours. */
std::vector<MarkSector> read_sectors(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat attributes;
  if (!fd.valid() || fstat(fd.get(), &attributes) != 0) return {};
  const auto size = static_cast<uint64_t>(attributes.st_size);
  if (!S_ISREG(attributes.st_mode) || size > file_most) return {};
  std::vector<MarkSector> sectors(size / mark_sector);
  const int error = read_at(fd.get(), reinterpret_cast<uint8_t*>(sectors.data()),
                            sectors.size() * mark_sector, 0);
  return error == 0 ? sectors : std::vector<MarkSector>{};
}

/** The sectors that count; false: they are not what a crash can leave. */
bool check(const std::vector<MarkSector>& sectors, uint64_t generation) {
  if (sectors.empty() || is_zero(sectors[0])) return false;
  const MarkSector* newest = nullptr;
  for (size_t i = 0; i < sectors.size(); i++) {
    if (is_zero(sectors[i])) continue;
    if (!is_whole(sectors[i], generation, i)) return false;
    if (sectors[i].first_new != sectors[0].first_new) return false;
    if (newest == nullptr || sectors[i].commit > newest->commit) newest = &sectors[i];
  }
  if (uint64_t{newest->blocks} * block_sectors > sectors.size()) return false;
  // What the last commit did not touch is as full as it was then.
  for (size_t i = 0; i < newest->first; i++) {
    if (sectors[i].count != sector_marks) return false;
  }
  return true;
}

}  // namespace

MarkFileContent read_marks(const std::string& path, uint64_t generation) {
  MarkFileContent out;
  const std::vector<MarkSector> sectors = read_sectors(path);
  if (!check(sectors, generation)) {
    out.everything = true;
    return out;
  }
  out.first_new = sectors[0].first_new;
  out.since = sectors[0].since;
  for (const MarkSector& sector : sectors) {
    out.marks.insert(out.marks.end(), sector.marks, sector.marks + sector.count);
    if ((sector.flags & sector_everything) != 0) out.everything = true;
  }
  return out;
}

Result<std::vector<uint64_t>> list_marks(const std::string& folder) {
  using Outcome = Result<std::vector<uint64_t>>;
  struct Close {
    void operator()(DIR* entries) const { closedir(entries); }
  };
  const std::unique_ptr<DIR, Close> entries(opendir(folder.c_str()));
  std::vector<uint64_t> numbers;
  if (!entries) {
    return errno == ENOENT ? Outcome::success({}) : Outcome::failure(errno, "opendir");
  }
  errno = 0;
  while (const dirent* entry = readdir(entries.get())) {
    std::string_view name = entry->d_name;
    if (!name.starts_with(name_start)) continue;
    name.remove_prefix(name_start.size());
    uint64_t number = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (bad != std::errc() || end != name.data() + name.size()) continue;
    numbers.push_back(number);
  }
  if (errno != 0) return Outcome::failure(errno, "readdir");
  std::ranges::sort(numbers);
  return Outcome::success(std::move(numbers));
}

std::string marks_path(const std::string& folder, uint64_t generation) {
  return folder + "/" + std::string(name_start) + std::to_string(generation);
}

int MarkFile::make(const std::string& folder, uint64_t generation, FileId first_new, Lsn since,
                   uint64_t marks) {
  generation_ = generation;
  first_new_ = first_new;
  since_ = since;
  // One block more: `add_everything` always has a sector.
  blocks_ = (marks + block_marks - 1) / block_marks + 1;
  used_ = 0;
  commit_ = 1;
  flags_ = 0;
  base_ = 0;
  image_ = AlignedBuffer(image_blocks * disk_block);
  write_sector(0, 0, 0, 0);
  path_ = marks_path(folder, generation);
  Result<DurableFile> file = open_durable(path_, blocks_ * disk_block, image_.data());
  if (!file.ok()) return file.error;
  if (!file.value.made) return EEXIST;
  fd_ = std::move(file.value.fd);
  return 0;
}

MarkSector& MarkFile::sector_at(uint64_t sector) {
  return reinterpret_cast<MarkSector*>(image_.data())[sector - base_ * block_sectors];
}

uint64_t MarkFile::room() const {
  return (blocks_ - 1) * block_marks - used_;
}

/** Sets all of a sector in the image but its marks. */
void MarkFile::write_sector(uint64_t place, uint64_t first, size_t count, uint16_t flags) {
  MarkSector& sector = sector_at(place);
  sector.magic = sector_magic;
  sector.generation = generation_;
  sector.first_new = first_new_;
  sector.commit = commit_;
  sector.sector = static_cast<uint32_t>(place);
  sector.first = static_cast<uint32_t>(first);
  sector.blocks = static_cast<uint32_t>(blocks_);
  sector.count = static_cast<uint16_t>(count);
  sector.flags = flags;
  sector.since = since_;
  sector.reserved = 0;
  sector.crc = crc_of(sector);
}

/** One write, of at most what the image holds; the sectors count when it was well. */
int MarkFile::write(std::span<const Mark> marks, uint16_t flags) {
  const uint64_t first = used_ / sector_marks;
  const uint64_t after = used_ + marks.size();
  const uint64_t last = marks.empty() ? first : (after - 1) / sector_marks;
  const MarkSector before = sector_at(first);
  commit_++;
  for (uint64_t place = first, done = 0; place <= last; place++) {
    MarkSector& sector = sector_at(place);
    const size_t has = place == first ? used_ % sector_marks : 0;
    const size_t more = std::min<size_t>(sector_marks - has, marks.size() - done);
    std::copy_n(marks.begin() + static_cast<ptrdiff_t>(done), more, sector.marks + has);
    done += more;
    write_sector(place, first, has + more, flags);
  }
  const size_t size = (last / block_sectors + 1 - base_) * disk_block;
  const int error = write_at(fd_.get(), image_.data(), size, base_ * disk_block);
  if (error != 0) {
    // Some sectors may be on disk: more than what counts, which does no harm.
    sector_at(first) = before;
    std::memset(static_cast<void*>(&sector_at(first) + 1), 0, (last - first) * mark_sector);
    return error;
  }
  used_ = after;
  const uint64_t next = used_ / block_marks;
  if (next == base_) return 0;
  // The block that the next write begins with; it is empty when the last one was just filled.
  uint8_t* image = image_.data();
  const size_t moved = (next - base_) * disk_block;
  if (moved < image_.size()) std::memmove(image, image + moved, disk_block);
  std::memset(image + (moved < image_.size() ? disk_block : 0), 0,
              image_.size() - (moved < image_.size() ? disk_block : 0));
  base_ = next;
  return 0;
}

int MarkFile::add(std::span<const Mark> marks) {
  if (marks.size() > room()) return ENOSPC;
  while (!marks.empty()) {
    const uint64_t fits = (base_ + image_blocks) * block_marks - used_;
    const size_t part = std::min<size_t>(marks.size(), fits);
    if (const int error = write(marks.first(part), flags_); error != 0) return error;
    marks = marks.subspan(part);
  }
  return 0;
}

int MarkFile::add_everything() {
  const int error = write({}, sector_everything);
  if (error == 0) flags_ = sector_everything;
  return error;
}

int MarkFile::grow() {
  const AlignedBuffer zeros(mark_growth);
  const int error = write_at(fd_.get(), zeros.data(), zeros.size(), blocks_ * disk_block);
  if (error == 0) blocks_ += mark_growth / disk_block;
  return error;
}

}  // namespace holdfast::replica
