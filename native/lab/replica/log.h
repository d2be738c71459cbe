// A history as its log tells it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "operation.h"

namespace holdfast::replica_tool {

struct Step {
  Operation operation;
  int64_t start = 0;
  int64_t end = 0;  // 0: it had not returned when the log ended
  int error = 0;    // when it has returned
  std::vector<timespec> mtimes;

  bool returned() const { return end != 0; }
};

/** Steps of each domain in their order; step i of the list is operation i + 1. */
struct Log {
  std::vector<std::vector<Step>> domains;
};

/** Reads it; ends the process when it is none. A last line that was cut is left out. */
Log read_log(const std::string& path);

}  // namespace holdfast::replica_tool
