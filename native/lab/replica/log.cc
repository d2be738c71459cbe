#include "log.h"

#include <fcntl.h>

#include <sstream>

#include "tool.h"

namespace holdfast::replica_tool {
namespace {

void begin(Log& log, std::istringstream& in, const std::string& line) {
  size_t domain = 0, index = 0;
  Step step;
  std::string text;
  in >> domain >> index >> step.start;
  std::getline(in, text);
  const auto operation = parse_operation(text);
  if (!operation || domain >= log.domains.size()) die("no line of a history: " + line);
  if (log.domains[domain].size() + 1 != index) die("an operation is missing before: " + line);
  step.operation = *operation;
  log.domains[domain].push_back(std::move(step));
}

void end(Log& log, std::istringstream& in, const std::string& line) {
  size_t domain = 0, index = 0;
  int64_t when = 0;
  int error = 0;
  in >> domain >> index >> when >> error;
  if (!in || domain >= log.domains.size() || log.domains[domain].size() != index) {
    die("no line of a history: " + line);
  }
  Step& step = log.domains[domain].back();
  step.end = when;
  step.error = error;
  timespec mtime{};
  char dot = 0;
  while (in >> mtime.tv_sec >> dot >> mtime.tv_nsec) step.mtimes.push_back(mtime);
}

}  // namespace

Log read_log(const std::string& path) {
  std::string text;
  require(read_file(AT_FDCWD, path.c_str(), text), path);
  text.resize(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
  std::istringstream lines(text);
  std::string line, word;
  size_t domains = 0;
  lines >> word >> domains;
  if (word != "history" || domains == 0 || domains > 1000) die(path + " is no log of a history");
  Log log;
  log.domains.resize(domains);
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    std::istringstream in(line);
    in >> word;
    if (word == "b") {
      begin(log, in, line);
    } else if (word == "e") {
      end(log, in, line);
    } else {
      die("no line of a history: " + line);
    }
  }
  return log;
}

}  // namespace holdfast::replica_tool
