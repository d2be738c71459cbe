#pragma once
#include "replica/holder.h"

namespace holdfast::replica {

/** The process that does the work, from its start to its end; the exit code. Descriptors 3 to 6
 * are those of holder.h. */
int run_worker(const Options& options);

}  // namespace holdfast::replica
