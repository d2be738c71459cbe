#pragma once
#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "replica/events.h"

/**
 * The control socket: text lines, `verb key=value …\n`, answered by `ok key=value …` or
 * `error CODE text=…`; after `watch` also `event NAME key=value …`. Values are percent-encoded.
 */
namespace holdfast::replica {

inline constexpr size_t max_line = 60 * 1024;  // fits Shared::resume
inline constexpr size_t max_clients = 32;
inline constexpr size_t max_unread = 1u << 20;  // bytes: a client that reads less is dropped
inline constexpr size_t max_events = 4096;      // waiting for the control thread
inline constexpr size_t max_unheard = 256;      // kept while nobody watches

/** Appends the value with space, %, newline, = and bytes below 0x21 as %XX. */
void percent_encode(std::string_view value, std::string& out);

/** False: a byte that must be encoded and is not, a % without two hexadecimal digits, or %00 (no
 * value has one: paths and names end at it). */
bool percent_decode(std::string_view text, std::string& out);

struct Request {
  std::string verb;
  std::vector<std::pair<std::string, std::string>> values;
  std::string line;  // as it came, without the newline

  /** The first value of that key, or `otherwise`. */
  std::string_view get(std::string_view key, std::string_view otherwise = {}) const;
  bool has(std::string_view key) const;
  std::vector<std::string> all(std::string_view key) const;
};

/** Reads a line; empty text, or what is wrong with it. */
std::string parse_request(std::string_view line, Request& out);

/** `ok`, `error CODE` or `event NAME`, then fields. */
class Line {
 public:
  explicit Line(std::string_view start) : text_(start) {}
  Line& add(std::string_view key, std::string_view value);
  Line& add(std::string_view key, uint64_t value) { return add(key, std::to_string(value)); }
  /** An error's line. `code`: "EINVAL", or a short name of the registry. */
  static std::string error(std::string_view code, std::string_view text);
  /** With the errno's name as the code. */
  static std::string error(int error, std::string_view text);
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

class ControlHandler {
 public:
  virtual ~ControlHandler() = default;
  /** On the control thread: must not wait. Control::answer is called once for each request, from
   * here or later from any thread; until then the client's next one waits. */
  virtual void request(uint64_t client, Request request) = 0;
};

class Control final : public Events {
 public:
  Control() = default;
  ~Control() override { stop(0); }
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  /** Takes over the listening socket (non-blocking) and serves it on a thread of its own. */
  Result<bool> start(Fd listener, ControlHandler& handler);
  /** Ends the thread; before that, up to `flush_ms` for the clients to read what is there. */
  void stop(int flush_ms);

  /** The answer to that client's request, without the newline; a client that is gone is no error.
   */
  void answer(uint64_t client, std::string line);

  using Events::event;
  void event(std::string_view name, std::span<const Field> fields) override;
  uint64_t events_lost() const { return events_lost_.load(std::memory_order_relaxed); }
  uint64_t clients_dropped() const { return clients_dropped_.load(std::memory_order_relaxed); }

 private:
  struct Client {
    Fd fd;
    std::string input;
    std::string output;
    bool watches = false;
    bool busy = false;    // its request is not answered yet
    bool ended = false;   // it sends no more
    uint32_t events = 0;  // of epoll, as last set
  };
  struct Outgoing {
    uint64_t client;  // 0: an event, for all that watch
    std::string line;
  };

  void run();
  void accept_all();
  void readable(uint64_t id, Client& client);
  void parse_input(uint64_t id, Client& client);
  void take_queue();
  void tell(const std::string& line);
  void put(Client& client, std::string_view line);
  /** Writes what it can; sets what epoll is to say next. False: the client is to be dropped. */
  bool flush(uint64_t id, Client& client);
  void settle();
  void wake();

  ControlHandler* handler_ = nullptr;
  Fd listener_, epoll_, wake_;
  std::thread thread_;
  std::mutex mutex_;  // queue_
  std::deque<Outgoing> queue_;
  std::map<uint64_t, Client> clients_;  // the control thread's own
  std::deque<std::string> unheard_;     // events for the first that watches
  uint64_t next_id_ = 1;
  std::atomic<bool> stopping_{false};
  std::atomic<int> flush_ms_{0};
  std::atomic<uint64_t> events_lost_{0};
  std::atomic<uint64_t> clients_dropped_{0};
};

}  // namespace holdfast::replica
