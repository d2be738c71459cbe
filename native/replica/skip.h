#pragma once
#include <regex.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace holdfast::replica {

/**
 * Which paths below a replicated directory are not replicated: POSIX extended regular expressions,
 * each matched against the whole path relative to the directory ("tmp/a.log"), or fixed paths
 * (what lies below one is not replicated either). A rule that begins with '!' turns it round: when
 * there is such a rule, only what one of them matches is replicated, and the directories above it.
 */
class Skip {
 public:
  /** A rule: "=path" is a fixed path, anything else an expression. EINVAL: not an expression. */
  int add(std::string_view rule);
  bool empty() const { return rules_.empty(); }
  bool matches(const std::string& path, bool is_directory) const;

 private:
  struct Free {
    void operator()(regex_t* expression) const {
      regfree(expression);
      delete expression;
    }
  };
  struct Rule {
    bool only = false;
    std::string path;
    std::unique_ptr<regex_t, Free> expression;
    bool hit(const std::string& path) const;
  };
  std::vector<Rule> rules_;
  bool any_only_ = false;
};

}  // namespace holdfast::replica
