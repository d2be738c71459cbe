#pragma once
#include <atomic>
#include <memory>

#include "replica/ids.h"
#include "replica/log.h"
#include "replica/role.h"
#include "replica/server.h"
#include "replica/tree.h"
#include "replica/volumes.h"

namespace holdfast::replica {

/** What the roles mount and prim have in common: directories with the file system server on them.
 */
class Front {
 public:
  Front(RoleContext& context, const OpenLine& line)
      : context_(context), line_(line), volumes_(context, line), tree_(ids_, max_open_files) {}

  /** Locks the state folder, maps the ids, opens the directories. */
  Failure open_files();
  /**
   * Mounts the directories, or goes on with the mounts of the worker before, and serves them.
   * Where the kernel cannot send again what had no answer, the mounts are ended and made anew:
   * applications get errors, and an event says so.
   */
  Failure serve(Log& log, Marks* marks = nullptr);
  /** Unmounts and ends the server; descriptors are no longer kept. The tree stays usable. */
  Failure stop();
  /** Any thread. */
  void status(Line& line) const;

  Ids& ids() { return ids_; }
  /** Of the ids that are made. */
  uint64_t id_epoch() const { return line_.epoch == 0 ? 1 : line_.epoch; }
  Tree& tree() { return tree_; }
  Volumes& volumes() { return volumes_; }
  /** See Server; 0 while nothing is served. Any thread. */
  int64_t change_p99_ns() const;
  /** While the directories are served. */
  Locks& locks() { return server_->locks(); }

 private:
  static constexpr size_t max_open_files = 4096;

  bool all_kept() const;
  Failure adopt_all(bool& no_resend);
  Failure mount_all();
  Failure end_old_mounts(const char* why);
  void make_server(Log& log, Marks* marks);

  RoleContext& context_;
  const OpenLine& line_;
  Volumes volumes_;
  Ids ids_;
  Tree tree_;
  std::unique_ptr<Server> server_;
  std::atomic<Server*> serving_{nullptr};
  std::atomic<uint64_t> not_kept_{0};
};

}  // namespace holdfast::replica
