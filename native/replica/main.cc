#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "replica/copy_mark.h"
#include "replica/holder.h"
#include "replica/worker.h"

/**
 * holdfast-replica --control SOCKET --name NAME [--ring BYTES] [--log FILE]
 *
 * This process becomes the holder, in a session of its own, and ends after `quit` on SOCKET. Once
 * SOCKET can be connected to, it has let go of the caller's stdin, stdout and stderr; before that
 * it says on stderr why it ends with exit code 1 or 2.
 *
 * holdfast-replica --look STATE [--force] DIR...
 *
 * Says whether these directories could be opened for the copy of the state folder STATE, and
 * changes nothing: exit code 0, or 3 and on stdout why not: a code, a space, a sentence. No engine
 * runs for that copy. --force: for a primary by force, which takes what is there (copy_mark.h).
 */
namespace {

using namespace holdfast;
using namespace holdfast::replica;

int refuse(const char* what, int error) {
  fprintf(stderr, "holdfast-replica: %s: %s\n", what, strerror(error));
  return 1;
}

/** Nothing of the caller's terminal or pipes stays open in processes that outlive it. */
void leave_terminal(const std::string& log) {
  Fd none(open("/dev/null", O_RDWR | O_CLOEXEC));
  Fd file;
  if (!log.empty()) file.reset(open(log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  for (int fd = 0; fd < 3; fd++) (void)dup2(fd == 2 && file.valid() ? file.get() : none.get(), fd);
}

int start_holder(const Options& options) {
  auto listener = listen_control(options.control);
  if (!listener.ok()) return refuse(options.control.c_str(), listener.error);
  auto shared = make_shared_memory(options.ring);
  if (!shared.ok()) return refuse(shared.call, shared.error);
  if (getsid(0) != getpid()) (void)setsid();
  signal(SIGHUP, SIG_IGN);
  if (chdir("/") != 0) return 1;
  leave_terminal(options.log);
  return run_holder(options, std::move(listener.value), std::move(shared.value), Fd(), Fd());
}

int look(int count, char** arguments) {
  bool force = false;
  std::vector<std::string> dirs;
  for (int i = 3; i < count; i++) {
    const std::string word = arguments[i];
    if (word == "--force")
      force = true;
    else
      dirs.push_back(word);
  }
  if (count < 3 || dirs.empty()) return 2;
  const Failure failure = look_at_directories(arguments[2], dirs, force);
  if (!failure.failed()) return 0;
  printf("%s %s\n", failure.code.c_str(), failure.text.c_str());
  return 3;
}

void close_on_exec() {
  for (int fd = listener_fd; fd <= other_fd; fd++) (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && strcmp(arguments[1], "--look") == 0) return look(count, arguments);
  Options options;
  const std::string wrong = parse_options(count, arguments, options);
  if (!wrong.empty()) {
    fprintf(stderr, "holdfast-replica: %s\n", wrong.c_str());
    return 2;
  }
  if (options.mode == Options::Mode::holder) return start_holder(options);
  close_on_exec();
  if (options.mode == Options::Mode::worker) return run_worker(options);
  return run_holder(options, Fd(listener_fd), Fd(shared_fd), Fd(other_fd), Fd(store_fd));
}
