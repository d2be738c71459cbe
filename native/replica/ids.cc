#include "replica/ids.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "common/fd.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * The file: a head of 4096 bytes, then slots of 64 bytes in no order. A slot with id 0 is free. A
 * slot is filled first and gets its id last, and is freed by its id becoming 0, so a process that
 * is killed between two stores leaves a table without half a slot (the page cache outlives it). A
 * machine that stops may have written any of the pages: each slot has a CRC, and one whose CRC is
 * wrong counts as free. Where each id and each handle lies is known in memory only.
 */
namespace holdfast::replica {
namespace {

constexpr uint64_t table_magic = 0x31'30'53'44'49'46'48ull;  // "HFIDS01"
constexpr uint32_t table_version = 1;
constexpr size_t head_size = 4096;
constexpr size_t first_slots = (1u << 16) / 64 - head_size / 64;  // a file of 64 KiB
constexpr size_t least_growth = 1u << 14;                         // slots: 1 MiB
constexpr size_t most_slots = 1u << 30;
constexpr uint64_t counter_bits = 40;
constexpr uint64_t counter_mask = (uint64_t{1} << counter_bits) - 1;
// Numbers are set aside this many at a time: one durable write of the head for each lot.
constexpr uint64_t lot = 1u << 16;

/** Numbers below `end` may have been given out. Two of them, written in turn. */
struct Limit {
  uint64_t end;
  uint32_t crc;
  uint32_t reserved;
};

struct TableHead {
  uint64_t magic;
  uint32_t version;
  uint32_t slot_size;
  uint32_t crc;  // of what comes before
  uint32_t reserved;
  Limit limits[2];
};

struct Slot {
  std::atomic<uint64_t> id;
  uint32_t crc;  // of what follows, and of the id
  int32_t handle_type;
  uint8_t handle_size;
  uint8_t kind;  // S_IFMT bits >> 12
  uint8_t volume;
  std::atomic<uint8_t> flags;   // not in the CRC: changed in place
  std::atomic<uint32_t> opens;  // nor this
  uint8_t bytes[max_handle];
};
static_assert(sizeof(Slot) == 64 && std::atomic<uint64_t>::is_always_lock_free);

uint32_t limit_crc(uint64_t end) {
  return crc32c(0, &end, sizeof end);
}

uint32_t slot_crc(uint64_t id, const Slot& slot) {
  const uint8_t plain[3] = {slot.handle_size, slot.kind, slot.volume};
  uint32_t crc = crc32c(0, &id, sizeof id);
  crc = crc32c(crc, &slot.handle_type, sizeof slot.handle_type);
  crc = crc32c(crc, plain, sizeof plain);
  return crc32c(crc, slot.bytes, sizeof slot.bytes);
}

uint32_t id_hash(uint64_t id) {
  return static_cast<uint32_t>((id * 0x9e3779b97f4a7c15ull) >> 32);
}

uint32_t handle_hash(uint8_t volume, int32_t type, const uint8_t* bytes, size_t size) {
  const uint64_t seed = (static_cast<uint64_t>(static_cast<uint32_t>(type)) << 8) | volume;
  return static_cast<uint32_t>(XXH3_64bits_withSeed(bytes, size, seed));
}

/** Which slots may hold what hashes to a value: open addressing, no marks for what was removed. */
class Index {
 public:
  void clear(size_t expected) {
    size_t size = 1024;
    while (size < expected * 2) size *= 2;
    places_.assign(size, Place{});
    used_ = 0;
  }
  void add(uint32_t hash, uint32_t slot) {
    if ((used_ + 1) * 3 > places_.size() * 2) grow();
    place(hash, slot);
    used_++;
  }
  /** The first slot with this hash for which `same(slot)`; -1: none. */
  template <typename Same>
  int64_t find(uint32_t hash, Same same) const {
    const size_t mask = places_.size() - 1;
    for (size_t at = hash & mask; places_[at].slot != 0; at = (at + 1) & mask) {
      if (places_[at].hash == hash && same(places_[at].slot - 1)) return places_[at].slot - 1;
    }
    return -1;
  }
  void remove(uint32_t hash, uint32_t slot) {
    const size_t mask = places_.size() - 1;
    size_t hole = hash & mask;
    while (places_[hole].slot != 0 && places_[hole].slot != slot + 1) hole = (hole + 1) & mask;
    if (places_[hole].slot == 0) return;
    // What was pushed beyond the hole comes back, so that no search ends too early.
    for (size_t at = (hole + 1) & mask; places_[at].slot != 0; at = (at + 1) & mask) {
      const size_t home = places_[at].hash & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      places_[hole] = places_[at];
      hole = at;
    }
    places_[hole] = Place{};
    used_--;
  }

 private:
  struct Place {
    uint32_t hash = 0;
    uint32_t slot = 0;  // + 1; 0: empty
  };
  void place(uint32_t hash, uint32_t slot) {
    const size_t mask = places_.size() - 1;
    size_t at = hash & mask;
    while (places_[at].slot != 0) at = (at + 1) & mask;
    places_[at] = {hash, slot + 1};
  }
  void grow() {
    std::vector<Place> old(places_.size() * 2);
    old.swap(places_);
    for (const Place& entry : old) {
      if (entry.slot != 0) place(entry.hash, entry.slot - 1);
    }
  }
  std::vector<Place> places_;
  size_t used_ = 0;
};

}  // namespace

struct Ids::Impl {
  mutable std::shared_mutex mutex;
  Fd fd;
  uint8_t* map = nullptr;
  size_t mapped = 0;
  size_t slots = 0;
  size_t top = 0;  // slots from here on were never used
  std::vector<uint32_t> free;
  Index by_id;
  Index by_handle;
  uint64_t count = 0;
  std::mutex counter_mutex;
  uint64_t next = max_root + 1;
  uint64_t limit = 0;

  ~Impl() {
    if (map != nullptr) munmap(map, mapped);
  }
  TableHead& head() const { return *reinterpret_cast<TableHead*>(map); }
  Slot& slot(size_t at) const { return reinterpret_cast<Slot*>(map + head_size)[at]; }
  static uint64_t id_of(const Slot& slot) { return slot.id.load(std::memory_order_relaxed); }

  int64_t find_id(uint64_t id) const {
    return by_id.find(id_hash(id), [&](uint32_t at) { return id_of(slot(at)) == id; });
  }
  uint32_t hash_of(const Slot& entry) const {
    return handle_hash(entry.volume, entry.handle_type, entry.bytes, entry.handle_size);
  }
  void index(uint32_t at) {
    by_id.add(id_hash(id_of(slot(at))), at);
    by_handle.add(hash_of(slot(at)), at);
    count++;
  }
  void release(uint32_t at) {
    Slot& entry = slot(at);
    by_id.remove(id_hash(id_of(entry)), at);
    by_handle.remove(hash_of(entry), at);
    entry.id.store(0, std::memory_order_release);
    free.push_back(at);
    count--;
  }
  int map_file(size_t size);
  int grow();
  int take(uint32_t& at);
  int load();
  int raise_limit();
  IdEntry entry_of(const Slot& from) const;
};

int Ids::Impl::map_file(size_t size) {
  void* at = map == nullptr ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0)
                            : mremap(map, mapped, size, MREMAP_MAYMOVE);
  if (at == MAP_FAILED) return errno;
  map = static_cast<uint8_t*>(at);
  mapped = size;
  slots = (size - head_size) / sizeof(Slot);
  return 0;
}

/** A quarter more room, allocated: a page that cannot be written would end the process. */
int Ids::Impl::grow() {
  const size_t more = std::max(least_growth, slots / 4);
  if (slots + more > most_slots) return ENOSPC;
  const size_t size = (head_size + (slots + more) * sizeof(Slot) + 4095) & ~size_t{4095};
  const int error =
      posix_fallocate(fd.get(), static_cast<off_t>(mapped), static_cast<off_t>(size - mapped));
  if (error != 0) return ENOSPC;
  return map_file(size) == 0 ? 0 : ENOSPC;
}

int Ids::Impl::take(uint32_t& at) {
  if (!free.empty()) {
    at = free.back();
    free.pop_back();
    return 0;
  }
  if (top == slots) {
    if (const int error = grow(); error != 0) return error;
  }
  at = static_cast<uint32_t>(top++);
  return 0;
}

int Ids::Impl::load() {
  const TableHead& found = head();
  if (found.magic != table_magic || found.version != table_version ||
      found.slot_size != sizeof(Slot) || found.crc != crc32c(0, &found, offsetof(TableHead, crc))) {
    return EBADMSG;
  }
  for (const Limit& each : found.limits) {
    if (each.crc == limit_crc(each.end)) limit = std::max(limit, each.end);
  }
  if (limit == 0) return EBADMSG;
  next = limit;  // some below it may have been given out
  madvise(map, mapped, MADV_WILLNEED);
  for (size_t at = 0; at < slots; at++) {
    if (id_of(slot(at)) != 0) top = at + 1;
  }
  by_id.clear(top);
  by_handle.clear(top);
  for (uint32_t at = 0; at < top; at++) {
    Slot& entry = slot(at);
    const uint64_t id = id_of(entry);
    const bool good = id != 0 && entry.handle_size <= max_handle &&
                      entry.crc == slot_crc(id, entry) && find_id(id) < 0;
    if (good) {
      index(at);
    } else {
      entry.id.store(0, std::memory_order_release);
      free.push_back(at);
    }
  }
  return 0;
}

/** Sets the next lot aside, durably: a machine that stops must not give the numbers out again. */
int Ids::Impl::raise_limit() {
  const uint64_t end = limit + lot;
  std::shared_lock lock(mutex);
  Limit* limits = head().limits;
  Limit& older = limits[0].end <= limits[1].end ? limits[0] : limits[1];
  older.crc = ~limit_crc(end);  // not whole before both are written
  std::atomic_thread_fence(std::memory_order_release);
  older.end = end;
  std::atomic_thread_fence(std::memory_order_release);
  older.crc = limit_crc(end);
  limit = end;
  return msync(map, head_size, MS_SYNC) == 0 ? 0 : errno;
}

IdEntry Ids::Impl::entry_of(const Slot& from) const {
  IdEntry out;
  out.id = id_of(from);
  out.handle.type = from.handle_type;
  out.handle.size = from.handle_size;
  std::memcpy(out.handle.bytes, from.bytes, max_handle);
  out.type = static_cast<uint32_t>(from.kind) << 12;
  out.volume = from.volume;
  out.flags = from.flags.load(std::memory_order_relaxed);
  out.opens = from.opens.load(std::memory_order_relaxed);
  return out;
}

Ids::Ids() : impl_(new Impl) {}

Ids::~Ids() {
  delete impl_;
}

/** A new table, whole before it has its name. */
static int make_table(const std::string& path) {
  const std::string fresh = path + ".new";
  const Fd fd(::open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno;
  const off_t size = static_cast<off_t>(head_size + first_slots * sizeof(Slot));
  if (const int error = posix_fallocate(fd.get(), 0, size); error != 0) return error;
  TableHead head{};
  head.magic = table_magic;
  head.version = table_version;
  head.slot_size = sizeof(Slot);
  head.crc = crc32c(0, &head, offsetof(TableHead, crc));
  head.limits[0] = {max_root + 1, limit_crc(max_root + 1), 0};
  if (pwrite(fd.get(), &head, sizeof head, 0) != sizeof head) return errno != 0 ? errno : EIO;
  if (fsync(fd.get()) != 0 || rename(fresh.c_str(), path.c_str()) != 0) return errno;
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd parent(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return parent.valid() && fsync(parent.get()) == 0 ? 0 : errno;
}

Result<bool> Ids::open(const std::string& path) {
  Impl& in = *impl_;
  std::unique_lock lock(in.mutex);
  in.fd.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!in.fd.valid() && errno == ENOENT) {
    if (const int error = make_table(path); error != 0) {
      return Result<bool>::failure(error, "open(ids)");
    }
    in.fd.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  }
  struct stat attributes;
  if (!in.fd.valid() || fstat(in.fd.get(), &attributes) != 0) {
    return Result<bool>::failure(errno, "open(ids)");
  }
  // Not a multiple of a page: it was being made longer when the machine stopped.
  const size_t size = static_cast<size_t>(attributes.st_size) & ~size_t{4095};
  if (size <= head_size || (size - head_size) / sizeof(Slot) > most_slots) {
    return Result<bool>::failure(EBADMSG, "open(ids)");
  }
  // Room that lies in a hole would end the process when the disk is full: allocate it now.
  if (const int error = posix_fallocate(in.fd.get(), 0, static_cast<off_t>(size)); error != 0) {
    return Result<bool>::failure(error, "posix_fallocate(ids)");
  }
  if (const int error = in.map_file(size); error != 0) {
    return Result<bool>::failure(error, "mmap(ids)");
  }
  if (const int error = in.load(); error != 0) return Result<bool>::failure(error, "open(ids)");
  return Result<bool>::success(true);
}

FileId Ids::allocate(uint64_t epoch) {
  Impl& in = *impl_;
  std::lock_guard lock(in.counter_mutex);
  if (in.next >= in.limit) in.raise_limit();
  return ((epoch & 0xffffff) << counter_bits) | (in.next++ & counter_mask);
}

int Ids::put(const IdEntry& entry) {
  if (entry.id == 0 || entry.handle.size > max_handle) return EINVAL;
  Impl& in = *impl_;
  std::unique_lock lock(in.mutex);
  const int64_t known = in.find_id(entry.id);
  if (known >= 0) {
    Slot& old = in.slot(static_cast<size_t>(known));
    if (old.volume == entry.volume && old.handle_type == entry.handle.type &&
        old.handle_size == entry.handle.size && old.kind == (entry.type >> 12) &&
        std::memcmp(old.bytes, entry.handle.bytes, entry.handle.size) == 0) {
      old.flags.store(entry.flags, std::memory_order_relaxed);
      old.opens.store(entry.opens, std::memory_order_relaxed);
      return 0;
    }
  }
  uint32_t at = 0;
  if (const int error = in.take(at); error != 0) return error;
  Slot& slot = in.slot(at);
  slot.handle_type = entry.handle.type;
  slot.handle_size = static_cast<uint8_t>(entry.handle.size);
  slot.kind = static_cast<uint8_t>(entry.type >> 12);
  slot.volume = entry.volume;
  slot.flags.store(entry.flags, std::memory_order_relaxed);
  slot.opens.store(entry.opens, std::memory_order_relaxed);
  std::memset(slot.bytes, 0, max_handle);
  std::memcpy(slot.bytes, entry.handle.bytes, entry.handle.size);
  slot.crc = slot_crc(entry.id, slot);
  slot.id.store(entry.id, std::memory_order_release);
  // The old slot goes last: killed between the two, the table has one of them after all.
  if (known >= 0) in.release(static_cast<uint32_t>(known));
  in.index(at);
  return 0;
}

bool Ids::get(FileId id, IdEntry& out) const {
  std::shared_lock lock(impl_->mutex);
  const int64_t at = impl_->find_id(id);
  if (at < 0) return false;
  out = impl_->entry_of(impl_->slot(static_cast<size_t>(at)));
  return true;
}

FileId Ids::find(uint8_t volume, const Handle& handle) const {
  if (handle.size > max_handle) return 0;
  std::shared_lock lock(impl_->mutex);
  const auto same = [&](uint32_t at) {
    const Slot& slot = impl_->slot(at);
    return slot.volume == volume && slot.handle_type == handle.type &&
           slot.handle_size == handle.size &&
           std::memcmp(slot.bytes, handle.bytes, handle.size) == 0;
  };
  const uint32_t hash = handle_hash(volume, handle.type, handle.bytes, handle.size);
  const int64_t at = impl_->by_handle.find(hash, same);
  return at < 0 ? 0 : Impl::id_of(impl_->slot(static_cast<size_t>(at)));
}

void Ids::erase(FileId id) {
  std::unique_lock lock(impl_->mutex);
  const int64_t at = impl_->find_id(id);
  if (at >= 0) impl_->release(static_cast<uint32_t>(at));
}

void Ids::set_flags(FileId id, uint8_t set, uint8_t clear) {
  std::unique_lock lock(impl_->mutex);
  const int64_t at = impl_->find_id(id);
  if (at < 0) return;
  std::atomic<uint8_t>& flags = impl_->slot(static_cast<size_t>(at)).flags;
  const int now = (flags.load(std::memory_order_relaxed) | set) & ~clear;
  flags.store(static_cast<uint8_t>(now), std::memory_order_relaxed);
}

uint32_t Ids::add_opens(FileId id, int delta) {
  std::shared_lock lock(impl_->mutex);
  const int64_t at = impl_->find_id(id);
  if (at < 0) return 0;
  const auto change = static_cast<uint32_t>(delta);
  return impl_->slot(static_cast<size_t>(at)).opens.fetch_add(change) + change;
}

uint64_t Ids::count() const {
  std::shared_lock lock(impl_->mutex);
  return impl_->count;
}

void Ids::for_each(bool (*each)(void* context, const IdEntry& entry), void* context) const {
  constexpr size_t batch = 256;
  std::vector<IdEntry> some;
  some.reserve(batch);
  for (size_t from = 0;; from += batch) {
    some.clear();
    {
      std::shared_lock lock(impl_->mutex);
      if (from >= impl_->top) return;
      for (size_t at = from; at < std::min(from + batch, impl_->top); at++) {
        const Slot& slot = impl_->slot(at);
        if (Impl::id_of(slot) != 0) some.push_back(impl_->entry_of(slot));
      }
    }
    for (const IdEntry& entry : some) {
      if (!each(context, entry)) return;
    }
  }
}

void Ids::forget_opens() {
  std::unique_lock lock(impl_->mutex);
  for (uint32_t at = 0; at < impl_->top; at++) {
    Slot& slot = impl_->slot(at);
    if (Impl::id_of(slot) == 0) continue;
    slot.opens.store(0, std::memory_order_relaxed);
    if ((slot.flags.load(std::memory_order_relaxed) & id_unlinked) != 0) impl_->release(at);
  }
}

int Ids::sync() {
  std::shared_lock lock(impl_->mutex);
  // Written pages of a mapping are the file's own pages: fdatasync takes them along.
  return fdatasync(impl_->fd.get()) == 0 ? 0 : errno;
}

}  // namespace holdfast::replica
