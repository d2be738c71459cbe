#include "replica/skip.h"

#include <cerrno>

namespace holdfast::replica {

int Skip::add(std::string_view text) {
  Rule rule;
  if (text.starts_with('!')) {
    rule.only = true;
    text.remove_prefix(1);
  }
  if (text.empty()) return EINVAL;
  if (text.front() == '=') {
    text.remove_prefix(1);
    while (text.starts_with('/')) text.remove_prefix(1);
    while (text.ends_with('/')) text.remove_suffix(1);
    if (text.empty()) return EINVAL;
    rule.path = text;
  } else {
    auto* expression = new regex_t;
    const std::string whole = "^(" + std::string(text) + ")$";
    if (regcomp(expression, whole.c_str(), REG_EXTENDED | REG_NOSUB) != 0) {
      delete expression;
      return EINVAL;
    }
    rule.expression.reset(expression);
  }
  any_only_ = any_only_ || rule.only;
  rules_.push_back(std::move(rule));
  return 0;
}

bool Skip::Rule::hit(const std::string& name) const {
  if (expression) return regexec(expression.get(), name.c_str(), 0, nullptr, 0) == 0;
  return name.starts_with(path) && (name.size() == path.size() || name[path.size()] == '/');
}

bool Skip::matches(const std::string& path, bool is_directory) const {
  bool only = false;
  for (const Rule& rule : rules_) {
    const bool hit = rule.hit(path);
    if (hit && !rule.only) return true;
    only = only || (hit && rule.only);
  }
  // A directory may hold something that is to be replicated, so it is.
  return any_only_ && !only && !is_directory;
}

}  // namespace holdfast::replica
