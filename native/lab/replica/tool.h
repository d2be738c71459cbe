// What the commands of replica_tool share.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/fd.h"

namespace holdfast::replica_tool {

using Args = std::vector<std::string>;

int run_posix(const Args& args);
int run_fsx(const Args& args);
int run_history(const Args& args);
int run_check_prefix(const Args& args);
int run_compare(const Args& args);
int run_tree(const Args& args);
int run_pull(const Args& args);

/** Prints "replica_tool: what: strerror" and ends the process with code 2. */
[[noreturn]] void die(const std::string& what, int error = 0);

/** Ends the process with the text of errno when ok is false. */
void require(bool ok, const std::string& what);

/** Words, and `--key value` pairs; a key that is not in the defaults is an error. */
struct Options {
  std::vector<std::string> words;
  std::map<std::string, std::string> named;

  const std::string& text(const std::string& key) const;
  uint64_t number(const std::string& key) const;
};
Options parse_options(const Args& args, std::map<std::string, std::string> defaults, size_t words);

/** Name of an errno: "ENOENT"; "ok" for 0. */
std::string error_name(int error);

/** Percent-encoding of everything but letters, digits and "._-/"; never empty ("%" alone is ""). */
std::string encode(const std::string& bytes);
std::string decode(const std::string& text);

/** splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). */
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /** 0 … limit - 1; 0 for limit 0. */
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : next() % limit; }
  /** True `percent` times out of a hundred. */
  bool chance(uint64_t percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

/** Fills `size` bytes with what belongs to `seed`; no two seeds agree in long stretches. */
void fill(void* to, size_t size, uint64_t seed);

/** Reads a whole file; false with errno set. */
bool read_file(int directory, const char* name, std::string& out);

/** Writes everything to the descriptor; ends the process when that fails. */
void write_all(int fd, const std::string& bytes);

}  // namespace holdfast::replica_tool
