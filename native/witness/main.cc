#include <cstdio>
#include <cstring>
#include <string_view>

#include "witness/server.h"

/**
 * holdfast-witness --state FOLDER [--listen ADDR:PORT]
 *
 * Serves until SIGTERM. Says on stdout where it listens, once it does. Exit codes: 0 it was told to
 * end; 1 it cannot serve, or its disk failed; 2 wrong arguments.
 */
int main(int count, char** arguments) {
  using holdfast::witness::Server;
  holdfast::witness::ServerOptions options{"", "[::]:9530"};
  for (int at = 1; at < count; at += 2) {
    const std::string_view name = arguments[at];
    if (at + 1 < count && name == "--state") {
      options.state = arguments[at + 1];
    } else if (at + 1 < count && name == "--listen") {
      options.listen = arguments[at + 1];
    } else {
      options.state.clear();
      break;
    }
  }
  if (options.state.empty()) {
    fprintf(stderr, "usage: holdfast-witness --state FOLDER [--listen ADDR:PORT]\n");
    return 2;
  }
  Server server;
  const auto opened = server.open(options);
  if (!opened.ok()) {
    fprintf(stderr, "holdfast-witness: %s: %s\n", opened.call, strerror(opened.error));
    return 1;
  }
  printf("listening on port %u\n", server.port());
  fflush(stdout);
  return server.run();
}
