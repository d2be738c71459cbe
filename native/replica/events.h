#pragma once
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <type_traits>

/**
 * What the engine's parts have to say to the agent: `event NAME key=value …` on every control
 * connection that watches. Any thread, any time: the call copies into a bounded queue and returns;
 * it never waits. What finds the queue full is counted (`events_lost` in `status`), not kept.
 */
namespace holdfast::replica {

/** A key and its value, a text or a number. Both are copied by the call that takes them. */
struct Field {
  std::string_view key;
  std::string_view text;
  int64_t number = 0;
  bool is_number = false;

  Field(std::string_view k, std::string_view value) : key(k), text(value) {}
  Field(std::string_view k, const char* value) : key(k), text(value) {}
  template <typename Integer,
            typename = std::enable_if_t<std::is_integral_v<Integer> || std::is_enum_v<Integer>>>
  Field(std::string_view k, Integer value)
      : key(k), number(static_cast<int64_t>(value)), is_number(true) {}
};

class Events {
 public:
  virtual ~Events() = default;
  virtual void event(std::string_view name, std::span<const Field> fields) = 0;

  /** events.event("peer", {{"state", "lost"}, {"port", 7000}}) */
  void event(std::string_view name, std::initializer_list<Field> fields) {
    event(name, std::span<const Field>(fields.begin(), fields.size()));
  }
  /** An event `warning` with a text for the log; `error` is an errno, 0 for none. */
  void warning(std::string_view text, int error = 0) {
    event("warning", {{"text", text}, {"errno", error}});
  }
};

/** Says nothing to anybody: for tests and tools. */
class NoEvents final : public Events {
 public:
  using Events::event;
  void event(std::string_view, std::span<const Field>) override {}
};

}  // namespace holdfast::replica
