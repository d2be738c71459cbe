#include "replica/journal.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace holdfast::replica {
namespace {

constexpr size_t read_bytes = 1u << 20;
// What is left of a record that begins in the last block, the record, and one more read.
constexpr size_t buffer_bytes = 4u << 20;
static_assert(buffer_bytes >= journal_block + max_record + read_bytes);
// No machine writes that much; a cursor beyond it is not one.
constexpr uint64_t max_cursor = 1ull << 62;

constexpr uint64_t block_up(uint64_t bytes) {
  return (bytes + journal_block - 1) & ~uint64_t{journal_block - 1};
}

}  // namespace

Result<bool> Journal::open(const std::string& path, uint64_t size) {
  if (size == 0 || size % journal_block != 0 || size > max_cursor) {
    return Result<bool>::failure(EINVAL, "open");
  }
  Result<DurableFile> file = open_durable(path, size, nullptr);
  if (!file.ok()) return Result<bool>::failure(file.error, file.call);
  if (file.value.size != size) return Result<bool>::failure(EINVAL, "fstat");
  file_ = std::move(file.value);
  size_ = size;
  free_ = 0;
  end_ = {};
  return Result<bool>::success(file_.made);
}

int Journal::reset(const Tail& tail) {
  // A record of the history that is given up, in the first block, could follow `tail`.
  const AlignedBuffer zeros(journal_block);
  const int error = write_at(file_.fd.get(), zeros.data(), journal_block, 0);
  if (error != 0) return error;
  free_ = 0;
  end_ = {0, tail};
  return 0;
}

Result<JournalPoint> Journal::recover(
    const JournalPoint& from,
    const std::function<void(const Record&, std::span<const uint8_t>)>& each) {
  using Outcome = Result<JournalPoint>;
  const bool first = from.tail.lsn == 0 && from.cursor != 0;
  if (from.cursor % journal_block != 0 || from.cursor > max_cursor || first) {
    return Outcome::failure(EBADMSG, "recover");
  }
  // A write that was under way when its process died may still be in the disk's cache only.
  if (fdatasync(file_.fd.get()) != 0) return Outcome::failure(errno, "fdatasync");
  JournalReader reader(*this, from);
  for (;;) {
    Record record;
    std::span<const uint8_t> bytes;
    const Result<bool> next = reader.next(from.cursor + size_, record, bytes);
    if (!next.ok()) return Outcome::failure(next.error, next.call);
    if (!next.value) break;
    if (each) each(record, bytes);
  }
  free_ = from.cursor;
  end_ = reader.point();
  return Outcome::success(end_);
}

int Journal::write(uint8_t* buffer, size_t size, const Tail& tail) {
  const uint64_t whole = block_up(size);
  if (whole > room()) return ENOSPC;
  std::memset(buffer + size, 0, static_cast<size_t>(whole - size));
  const uint64_t position = end_.cursor % size_;
  const auto before_end = static_cast<size_t>(std::min(whole, size_ - position));
  int error = write_at(file_.fd.get(), buffer, before_end, position);
  if (error == 0 && before_end < whole) {
    error = write_at(file_.fd.get(), buffer + before_end, whole - before_end, 0);
  }
  if (error != 0) return error == ENOSPC ? EIO : error;
  end_ = {end_.cursor + whole, tail};
  return 0;
}

void Journal::free_to(uint64_t cursor) {
  free_ = std::clamp(cursor, free_, end_.cursor);
}

int Journal::read(uint64_t cursor, uint8_t* buffer, size_t size) const {
  while (size > 0) {
    const uint64_t position = cursor % size_;
    const auto part = static_cast<size_t>(std::min<uint64_t>(size, size_ - position));
    const int error = read_at(file_.fd.get(), buffer, part, position);
    if (error != 0) return error;
    cursor += part;
    buffer += part;
    size -= part;
  }
  return 0;
}

JournalReader::JournalReader(const Journal& journal, const JournalPoint& from)
    : journal_(journal),
      buffer_(buffer_bytes, false),
      base_(from.cursor),
      end_(from.cursor),
      tail_(from.tail),
      start_(from) {}

JournalPoint JournalReader::point() const {
  return {block_up(end_), tail_};
}

int JournalReader::more(uint64_t limit) {
  // Whole blocks move, so that the memory of the next read is aligned.
  const size_t passed = at_ / journal_block * journal_block;
  if (passed > 0 && buffer_.size() - filled_ < read_bytes) {
    std::memmove(buffer_.data(), buffer_.data() + passed, filled_ - passed);
    base_ += passed;
    filled_ -= passed;
    at_ -= passed;
  }
  const size_t size = std::min<size_t>(
      read_bytes, static_cast<size_t>(std::min<uint64_t>(limit - base_ - filled_, buffer_bytes)));
  const int error = journal_.read(base_ + filled_, buffer_.data() + filled_, size);
  if (error == 0) filled_ += size;
  return error;
}

Result<JournalReader::Look> JournalReader::look(uint64_t limit, Record& record,
                                                std::span<const uint8_t>& bytes) {
  using Outcome = Result<Look>;
  for (;;) {
    const std::span<const uint8_t> rest(buffer_.data() + at_, filled_ - at_);
    const ParseStatus status = parse_record(rest, record);
    if (status == ParseStatus::incomplete) {
      if (base_ + filled_ >= limit) return Outcome::success(Look::beyond);
      const int error = more(limit);
      if (error != 0) return Outcome::failure(error, "pread");
      continue;
    }
    if (status != ParseStatus::ok || record.kind == Kind::pad) {
      return Outcome::success(Look::absent);
    }
    const Faults* faults = journal_.faults();
    const bool any = faults != nullptr && faults->skip_journal_check;
    if (!any && !follows(tail_, record.head)) return Outcome::success(Look::absent);
    bytes = rest.first(record.head.size);
    return Outcome::success(Look::found);
  }
}

Result<bool> JournalReader::next(uint64_t limit, Record& record, std::span<const uint8_t>& bytes) {
  for (;;) {
    if (base_ + at_ >= limit) return Result<bool>::success(false);
    const Result<Look> seen = look(limit, record, bytes);
    if (!seen.ok()) return Result<bool>::failure(seen.error, seen.call);
    if (seen.value == Look::found) {
      if ((base_ + at_) % journal_block == 0) start_ = {base_ + at_, tail_};
      tail_ = tail_after(record.head);
      at_ += record.head.size;
      end_ = base_ + at_;
      return Result<bool>::success(true);
    }
    // Behind the last record of a write, or behind what a torn one left in its last good block, the
    // next write begins the next block. Nothing there either: this is the end.
    const uint64_t next = block_up(base_ + at_);
    if (next == base_ + at_) return Result<bool>::success(false);
    at_ = static_cast<size_t>(next - base_);
    if (at_ > filled_) return Result<bool>::success(false);
  }
}

}  // namespace holdfast::replica
