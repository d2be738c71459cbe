// Which operation comes next in a history.
#pragma once

#include "model.h"
#include "operation.h"
#include "tool.h"

namespace holdfast::replica_tool {

class Chooser {
 public:
  /** `replaces`: names that end in new_suffix are not replicated. Where they are, `replace` is more
   * than one change, and a copy may end in the middle of it. */
  Chooser(uint64_t seed, bool replaces) : random_(seed), replaces_(replaces) {}
  /** `all`: whether the operation may concern the file that all append to. */
  Operation next(const Model& model, bool all);

 private:
  struct Files {
    std::vector<std::string> any, regular, folders, others;  // others: neither folder nor regular
    std::vector<std::string> inheriting;                     // folders with a default ACL
  };

  static Files look(const Model& model);
  std::string pick(const std::vector<std::string>& from);
  std::string new_name(const Files& files);
  Operation make(const Model& model, const Files& files);
  Operation data(const Model& model, const Files& files);
  Operation copy(const Model& model, const Files& files);
  Operation names(const Model& model, const Files& files);
  Operation attributes(const Model& model, const Files& files);
  Operation sync(const Files& files, bool all);

  Random random_;
  const bool replaces_;
  uint32_t appended_ = 0;
};

}  // namespace holdfast::replica_tool
