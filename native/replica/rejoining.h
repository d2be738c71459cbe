#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "replica/dirty.h"
#include "replica/link.h"
#include "replica/rejoin.h"
#include "replica/role.h"

/** The files' side of bringing a peer back: dirty set, marks and resync, put together. */
namespace holdfast::replica {

class Rejoiner final : public Rejoining {
 public:
  /** All outlive it, and the link. `folder`: of the state; `rate`: bytes per second, 0: no limit.
   */
  Rejoiner(Tree& tree, const Ids& ids, Events& events, uint32_t volumes, std::string folder,
           uint64_t rate);
  /** Of a distant copy: `own` is the folder that its dirty set is saved in. */
  void set_folder(std::string own) { own_ = std::move(own); }
  ~Rejoiner() override;

  /** What marks name becomes dirty. */
  void add(const Marked& marked);
  /** Marks that `follows` speaks to, once they are open; `copy`: as which one. */
  void set_marks(Marks* marks, uint32_t copy = 0) {
    marks_ = marks;
    copy_ = copy;
  }
  /** The marks do not have what is in the saved dirty set: it counts with them until the copy
   * follows. */
  void count_saved(bool counts) { saved_counts_ = counts; }
  bool saved_counts() const { return saved_counts_; }
  // Any thread.
  DirtyTotals totals() const { return dirty_.totals(); }
  const ResyncProgress& shown() const {
    const Resync* resync = shown_.load();
    return resync == nullptr ? nothing_ : resync->progress();
  }
  /** Once the directories are served. */
  void attach(Link& link, Locks& locks);
  /** What is dirty, for the next process, durably. 0 or errno. */
  int save();
  /** What the last process saved. 0, or why it is not known: then its marks count. */
  int load();
  /** Any thread. */
  void status(Line& line) const;

  void touch(const Record& record) override { dirty_.touch(record); }
  void touched(const Marked& marked) override { add(marked); }
  void own_marks() override;
  void compare_all() override { dirty_.compare_all(); }
  void first_copy() override;
  void clear() override { dirty_.clear(); }
  void follows(bool peer) override;
  bool nothing_dirty() const override { return dirty_.empty(); }
  bool known() const override { return !dirty_.totals().everything; }
  void start(uint64_t run, std::function<void()> whole,
             std::function<void(int error, const char* call)> failed) override;
  void stop() override { resync_->stop(); }
  bool missing(std::span<const uint8_t> body) override { return resync_->missing(body); }
  void differs(std::span<const uint8_t> body) override { resync_->differs(body); }
  const ResyncProgress& progress() const override {
    return resync_ ? resync_->progress() : nothing_;
  }

 private:
  class Stream;
  std::string saved() const { return own_ + "/dirty"; }

  Tree& tree_;
  const Ids& ids_;
  Events& events_;
  const uint32_t volumes_;
  const std::string folder_;
  std::string own_;
  const uint64_t rate_;
  Marks* marks_ = nullptr;
  uint32_t copy_ = 0;
  std::atomic<bool> saved_counts_{false};
  Dirty dirty_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Resync> resync_;
  std::atomic<const Resync*> shown_{nullptr};
  ResyncProgress nothing_;
};

}  // namespace holdfast::replica
