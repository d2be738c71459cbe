#pragma once
#include <cstdint>
#include <ctime>

namespace holdfast {

inline constexpr int64_t ns_per_us = 1000;
inline constexpr int64_t ns_per_ms = 1000 * ns_per_us;
inline constexpr int64_t ns_per_s = 1000 * ns_per_ms;

inline int64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * ns_per_s + now.tv_nsec;
}

/** CLOCK_BOOTTIME in ns: the only clock that decides anything (it runs on through a suspend). */
inline int64_t boot_ns() {
  return clock_ns(CLOCK_BOOTTIME);
}

/** Wall time in ns: for display and for the age of a kernel timestamp only. */
inline int64_t wall_ns() {
  return clock_ns(CLOCK_REALTIME);
}

inline timespec to_timespec(int64_t ns) {
  return {ns / ns_per_s, ns % ns_per_s};
}

}  // namespace holdfast
