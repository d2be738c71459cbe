#include "replica/rejoining.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast::replica {

class Rejoiner::Stream final : public ResyncStream {
 public:
  explicit Stream(const Link& link) : link_(link) {}
  Lsn applied() const override { return link_.applied(); }
  uint64_t ring_used() const override { return link_.ring_used(); }
  uint64_t ring_size() const override { return link_.ring_size(); }
  int64_t change_p99_ns() const override { return link_.change_p99_ns(); }

 private:
  const Link& link_;
};

Rejoiner::Rejoiner(Tree& tree, const Ids& ids, Events& events, uint32_t volumes, std::string folder,
                   uint64_t rate)
    : tree_(tree),
      ids_(ids),
      events_(events),
      volumes_(volumes),
      folder_(std::move(folder)),
      own_(folder_),
      rate_(rate) {}

Rejoiner::~Rejoiner() = default;

void Rejoiner::add(const Marked& marked) {
  if (marked.everything) return dirty_.compare_all();
  for (const Mark& mark : marked.marks) {
    const auto what = static_cast<MarkWhat>(mark.what);
    if (what == MarkWhat::names) {
      dirty_.touch_listing(mark.file);
    } else if (what == MarkWhat::inode) {
      dirty_.compare_inode(mark.file);
    } else if (mark.region == mark_whole) {
      dirty_.compare_data(mark.file, 0, to_the_end);
    } else {
      const uint64_t from = uint64_t{mark.region} * mark_region;
      dirty_.compare_data(mark.file, from, from + mark_region);
    }
  }
  if (marked.first_new == 0) return;
  struct Newer {
    Dirty& dirty;
    FileId first;
  } newer{dirty_, marked.first_new};
  ids_.for_each(
      [](void* context, const IdEntry& entry) {
        auto& now = *static_cast<Newer*>(context);
        if (entry.id < now.first || (entry.flags & id_local) != 0) return true;
        if (entry.type == S_IFDIR) now.dirty.touch_listing(entry.id);
        if (entry.type == S_IFREG) now.dirty.compare_data(entry.id, 0, to_the_end);
        now.dirty.compare_inode(entry.id);
        return true;
      },
      &newer);
}

void Rejoiner::own_marks() {
  if (saved_counts_) {
    if (const int error = load(); error != 0) {
      events_.warning("what a distant copy lacked at the last stop cannot be read", error);
      dirty_.compare_all();
    }
  }
  const Result<Marked> marked = Marks::read(folder_);
  if (!marked.ok() || marked.value.everything) {
    events_.warning("the marks of what changed are not there or damaged: everything is compared",
                    marked.error);
    dirty_.compare_all();
    return;
  }
  add(marked.value);
}

void Rejoiner::first_copy() {
  for (FileId root = 1; root <= volumes_; root++) {
    dirty_.touch_inode(root);
    dirty_.touch_listing(root);
  }
}

void Rejoiner::follows(bool peer) {
  if (peer && saved_counts_.exchange(false)) unlink(saved().c_str());
  if (marks_ != nullptr) marks_->keep(!peer, copy_);
}

void Rejoiner::attach(Link& link, Locks& locks) {
  stream_ = std::make_unique<Stream>(link);
  resync_ = std::make_unique<Resync>(tree_, ids_, locks, link, *stream_, dirty_, events_);
  shown_ = resync_.get();
}

void Rejoiner::start(uint64_t run, std::function<void()> whole,
                     std::function<void(int error, const char* call)> failed) {
  ResyncOptions options;
  options.run = run;
  options.bytes_per_second = rate_;
  resync_->start(options, std::move(whole), std::move(failed));
}

int Rejoiner::save() {
  return dirty_.save(saved());
}

int Rejoiner::load() {
  return dirty_.load(saved());
}

void Rejoiner::status(Line& line) const {
  const DirtyTotals totals = dirty_.totals();
  const ResyncProgress& progress = shown();
  const uint64_t rate = progress.rate.load();
  line.add("resync_sent", progress.sent_bytes.load());
  line.add("resync_read", progress.read_bytes.load());
  line.add("resync_left", totals.bytes).add("resync_items", totals.items);
  line.add("resync_rate", rate);
  line.add("resync_seconds_left", rate == 0 ? 0 : totals.bytes / rate);
  line.add("resync_missing", progress.missing.load());
  line.add("dirty_bytes", totals.bytes).add("dirty_files", totals.files);
  line.add("dirty_names", totals.names).add("dirty_everything", uint64_t(totals.everything));
}

}  // namespace holdfast::replica
