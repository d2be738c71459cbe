#include "beat/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>

namespace holdfast::beat {
namespace {

constexpr int agent_socket_fd = 3;
constexpr int agent_shm_fd = 4;

/** In the child, between fork and exec: async-signal-safe calls only. */
[[noreturn]] void become_agent(char* const* command, int socket, int shm, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the line above took effect.
  if (getppid() != parent) _exit(exit_not_executable);
  // First out of the way of 3 and 4, then into place without close-on-exec.
  const int high = std::max({socket, shm, agent_shm_fd}) + 1;
  const int high_socket = fcntl(socket, F_DUPFD_CLOEXEC, high);
  const int high_shm = fcntl(shm, F_DUPFD_CLOEXEC, high);
  if (high_socket < 0 || high_shm < 0 || dup2(high_socket, agent_socket_fd) < 0 ||
      dup2(high_shm, agent_shm_fd) < 0) {
    _exit(exit_not_executable);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execvp(command[0], command);
  _exit(exit_not_executable);
}

}  // namespace

pid_t start_agent(char* const* command, int socket, int shm) {
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) become_agent(command, socket, shm, parent);
  return child;
}

}  // namespace holdfast::beat
