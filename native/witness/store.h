#pragma once
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/fd.h"
#include "common/result.h"
#include "witness/protocol.h"

/**
 * The records of one cluster: a folder with one small file for each mirror, replaced by rename.
 * What is answered is on disk; what is in memory is what was read from there or made durable there.
 *
 * A file knows its own inode and time of birth. One that a backup brought back has others: it is
 * set aside (`.restored-MODULE`) and the register of that mirror is empty, so that no server takes
 * an old record for the newest (docs/internals/arbiter.md).
 */
namespace holdfast::witness {

/** Mirrors of one cluster. */
inline constexpr size_t modules_max = 256;

/** One answer of a store, as it goes out. */
struct Reply {
  Outcome outcome = Outcome::unreachable;
  std::optional<Record> record;
  std::string text;
};

/** System calls of a swap, for tests that make one fail; the kernel's own where not replaced. */
struct StoreCalls {
  int (*fsync)(int fd) = nullptr;
  int (*rename)(int folder, const char* from, const char* to) = nullptr;
};

class Store {
 public:
  /**
   * Opens (or makes) the folder and makes durable what is in it before it is believed. Files that
   * cannot be believed are noted; see `damaged`, `restored`. errno of the call that failed.
   */
  Result<bool> open(const std::string& folder, const StoreCalls& calls = {});

  Reply read(std::string_view module) const;

  /** Durable before it returns `won`. After `unknown` the store answers nothing more (`is_broken`):
   * only what the disk holds can say what is. */
  Reply swap(std::string_view module, const std::optional<Record>& from, const Record& to);

  bool is_broken() const { return is_broken_; }
  size_t size() const { return records_.size(); }
  size_t damaged() const { return damaged_; }
  size_t restored() const { return restored_; }

 private:
  struct Held {
    std::optional<Record> record;  // none: damaged
  };

  Result<bool> load(const std::string& name);
  Result<bool> set_aside(const std::string& name);
  Reply broken(const char* call);
  Reply put(const std::string& module, const Record& to);

  Fd folder_;
  StoreCalls calls_;
  std::map<std::string, Held, std::less<>> records_;
  bool is_broken_ = false;
  size_t damaged_ = 0;
  size_t restored_ = 0;
};

/** 1 to 32 of letters, digits, `_`, `-`, `.`, beginning with a letter or a digit. */
bool is_module(std::string_view name);

}  // namespace holdfast::witness
