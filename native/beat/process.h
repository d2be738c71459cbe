#pragma once
#include <sys/types.h>

namespace holdfast::beat {

/**
 * Starts the agent: `socket` becomes its fd 3 and `shm` its fd 4, signals are unblocked, and the
 * kernel kills it when the calling thread's process dies. Call from the main thread only: the
 * death signal follows the thread that forked (prctl(2), PR_SET_PDEATHSIG). Returns the pid, or
 * -1 with errno.
 */
pid_t start_agent(char* const* command, int socket, int shm);

/** Exit code of a child that could not be executed, as shells use it. */
inline constexpr int exit_not_executable = 127;

}  // namespace holdfast::beat
