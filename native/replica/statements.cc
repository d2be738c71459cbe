#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "replica/changes.h"

/* Statements: how something is, whatever it was before. The rules of a resync are in changes.h. */
namespace holdfast::replica {

int Changes::end_resync(const KeepOrphan& keep) {
  if (mode_ != ApplyMode::resync) return 0;
  if (const int error = flush_times(); error != 0) return error;
  for (Orphanage& orphanage : orphanages_) {
    if (const int error = orphanage.empty(keep); error != 0) return fail(error, "orphanage");
  }
  mode_ = ApplyMode::normal;
  return 0;
}

}  // namespace holdfast::replica
