#pragma once
#include <string>
#include <vector>

#include "replica/ids.h"
#include "replica/role.h"
#include "replica/tree.h"

/** The replicated directories of a role: their descriptors, what is mounted over them, and the
 * state folder that says so. */
namespace holdfast::replica {

class Volumes {
 public:
  Volumes(RoleContext& context, const OpenLine& line) : context_(context), line_(line) {}

  /** Locks the state folder (made when absent, mode 0700) for this mirror. EBUSY: another process
   * works with it. */
  Failure lock_state();
  std::string state_path(const char* name) const { return line_.state + "/" + name; }

  /**
   * Adds every directory to `tree`, by the kept descriptor when this is a resume, else opened now,
   * after a mount that an earlier process left there is taken away. VOLUME: one is not the
   * directory that this copy was in (copy_mark.h).
   */
  Failure open(Tree& tree);

  /** True when what this mirror mounted over the directory is still there. */
  bool mounted(size_t volume) const;
  /** Remembers in the state folder that the topmost mount at the directory is this mirror's. */
  Failure remember_mount(size_t volume);
  /** Takes it away again; says so with an event when it had to be detached. */
  Failure take_away(size_t volume, int wait_ms);
  /** Forgets the descriptors: the end of the role. */
  void forget();

  size_t count() const { return line_.dirs.size(); }
  const std::string& dir(size_t volume) const { return line_.dirs[volume]; }

 private:
  Failure open_one(size_t volume, Fd& out);
  Failure check_mark(size_t volume, int root);
  int remembered(size_t volume) const;

  RoleContext& context_;
  const OpenLine& line_;
  Fd lock_;
};

}  // namespace holdfast::replica
