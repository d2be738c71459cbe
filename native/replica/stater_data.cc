#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "replica/stater.h"
#include "replica/stater_room.h"

/* Data of regular files: what is written as write records, holes as what makes a hole. */
namespace holdfast::replica {
namespace {

constexpr size_t most_piece = max_data;
constexpr size_t write_head = record_size(sizeof(WriteBody)) + record_align;
constexpr size_t hole_size = record_size(sizeof(AllocateBody));
constexpr uint64_t leaf_most_offset = INT64_MAX / leaf_size * leaf_size;

/** Room for a piece whose every other grain is a hole. */
constexpr size_t room_of(size_t piece) {
  return piece + (piece / dirty_grain + 1) * (write_head + hole_size);
}

uint64_t up(uint64_t offset, uint64_t to) {
  return (offset + to - 1) / to * to;
}
uint64_t down(uint64_t offset, uint64_t to) {
  return offset / to * to;
}

struct Shape {
  uint64_t size = 0;
  Time mtime{};
};

int shape_of(int fd, Shape& out) {
  struct stat now;
  if (fstat(fd, &now) != 0) return errno;
  out.size = static_cast<uint64_t>(now.st_size);
  out.mtime = {now.st_mtim.tv_sec, static_cast<uint32_t>(now.st_mtim.tv_nsec), 0};
  return 0;
}

/** Where data begins, from here on; `size` when there is none. A file system that knows no holes
 * says that everything is data. */
uint64_t next_data(int fd, uint64_t from, uint64_t size) {
  if (from >= size) return size;
  const off_t found = lseek(fd, static_cast<off_t>(from), SEEK_DATA);
  if (found < 0) return errno == ENXIO ? size : from;
  return std::min<uint64_t>(static_cast<uint64_t>(found), size);
}

uint64_t next_hole(int fd, uint64_t from, uint64_t size) {
  const off_t found = lseek(fd, static_cast<off_t>(from), SEEK_HOLE);
  return found < 0 ? size : std::min<uint64_t>(static_cast<uint64_t>(found), size);
}

int read_all(int fd, uint8_t* to, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t got = pread(fd, to, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : EIO;
    to += got;
    size -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return 0;
}

}  // namespace

int Stater::write_within(FileId id, int fd, uint64_t from, uint64_t to, Time mtime,
                         Reserved& room) {
  const size_t size = static_cast<size_t>(to - from);
  buffer_.resize(std::max(buffer_.size(), size));
  if (const int error = read_all(fd, buffer_.data(), size, from); error != 0) {
    return fail(error, "pread");
  }
  stated_.read_bytes += size;
  // Planted: no lock is held, and something else comes between.
  if (faults_ != nullptr && faults_->old_over_new) usleep(5000);
  WriteBody body{from, mtime};
  const iovec parts[] = {{&body, sizeof body}, {buffer_.data(), size}};
  room.append(Kind::write, id, parts);
  return 0;
}

void Stater::hole_within(FileId id, uint64_t from, uint64_t to, Time mtime, Reserved& room) {
  AllocateBody body{};
  body.offset = from;
  body.length = to - from;
  body.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  body.mtime = mtime;
  const iovec parts[] = {{&body, sizeof body}};
  room.append(Kind::allocate, id, parts);
}

int Stater::data(FileId id, uint64_t from, uint64_t to, size_t piece, uint64_t& done) {
  done = to;
  piece = std::clamp<size_t>(down(piece, dirty_grain), dirty_grain, most_piece);
  from = down(from, dirty_grain);
  Reserved room(*this);
  if (const int error = room.take(room_of(piece)); error != 0) return error;
  std::optional<Locks::Hold> hold;
  if (faults_ == nullptr || !faults_->old_over_new) hold.emplace(locks_, id);
  FileRef file;
  Shape shape;
  int error = open(id, file);
  if (error == ESTALE || (error == 0 && file->type != S_IFREG)) return 0;
  if (error != 0) return fail(error, "open_by_handle_at");
  const int fd = file->fd.get();
  if (error = shape_of(fd, shape); error != 0) return fail(error, "fstat");
  const uint64_t end = std::min(to, shape.size);
  if (from >= end) return 0;
  // A hole at the beginning is stated however long it is; then the piece.
  uint64_t at = from;
  uint64_t data = next_data(fd, at, end);
  data = data >= end ? end : down(data, dirty_grain);
  if (data > at) hole_within(id, at, data, shape.mtime, room);
  at = data;
  const uint64_t stop = end - at > piece ? at + piece : end;
  while (at < stop) {
    // A grain counts as data when any of it is.
    data = next_data(fd, at, stop);
    const uint64_t begin = data >= stop ? stop : std::max(down(data, dirty_grain), at);
    if (begin > at) hole_within(id, at, begin, shape.mtime, room);
    at = begin;
    if (at >= stop) break;
    const uint64_t hole = std::min(up(next_hole(fd, data, stop), dirty_grain), stop);
    if (error = write_within(id, fd, at, hole, shape.mtime, room); error != 0) return error;
    at = hole;
  }
  if (at < end) done = at;
  return 0;
}

int Stater::compare(FileId id, uint64_t from, uint64_t to, size_t piece, uint64_t run,
                    uint64_t& done) {
  done = to;
  const auto leaves = static_cast<uint32_t>(std::max<size_t>(1, piece / leaf_size));
  from = std::min(down(from, leaf_size), leaf_most_offset);
  Reserved room(*this);
  const size_t one = record_size(sizeof(CheckBody) + sizeof(Hash));
  int error = room.take(hole_size + leaves * one);
  if (error != 0) return error;
  const Locks::Hold hold(locks_, id);
  FileRef file;
  Shape shape;
  error = open(id, file);
  if (error == ESTALE || (error == 0 && file->type != S_IFREG)) return 0;
  if (error != 0) return fail(error, "open_by_handle_at");
  const int fd = file->fd.get();
  if (error = shape_of(fd, shape); error != 0) return fail(error, "fstat");
  // A large hole is sooner stated than compared.
  const uint64_t end = std::min(to, shape.size);
  const uint64_t data = next_data(fd, from, shape.size);
  if (from < end && data - from >= leaves * leaf_size) {
    const uint64_t hole = data >= end ? end : down(data, leaf_size);
    hole_within(id, from, hole, shape.mtime, room);
    if (hole < end) done = hole;
    return 0;
  }
  std::vector<Hash> hashes;
  CheckBody body{static_cast<uint32_t>(Check::data), 0, run, from, shape.size};
  if (from < end) {
    const auto count =
        static_cast<uint32_t>(std::min<uint64_t>(leaves, up(end - from, leaf_size) / leaf_size));
    uint64_t size = 0;
    if (error = hash_leaves(fd, from, count, hashes, size); error != 0) {
      return fail(error, "pread");
    }
    stated_.read_bytes += std::min<uint64_t>(count * leaf_size, shape.size - from);
  }
  if (hashes.empty()) {
    // Nothing to hash; the size is compared all the same.
    const iovec parts[] = {{&body, sizeof body}};
    room.append(Kind::check, id, parts);
    return 0;
  }
  for (const Hash& hash : hashes) {
    body.count = 1;
    const iovec parts[] = {{&body, sizeof body}, {const_cast<Hash*>(&hash), sizeof hash}};
    room.append(Kind::check, id, parts);
    body.offset += leaf_size;
  }
  if (body.offset < end) done = body.offset;
  return 0;
}

int Stater::compare_inode(FileId id, uint64_t run) {
  Reserved room(*this);
  int error = room.take(record_size(sizeof(CheckBody) + sizeof(Hash)));
  if (error != 0) return error;
  const Locks::Hold hold(locks_, id);
  FileRef file;
  error = open(id, file);
  if (error == ESTALE) return 0;
  if (error != 0) return fail(error, "open_by_handle_at");
  Hash hash;
  if (error = hash_attributes(*file, hash); error != 0) return fail(error, "fstat");
  CheckBody body{static_cast<uint32_t>(Check::attributes), 1, run, 0, 0};
  const iovec parts[] = {{&body, sizeof body}, {&hash, sizeof hash}};
  room.append(Kind::check, id, parts);
  return 0;
}

}  // namespace holdfast::replica
