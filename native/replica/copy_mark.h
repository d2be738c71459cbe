#pragma once
#include <string>
#include <vector>

#include "common/result.h"
#include "replica/role.h"
#include "replica/super.h"

/**
 * How a copy knows its directories again. A directory whose file system is not mounted looks like
 * one from which everything was removed; taken for the copy, its emptiness would be sent to the
 * other server. So each replicated directory has a file `.holdfast-copy` in its root, and the state
 * folder notes that file's handle in `copyN` (N: the directory's number). Another file system, the
 * mount point below it, and a copy that was made file by file have not got that file.
 */
namespace holdfast::replica {

enum class Found {
  same,   // the directory that was noted
  other,  // another one
  first,  // nothing was noted
};

/** What the open directory `root` is, by what `note` (a path in the state folder) says. Errors: of
 * reading the one or the other. */
Result<Found> find_mark(int root, const std::string& note);

/**
 * Makes the file in `root`, where there is none, and notes it, durably. The root's mtime stays. 0
 * or errno.
 */
int make_mark(int root, const std::string& note);

/** Where a directory's file is noted. */
std::string mark_note(const std::string& state, size_t volume);

/**
 * Why these directories could not be opened for the copy of the state folder `state`; nothing is
 * changed, and a state folder need not be there. VOLUME: one is not the copy's; where `force`, only
 * if there is nothing in it. What this product's own mount lies over is not looked at.
 */
Failure look_at_directories(const std::string& state, const std::vector<std::string>& dirs,
                            bool force);

/** VOLUME, with what an operator is told. */
Failure other_directory(const std::string& dir);

/**
 * This copy has no history any more, and no file of it is known to the mirror: all that is in the
 * directories is foreign, whatever directories they are. 0 or errno; begun again where it failed.
 */
int forget_copy(Super& super, const std::string& folder);

}  // namespace holdfast::replica
