#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "beat/command.h"
#include "beat/sockets.h"
#include "beat/thread.h"

namespace holdfast::beat {

/**
 * The main thread's side of the commands: reads frames, opens sockets and the lease map, and
 * publishes whole configurations to the heartbeat thread. What a configuration no longer uses is
 * closed only after the heartbeat thread took the next one over.
 */
class Control {
 public:
  explicit Control(HeartbeatThread& thread) : thread_(thread) {}

  enum class Outcome { more, closed, broken };
  /** Reads from the agent's socket what is there. `broken`: a frame made no sense. */
  Outcome read(int socket);
  /** A new agent speaks from the first byte of a frame. */
  void forget_input() { input_.clear(); }
  /** Tries again what could not be opened; call each second. */
  void retry();
  bool wants_retry() const;
  /** Closes what no thread uses any more. */
  void sweep();
  /** True once after the agent said that it is ready. */
  bool take_ready();

 private:
  struct LanSocket {
    SocketAddress local{};
    Fd fd;
    int error = 0;
    bool used = false;
  };
  struct Retired {
    uint64_t generation;
    Fd fd;
    uint64_t* words;
  };

  bool command(CommandType type, const uint8_t* data, size_t size);
  bool configure(const uint8_t* data, size_t size);
  bool parse_lans(const CommandConfigure& head, const uint8_t* data);
  void open_sockets();
  void open_map();
  void publish();

  HeartbeatThread& thread_;
  std::vector<uint8_t> input_;
  Config wanted_;
  std::string map_path_;
  LeaseMap map_;
  std::vector<LanSocket> sockets_;
  std::vector<Retired> retired_;
  uint64_t generation_ = 0;
  bool ready_ = false;
};

}  // namespace holdfast::beat
