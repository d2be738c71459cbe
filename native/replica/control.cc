#include "replica/control.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/clock.h"

namespace holdfast::replica {

namespace {

constexpr uint64_t listener_id = 0;
constexpr uint64_t wake_id = UINT64_MAX;

bool plain(unsigned char c) {
  return c > 0x20 && c != '%' && c != '=' && c != 0x7f;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/** Verbs and keys: small letters, digits, underscores, and at least one of them. */
bool is_word(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

}  // namespace

void percent_encode(std::string_view value, std::string& out) {
  constexpr char digits[] = "0123456789ABCDEF";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (plain(byte)) {
      out += c;
      continue;
    }
    out += '%';
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
}

bool percent_decode(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); i++) {
    if (plain(static_cast<unsigned char>(text[i]))) {
      out += text[i];
      continue;
    }
    if (text[i] != '%' || i + 2 >= text.size()) return false;
    const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0 || high + low == 0) return false;
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return true;
}

std::string_view Request::get(std::string_view key, std::string_view otherwise) const {
  for (const auto& [name, value] : values)
    if (name == key) return value;
  return otherwise;
}

bool Request::has(std::string_view key) const {
  return std::ranges::any_of(values, [&](const auto& pair) { return pair.first == key; });
}

std::vector<std::string> Request::all(std::string_view key) const {
  std::vector<std::string> found;
  for (const auto& [name, value] : values)
    if (name == key) found.push_back(value);
  return found;
}

std::string parse_request(std::string_view line, Request& out) {
  out = {};
  out.line = line;
  size_t at = line.find(' ');
  out.verb = line.substr(0, at);
  if (!is_word(out.verb)) return "a line begins with a verb";
  while (at != std::string_view::npos) {
    const size_t from = at + 1;
    at = line.find(' ', from);
    const std::string_view word = line.substr(from, at == line.npos ? line.npos : at - from);
    const size_t sign = word.find('=');
    if (sign == word.npos || !is_word(word.substr(0, sign)))
      return "after the verb come key=value, with one space between";
    std::string value;
    if (!percent_decode(word.substr(sign + 1), value))
      return "a value is not percent-encoded as it should be";
    out.values.emplace_back(word.substr(0, sign), std::move(value));
  }
  return "";
}

Line& Line::add(std::string_view key, std::string_view value) {
  text_ += ' ';
  text_ += key;
  text_ += '=';
  percent_encode(value, text_);
  return *this;
}

std::string Line::error(std::string_view code, std::string_view text) {
  return Line("error " + std::string(code)).add("text", text).text();
}

std::string Line::error(int error, std::string_view text) {
  const char* name = strerrorname_np(error);
  std::string sentence(text);
  if (error != 0) sentence += std::string(": ") + strerror(error);
  return Line::error(name == nullptr ? "EIO" : name, sentence);
}

Result<bool> Control::start(Fd listener, ControlHandler& handler) {
  handler_ = &handler;
  listener_ = std::move(listener);
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return Result<bool>::failure(errno, "epoll_create1");
  wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return Result<bool>::failure(errno, "eventfd");
  epoll_event event{EPOLLIN, {.u64 = listener_id}};
  epoll_event wakes{EPOLLIN, {.u64 = wake_id}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listener_.get(), &event) != 0 ||
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &wakes) != 0)
    return Result<bool>::failure(errno, "epoll_ctl");
  thread_ = std::thread([this] { run(); });
  return Result<bool>::success(true);
}

void Control::stop(int flush_ms) {
  if (!thread_.joinable()) return;
  flush_ms_ = flush_ms;
  stopping_ = true;
  wake();
  thread_.join();
  clients_.clear();
}

void Control::wake() {
  const uint64_t one = 1;
  // Full means that it will wake anyway.
  if (write(wake_.get(), &one, sizeof one) < 0) return;
}

void Control::answer(uint64_t client, std::string line) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back({client, std::move(line)});
  }
  wake();
}

void Control::event(std::string_view name, std::span<const Field> fields) {
  Line line("event " + std::string(name));
  for (const Field& field : fields) {
    if (field.is_number)
      line.add(field.key, std::to_string(field.number));
    else
      line.add(field.key, field.text.substr(0, 4096));
  }
  {
    std::lock_guard lock(mutex_);
    if (queue_.size() >= max_events) {
      events_lost_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    queue_.push_back({0, line.text()});
  }
  if (wake_.valid()) wake();
}

void Control::run() {
  int64_t end_ns = 0;
  for (;;) {
    const bool stopping = stopping_;
    if (stopping && end_ns == 0) end_ns = boot_ns() + flush_ms_ * ns_per_ms;
    const bool unread =
        std::ranges::any_of(clients_, [](const auto& pair) { return !pair.second.output.empty(); });
    if (stopping && (!unread || boot_ns() >= end_ns)) return;
    epoll_event events[32];
    const int count = epoll_wait(epoll_.get(), events, 32, stopping ? 10 : -1);
    for (int i = 0; i < count; i++) {
      const uint64_t id = events[i].data.u64;
      if (id == listener_id) {
        accept_all();
      } else if (id == wake_id) {
        uint64_t value;
        if (read(wake_.get(), &value, sizeof value) < 0) continue;
      } else if (const auto at = clients_.find(id); at != clients_.end()) {
        if ((events[i].events & (EPOLLIN | EPOLLHUP)) != 0) readable(id, at->second);
        // Nobody is left to read an answer; epoll would go on saying so.
        if ((events[i].events & (EPOLLHUP | EPOLLERR)) != 0) clients_.erase(id);
      }
    }
    take_queue();
    settle();
  }
}

void Control::accept_all() {
  for (;;) {
    Fd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) return;
    if (clients_.size() >= max_clients) {
      clients_dropped_.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    const uint64_t id = next_id_++;
    epoll_event event{EPOLLIN, {.u64 = id}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) continue;
    Client& client = clients_[id];
    client.fd = std::move(fd);
    client.events = EPOLLIN;
  }
}

void Control::readable(uint64_t id, Client& client) {
  char buffer[16384];
  while (!client.ended && client.input.size() <= max_line) {
    const ssize_t size = recv(client.fd.get(), buffer, sizeof buffer, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (size <= 0)
      client.ended = true;
    else
      client.input.append(buffer, size_t(size));
  }
  parse_input(id, client);
}

void Control::parse_input(uint64_t id, Client& client) {
  while (!client.busy) {
    const size_t end = client.input.find('\n');
    if (end == std::string::npos || end > max_line) {
      if (client.input.size() <= max_line) return;
      put(client, Line::error("E2BIG", "the line is too long"));
      client.input.clear();
      client.ended = true;
      return;
    }
    Request request;
    const std::string wrong = parse_request(std::string_view(client.input).substr(0, end), request);
    client.input.erase(0, end + 1);
    if (!wrong.empty()) {
      put(client, Line::error("EINVAL", wrong));
    } else if (request.verb == "watch") {
      client.watches = true;
      put(client, "ok");
      for (const std::string& line : unheard_) put(client, line);
      unheard_.clear();
    } else {
      client.busy = true;
      handler_->request(id, std::move(request));
    }
  }
}

void Control::take_queue() {
  std::deque<Outgoing> queue;
  {
    std::lock_guard lock(mutex_);
    queue.swap(queue_);
  }
  for (const Outgoing& out : queue) {
    if (out.client == 0) {
      tell(out.line);
    } else if (const auto at = clients_.find(out.client); at != clients_.end()) {
      put(at->second, out.line);
      at->second.busy = false;
      parse_input(out.client, at->second);
    }
  }
}

/** An event to all that watch. What nobody hears waits for the first who does: the agent connects
 * some time after a new worker has said what it found. */
void Control::tell(const std::string& line) {
  bool heard = false;
  for (auto& [id, client] : clients_) {
    if (!client.watches) continue;
    put(client, line);
    heard = true;
  }
  if (heard) return;
  unheard_.push_back(line);
  if (unheard_.size() <= max_unheard) return;
  unheard_.pop_front();
  events_lost_.fetch_add(1, std::memory_order_relaxed);
}

void Control::put(Client& client, std::string_view line) {
  client.output += line;
  client.output += '\n';
}

bool Control::flush(uint64_t id, Client& client) {
  while (!client.output.empty()) {
    const ssize_t size =
        send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) break;
    if (size < 0) return false;
    client.output.erase(0, size_t(size));
  }
  if (client.output.size() > max_unread) {
    clients_dropped_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  if (client.ended && !client.busy && client.output.empty()) return false;
  uint32_t wanted = 0;
  if (!client.output.empty()) wanted |= EPOLLOUT;
  if (!client.ended && client.input.size() <= max_line) wanted |= EPOLLIN;
  if (wanted == client.events) return true;
  epoll_event event{wanted, {.u64 = id}};
  client.events = wanted;
  return epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, client.fd.get(), &event) == 0;
}

void Control::settle() {
  for (auto at = clients_.begin(); at != clients_.end();) {
    if (flush(at->first, at->second))
      ++at;
    else
      at = clients_.erase(at);
  }
}

}  // namespace holdfast::replica
