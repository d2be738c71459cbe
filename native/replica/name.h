#pragma once
#include <limits.h>

#include <cstring>
#include <string_view>

#include "replica/changes.h"

namespace holdfast::replica {

/** A name in an open folder; no folder: it is not there, and that is forgiven. */
struct Changes::Name {
  FileId parent = 0;
  FileRef folder;
  uint8_t volume = 0;
  int fd = -1;
  char text[NAME_MAX + 1] = "";

  bool there() const { return fd >= 0; }
  void set(std::string_view name) {
    if (!name.empty()) std::memcpy(text, name.data(), name.size());
    text[name.size()] = '\0';
  }
};

}  // namespace holdfast::replica
