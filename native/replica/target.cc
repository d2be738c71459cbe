#include "replica/target.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "replica/changes.h"
#include "replica/disk.h"
#include "replica/faults.h"
#include "replica/frames.h"
#include "replica/journal.h"
#include "replica/lineage.h"

namespace holdfast::replica {
namespace {

constexpr uint64_t magic = 0x3130'4752'4f46'4448;  // "HDFORG01"

/** File `origin`: this, then `count` EpochStart. */
struct OriginHead {
  uint64_t magic;
  uint32_t count;
  uint32_t crc;  // CRC-32C of the entries
};
static_assert(sizeof(OriginHead) == 16);

int sync_folder(const std::string& folder) {
  const Fd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd.valid() && fsync(fd.get()) == 0 ? 0 : errno;
}

}  // namespace

std::vector<uint8_t> missing_frame(const Missing& what) {
  MissingBody body{};
  body.file = what.file;
  body.parent = what.parent;
  body.name_size = static_cast<uint32_t>(what.name.size());
  if (what.adopted) body.flags |= missing_adopted;
  std::vector<uint8_t> out(sizeof body + what.name.size());
  std::memcpy(out.data(), &body, sizeof body);
  if (!what.name.empty()) {
    std::memcpy(out.data() + sizeof body, what.name.data(), what.name.size());
  }
  return out;
}

int save_origin(const std::string& folder, const std::vector<EpochStart>& history) {
  const std::string path = folder + "/origin";
  const std::string next = path + ".new";
  const size_t size = history.size() * sizeof(EpochStart);
  const auto* entries = reinterpret_cast<const uint8_t*>(history.data());
  OriginHead head{magic, static_cast<uint32_t>(history.size()), crc32c(0, entries, size)};
  const Fd fd(open(next.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  int error = write_at(fd.get(), reinterpret_cast<const uint8_t*>(&head), sizeof head, 0);
  if (error == 0 && size > 0) error = write_at(fd.get(), entries, size, sizeof head);
  if (error == 0 && fsync(fd.get()) != 0) error = errno;
  if (error == 0 && rename(next.c_str(), path.c_str()) != 0) error = errno;
  return error == 0 ? sync_folder(folder) : error;
}

int load_origin(const std::string& folder, std::vector<EpochStart>& out) {
  const Fd fd(open((folder + "/origin").c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  OriginHead head{};
  struct stat now;
  if (fstat(fd.get(), &now) != 0) return errno;
  int error = read_at(fd.get(), reinterpret_cast<uint8_t*>(&head), sizeof head, 0);
  if (error != 0) return error == EIO ? EBADMSG : error;
  const size_t size = head.count * sizeof(EpochStart);
  if (head.magic != magic || head.count > max_history ||
      static_cast<uint64_t>(now.st_size) != sizeof head + size) {
    return EBADMSG;
  }
  std::vector<EpochStart> history(head.count);
  auto* entries = reinterpret_cast<uint8_t*>(history.data());
  if (size > 0) error = read_at(fd.get(), entries, size, sizeof head);
  if (error != 0) return error;
  if (crc32c(0, entries, size) != head.crc) return EBADMSG;
  out = std::move(history);
  return 0;
}

int remove_rest(const std::string& folder) {
  int first = 0;
  for (const char* name : {"undo", "origin", "origin.new", "reports", "reports.new"}) {
    if (unlink((folder + "/" + name).c_str()) == 0 || errno == ENOENT) continue;
    if (first == 0) first = errno;
  }
  return first;
}

int save_synced(Super& super, const std::string& folder, const Record& record,
                const JournalPoint& end, ResyncSide* files, bool& counts) {
  SuperState next = super.state();
  const bool resynced = next.state == DiskState::inconsistent && next.resync == record.synced.run;
  // One that is applied again says nothing about what has become of this copy since.
  const bool caught_up = next.state == DiskState::outdated && record.head.lsn > next.base.lsn;
  counts = resynced || caught_up;
  if (!counts) return 0;
  if (resynced) {
    std::vector<EpochStart> history;
    if (const int error = load_origin(folder, history); error != 0) return error;
    if (!history.empty()) {
      std::copy(history.begin(), history.end(), next.history);
      next.history_size = static_cast<uint32_t>(history.size());
    }
    next.checkpoint = end;
    next.role = 2;
    next.clean = 0;
  }
  // The source has said so in its own superblock before it appended the record.
  if (next.history_size > 0 && next.history[next.history_size - 1].alone != 0) {
    const uint32_t node = next.history[next.history_size - 1].primary;
    add_epoch(next, {record.head.epoch, record.head.lsn - 1, node, 0});
  }
  next.state = DiskState::in_sync;
  next.epoch = std::max(next.epoch, record.synced.epoch);
  next.base = tail_after(record.head);
  next.base_state = 0;
  next.resync = record.synced.run;
  if (const int error = super.save(next); error != 0) return error;
  if (resynced && files != nullptr) files->finished();
  return 0;
}

Result<bool> resync_ended(const Super& super, const std::string& path, uint64_t bytes) {
  using Outcome = Result<bool>;
  const SuperState& state = super.state();
  if (state.state != DiskState::inconsistent || state.resync == 0) return Outcome::success(false);
  Journal journal(planted_faults());
  const Result<bool> made = journal.open(path, bytes);
  if (!made.ok()) return made;
  if (made.value) return Outcome::failure(EBADMSG, "journal");
  bool ended = false;
  const auto look = [&](const Record& record, std::span<const uint8_t>) {
    if (record.kind == Kind::synced && record.synced.run == state.resync) ended = true;
  };
  const Result<JournalPoint> end = journal.recover(state.checkpoint, look);
  return end.ok() ? Outcome::success(ended) : Outcome::failure(end.error, end.call);
}

}  // namespace holdfast::replica
