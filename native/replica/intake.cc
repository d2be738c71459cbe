#include "replica/intake.h"

#include <cerrno>
#include <cstring>

namespace holdfast::replica {
namespace {

// From the start of a batch on: the batch, the record that ends it, and what moves behind the pad.
constexpr size_t batch_room = batch_bytes + max_record + 2 * journal_block;
static_assert(2 * batch_room > Feed::buffer_bytes && batch_room < Feed::buffer_bytes);

constexpr size_t block_up(size_t bytes) {
  return (bytes + journal_block - 1) & ~(journal_block - 1);
}

}  // namespace

Intake::~Intake() {
  if (buffer_ != nullptr) feed_.drop(buffer_);
}

void Intake::begin(uint64_t epoch) {
  epoch_ = epoch;
  // What waits to be written stays, so the connection goes on behind it.
  if (waiting() == 0) tail_ = journal_.end().tail;
  cut();
}

std::span<uint8_t> Intake::room() {
  if (buffer_ == nullptr) buffer_ = feed_.take();
  const size_t end = start_ + batch_bytes + max_record;
  return {buffer_->memory.data() + fill_, end - fill_};
}

bool Intake::took(size_t bytes) {
  fill_ += bytes;
  while (parsed_ < fill_ && !sealed_) {
    const std::span<const uint8_t> rest(buffer_->memory.data() + parsed_, fill_ - parsed_);
    Record record;
    const ParseStatus status = parse_record(rest, record);
    if (status == ParseStatus::incomplete) return true;
    if (status != ParseStatus::ok || record.kind == Kind::pad || record.head.epoch > epoch_ ||
        !follows(tail_, record.head)) {
      return false;
    }
    tail_ = tail_after(record.head);
    parsed_ += record.head.size;
    if (record.kind == Kind::synced) {
      sealed_ = true;
      sealed_run_ = record.synced.run;
    }
  }
  return true;
}

void Intake::cut() {
  fill_ = parsed_;
}

void Intake::clear() {
  fill_ = parsed_ = start_;
  written_ = 0;
  sealed_ = false;
  tail_ = journal_.end().tail;
}

int Intake::write() {
  const size_t size = waiting();
  if (size == 0) return 0;
  if (block_up(size) > journal_.room()) return ENOSPC;
  // The beginning of a record behind the batch makes way for the pad.
  const size_t part = fill_ - parsed_;
  const size_t next = block_up(parsed_);
  uint8_t* bytes = buffer_->memory.data();
  if (part > 0) std::memmove(bytes + next, bytes + parsed_, part);
  written_from_ = journal_.end();
  const int error = journal_.write(bytes + start_, size, tail_);
  if (error != 0) return error;
  written_at_ = start_;
  written_ = size;
  sealed_ = false;
  start_ = parsed_ = next;
  fill_ = next + part;
  return 0;
}

void Intake::pass_on() {
  if (written_ == 0) return;
  feed_.add(buffer_, written_at_, written_, written_from_, journal_.end());
  written_ = 0;
  if (start_ + batch_room <= Feed::buffer_bytes) return;
  Feed::Buffer* next = feed_.take();
  const size_t part = fill_ - start_;
  std::memcpy(next->memory.data(), buffer_->memory.data() + start_, part);
  feed_.drop(buffer_);
  buffer_ = next;
  start_ = parsed_ = 0;
  fill_ = part;
}

}  // namespace holdfast::replica
