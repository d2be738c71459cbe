#include "replica/intake.h"
#include "test/fuzz/replica_fuzz.h"

/**
 * The secondary's intake: a stream of good and spoilt records, cut into pieces, with writes of the
 * journal in between. What it takes must be what was sent, in order, up to the first spoilt byte;
 * and the journal must give back exactly what was written.
 */
using namespace holdfast;
using namespace holdfast::replica;
using namespace holdfast::replica::fuzz;

namespace {

constexpr uint64_t journal_size = 256 * journal_block;

class NoTarget final : public ApplyTarget {
 public:
  bool submit(Batch) override { return true; }
  bool end_replay() override { return true; }
  bool drain() override { return true; }
  Result<JournalPoint> checkpoint() override { return Result<JournalPoint>::success({}); }
  int begin_resync(const JournalPoint&) override { return 0; }
};

struct Stream {
  std::vector<uint8_t> bytes;
  size_t good = 0;    // bytes before the first that is spoilt
  Lsn good_last = 0;  // LSN of the last record before that
};

/** Makes the stream that the first half of an input describes. */
Stream make(Input& input, Tail tail) {
  Stream stream;
  stream.good_last = tail.lsn;
  bool spoilt = false;
  for (unsigned count = input.take<uint8_t>() % 24u; count > 0 && !input.empty(); count--) {
    const auto what = input.take<uint8_t>();
    const auto amount = input.take<uint16_t>();
    const Tail before = tail;
    std::vector<uint8_t> record;
    if (what < 8) {
      const auto raw = input.bytes(amount % 512u);
      record.assign(raw.begin(), raw.end());
      // Bytes as they come are no record: nobody guesses a chain.
      spoilt = spoilt || !record.empty();
    } else {
      // A lost one is larger than any that is sent: were it the same as the one that 40 sent
      // before, what follows the lost one would follow that one too.
      const size_t data = what == 41 ? 9000u : amount % 9000u;
      record = write_of(data, tail, 1 + (what == 255 ? 9u : 0u));
      if (what == 255) spoilt = true;  // of an epoch that the connection is not for
      if (what >= 9 && what < 40) {
        const size_t at = input.take<uint32_t>() % (sizeof(RecordHead) + sizeof(WriteBody));
        const uint8_t flip = input.take<uint8_t>();
        record[at] ^= flip;
        spoilt = spoilt || flip != 0;
      }
      if (what == 40) {
        tail = before;  // the next one has the same LSN
      }
      if (what == 41) {
        record.clear();
        spoilt = true;  // lost: what comes next does not follow
      }
    }
    if (what == 40 && !spoilt) {
      stream.bytes.insert(stream.bytes.end(), record.begin(), record.end());
      stream.good = stream.bytes.size();
      stream.good_last = before.lsn + 1;
      spoilt = true;  // whatever follows
      continue;
    }
    stream.bytes.insert(stream.bytes.end(), record.begin(), record.end());
    if (spoilt) continue;
    stream.good = stream.bytes.size();
    stream.good_last = tail.lsn;
  }
  return stream;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static NoTarget target;
  static Journal& journal = scratch_journal(journal_size);
  static Feed feed(journal, target, {});  // never started: it lends buffers and forgets the rest
  // Another chain for each run: the same records of an earlier one would follow, and rightly so.
  static Tail begin{1, 1, 0};
  begin.chain++;
  must(journal.reset(begin) == 0, "reset");
  Input input(data, size);
  const Stream stream = make(input, begin);
  Intake intake(journal, feed);
  intake.begin(1);
  std::span<const uint8_t> rest = stream.bytes;
  bool taken = true;
  while (taken && !rest.empty()) {
    const auto step = input.take<uint16_t>();
    const std::span<uint8_t> room = intake.room();
    must(!room.empty(), "room");
    const size_t part = std::min({rest.size(), room.size(), size_t{1} + step % 5000u});
    std::memcpy(room.data(), rest.data(), part);
    rest = rest.subspan(part);
    taken = intake.took(part);
    if ((step & 0x8000) != 0 || intake.full()) {
      const int error = intake.write();
      must(error == 0 || error == ENOSPC, "write");
      if (error == ENOSPC) journal.free_to(journal.end().cursor);
      intake.pass_on();
    }
  }
  must(intake.received().lsn == stream.good_last, "what was taken is what was good");
  // All that was spoilt by now was seen, but for the beginning of a record.
  const Lsn received = intake.received().lsn;
  intake.cut();
  must(intake.whole(), "cut");
  const bool room = intake.write() == 0;
  intake.pass_on();
  if (room) must(journal.end().tail.lsn == received, "written");
  if (journal.used() != journal.end().cursor) return 0;  // it was freed in between
  // From the beginning on, the journal gives the good bytes again.
  const Lsn written = journal.end().tail.lsn;
  size_t at = 0;
  Lsn last = begin.lsn;
  const Result<JournalPoint> end =
      journal.recover({0, begin}, [&](const Record& record, std::span<const uint8_t> bytes) {
        must(at + bytes.size() <= stream.good, "nothing but good bytes");
        must(std::memcmp(bytes.data(), stream.bytes.data() + at, bytes.size()) == 0, "the same");
        at += bytes.size();
        last = record.head.lsn;
      });
  must(end.ok() && last == written, "all that was written");
  return 0;
}
