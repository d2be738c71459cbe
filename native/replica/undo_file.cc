#include "replica/undo_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace holdfast::replica {
namespace {

int pread_all(int fd, uint8_t* to, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t got = pread(fd, to, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : ENODATA;
    to += got;
    size -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return 0;
}

int pwrite_all(int fd, const uint8_t* from, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t put = pwrite(fd, from, size, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return put < 0 ? errno : EIO;
    from += put;
    size -= static_cast<size_t>(put);
    offset += static_cast<uint64_t>(put);
  }
  return 0;
}

size_t body_size(const UndoHead& head) {
  return size_t{head.notes} * sizeof(UndoNote) + size_t{head.made} * sizeof(FileId) + head.records;
}

size_t block_size(const UndoHead& head) {
  return (sizeof head + body_size(head) + undo_grain - 1) / undo_grain * undo_grain;
}

uint32_t crc_of(const UndoHead& head) {
  return crc32c(0, &head, offsetof(UndoHead, crc));
}

bool is_head(const UndoHead& head) {
  return head.magic == undo_magic && head.crc == crc_of(head);
}

/** The folder's entry is durable too. */
int sync_folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.valid() && fsync(fd.get()) == 0 ? 0 : errno;
}

}  // namespace

Result<bool> UndoFile::open(const std::string& path) {
  fd_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd_.valid()) return Result<bool>::failure(errno, "open(undo)");
  struct stat now;
  Result<bool> found = Result<bool>::success(true);
  if (fstat(fd_.get(), &now) != 0) {
    found = Result<bool>::failure(errno, "fstat(undo)");
  } else if (const int error = sync_folder(path); error != 0) {
    found = Result<bool>::failure(error, "fsync(state folder)");
  } else {
    found = scan(static_cast<uint64_t>(now.st_size));
  }
  if (!found.ok()) fd_.reset();
  return found;
}

int UndoFile::close_removed(const std::string& path) {
  fd_.reset();
  batches_.clear();
  end_ = write_ = 0;
  return sync_folder(path);
}

int UndoFile::read_block(uint64_t at, UndoHead& head, std::vector<uint8_t>& body) const {
  if (pread_all(fd_.get(), reinterpret_cast<uint8_t*>(&head), sizeof head, at) != 0) return EBADMSG;
  if (!is_head(head)) return EBADMSG;
  body.resize(body_size(head));
  const int error = pread_all(fd_.get(), body.data(), body.size(), at + sizeof head);
  if (error != 0) return error == ENODATA ? EBADMSG : error;
  return crc32c(0, body.data(), body.size()) == head.body_crc ? 0 : EBADMSG;
}

/** True when a block of a later batch stands behind `at`: all before it was durable once. */
bool UndoFile::later_batch(uint64_t at, uint64_t size, uint64_t batch) const {
  UndoHead head;
  for (; at + sizeof head <= size; at += undo_grain) {
    if (pread_all(fd_.get(), reinterpret_cast<uint8_t*>(&head), sizeof head, at) != 0) return false;
    if (is_head(head) && head.batch > batch) return true;
  }
  return false;
}

Result<bool> UndoFile::scan(uint64_t size) {
  batches_.clear();
  end_ = 0;
  UndoHead head;
  std::vector<uint8_t> body;
  uint32_t index = 0;
  for (uint64_t at = 0; at < size;) {
    const uint64_t batch = batches_.size() + 1;
    int error = read_block(at, head, body);
    if (error == 0 && (head.batch != batch || head.index != index)) error = EBADMSG;
    if (error != 0) {
      if (error != EBADMSG) return Result<bool>::failure(error, "read(undo)");
      if (later_batch(at, size, batch)) return Result<bool>::failure(EBADMSG, "undo");
      break;
    }
    for (uint32_t i = 0; i < head.notes; i++) {
      UndoNote note;
      std::memcpy(&note, body.data() + i * sizeof note, sizeof note);
      if (note.id >= next_own_) next_own_ = note.id + 1;
    }
    at += block_size(head);
    index = head.last != 0 ? 0 : index + 1;
    if (head.last != 0) {
      batches_.push_back({end_, at});
      end_ = at;
    }
  }
  write_ = end_;
  if (end_ < size && ftruncate(fd_.get(), static_cast<off_t>(end_)) != 0) {
    return Result<bool>::failure(errno, "ftruncate(undo)");
  }
  return Result<bool>::success(true);
}

int UndoFile::add_record(Kind kind, FileId file, std::span<const iovec> payload) {
  RecordHead head{};
  head.kind = static_cast<uint16_t>(kind);
  head.file = file;
  measure_payload(payload, head);
  const size_t size = record_size(head.payload_size);
  if (!records_.empty() && records_.size() + size > undo_piece) {
    if (const int error = write_block(false); error != 0) return error;
  }
  const size_t at = records_.size();
  records_.resize(at + size);
  write_record(records_.data() + at, head, payload, tail_, 1);
  return 0;
}

int UndoFile::write_block(bool last) {
  UndoHead head{};
  head.magic = undo_magic;
  head.batch = batches_.size() + 1;
  head.index = index_;
  head.last = last ? 1 : 0;
  head.notes = static_cast<uint32_t>(notes_.size());
  head.made = static_cast<uint32_t>(made_.size());
  head.records = static_cast<uint32_t>(records_.size());
  const size_t notes = notes_.size() * sizeof(UndoNote), made = made_.size() * sizeof(FileId);
  buffer_.assign(block_size(head), 0);
  uint8_t* to = buffer_.data() + sizeof head;
  if (notes > 0) std::memcpy(to, notes_.data(), notes);
  if (made > 0) std::memcpy(to + notes, made_.data(), made);
  if (!records_.empty()) std::memcpy(to + notes + made, records_.data(), records_.size());
  head.body_crc = crc32c(0, to, body_size(head));
  head.crc = crc_of(head);
  std::memcpy(buffer_.data(), &head, sizeof head);
  const int error = pwrite_all(fd_.get(), buffer_.data(), buffer_.size(), write_);
  if (error != 0) return error;
  write_ += buffer_.size();
  index_++;
  notes_.clear();
  made_.clear();
  records_.clear();
  return 0;
}

int UndoFile::end_batch() {
  const bool nothing = index_ == 0 && notes_.empty() && made_.empty() && records_.empty();
  if (nothing) return 0;
  if (const int error = write_block(true); error != 0) return error;
  if (fdatasync(fd_.get()) != 0) return errno;
  batches_.push_back({end_, write_});
  end_ = write_;
  index_ = 0;
  return 0;
}

void UndoFile::drop_batch() {
  notes_.clear();
  made_.clear();
  records_.clear();
  index_ = 0;
  // Should it fail, the next batch is written over it, and a scan ends where that one ends.
  if (write_ > end_ && ftruncate(fd_.get(), static_cast<off_t>(end_)) != 0) errno = 0;
  write_ = end_;
}

int UndoFile::read(size_t number, const std::function<int(const Block&)>& each) {
  UndoHead head;
  std::vector<uint8_t> body;
  std::vector<UndoNote> notes;
  std::vector<FileId> made;
  const Place place = batches_[number];
  for (uint64_t at = place.from; at < place.end; at += block_size(head)) {
    if (const int error = read_block(at, head, body); error != 0) return error;
    notes.resize(head.notes);
    made.resize(head.made);
    const uint8_t* from = body.data();
    if (!notes.empty()) std::memcpy(notes.data(), from, notes.size() * sizeof(UndoNote));
    from += notes.size() * sizeof(UndoNote);
    if (!made.empty()) std::memcpy(made.data(), from, made.size() * sizeof(FileId));
    from += made.size() * sizeof(FileId);
    if (const int error = each({notes, made, {from, head.records}}); error != 0) return error;
  }
  return 0;
}

}  // namespace holdfast::replica
