#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "common/fd.h"
#include "common/result.h"
#include "witness/connection.h"

namespace holdfast::witness {

/** All connections; 64 nodes of 8 clusters, say. */
inline constexpr size_t connections_max = 512;
/** Of those that have not shown a certificate yet, and for how long. All servers of many clusters
 * come at once when the witness was away. */
inline constexpr size_t strangers_max = 256;
inline constexpr int64_t handshake_ms = 5000;

struct ServerOptions {
  std::string state;   // folder
  std::string listen;  // "ADDR:PORT" or "[ADDR6]:PORT"; "[::]:PORT" takes IPv4 too
};

/** The witness: one thread, one epoll. Questions are answered one after another, so that each swap
 * is durable before the next is looked at. */
class Server {
 public:
  /** The errno and the call that failed; EBUSY: another witness has the state folder. */
  Result<bool> open(const ServerOptions& options);
  /** Serves until SIGTERM or SIGINT (0), or until the disk fails (1). */
  int run();
  /** Where it listens, for port 0. */
  uint16_t port() const;

 private:
  static const TlsIdentity* choose(void* self, const char* name);

  void accept_all();
  void admit(Fd socket);
  void serve(int fd);
  void drop(int fd, const char* why);
  void drop_oldest_stranger();
  void drop_late();
  int wait_ms() const;

  Clusters clusters_;
  TlsIdentity chooser_;
  Fd listener_;
  Fd signals_;
  Fd epoll_;
  std::map<int, std::unique_ptr<Connection>> connections_;
  size_t strangers_ = 0;
  uint64_t refused_ = 0;
  int64_t said_ns_ = 0;
};

}  // namespace holdfast::witness
