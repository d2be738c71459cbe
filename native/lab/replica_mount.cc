// `replica_mount DIR [--threads N] [--ids FILE] [--skip RULE]…`: mounts a directory over itself
// with the file system server, without replicating it, until SIGTERM or SIGINT. For trying and
// measuring. Says `mounted` on standard output when it is, and the counters at the end.

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "replica/null_log.h"
#include "replica/server.h"

using namespace holdfast;
using namespace holdfast::replica;

namespace {

/** Warnings to standard error. */
class PrintedEvents final : public Events {
 public:
  using Events::event;
  void event(std::string_view name, std::span<const Field> fields) override {
    std::string line(name);
    for (const Field& field : fields) {
      line += ' ';
      line += field.key;
      line += '=';
      line += field.is_number ? std::to_string(field.number) : std::string(field.text);
    }
    std::fprintf(stderr, "%s\n", line.c_str());
  }
};

int failed(const char* call, int error) {
  std::fprintf(stderr, "replica_mount: %s: %s\n", call, std::strerror(error));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  ServerOptions options;
  std::string directory;
  std::string table;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    const bool more = i + 1 < argc;
    if (argument == "--threads" && more) {
      options.threads = static_cast<unsigned>(std::atoi(argv[++i]));
    } else if (argument == "--ids" && more) {
      table = argv[++i];
    } else if (argument == "--skip" && more) {
      options.skip.emplace_back(argv[++i]);
    } else {
      directory = argument;
    }
  }
  if (directory.empty())
    return failed("usage: replica_mount DIR [--threads N] [--ids FILE]", EINVAL);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  umask(0);
  // Threads inherit it: the signals come to sigwait alone.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const bool own_table = table.empty();
  if (own_table) table = "/tmp/replica_mount." + std::to_string(getpid()) + ".ids";
  Ids ids;
  if (const Result<bool> opened = ids.open(table); !opened.ok()) {
    return failed(opened.call, opened.error);
  }
  if (own_table) unlink(table.c_str());
  Tree tree(ids, std::min<size_t>(16384, files.rlim_cur / 2));
  Fd root(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return failed("open", errno);
  if (const auto added = tree.add_volume(std::move(root)); !added.ok()) {
    return failed(added.call, added.error);
  }
  NullLog log;
  PrintedEvents events;
  Server server(tree, ids, log, nullptr, options, events);
  Fd kept;
  if (const int error = server.mount(0, directory.c_str(), kept); error != 0) {
    return failed("mount", error);
  }
  // Nobody is to go on with it after this process.
  kept.reset();
  if (const int error = server.start(); error != 0) return failed("start", error);
  const ServerStatus begun = server.status();
  std::printf("mounted 7.%u flags=%#llx\n", begun.minor,
              static_cast<unsigned long long>(begun.flags));
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  server.stop(true);
  const ServerStatus ended = server.status();
  std::printf("requests=%llu changes=%llu parked=%llu failures=%llu files=%llu\n",
              static_cast<unsigned long long>(ended.requests),
              static_cast<unsigned long long>(ended.changes),
              static_cast<unsigned long long>(ended.parked),
              static_cast<unsigned long long>(log.failures()),
              static_cast<unsigned long long>(ids.count()));
  return 0;
}
