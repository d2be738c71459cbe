// replica_tool check-prefix LOG DIR [--least fsync|all|none] [--base COPY]: decides whether DIR is
// what a prefix of the history left, with everything whose fsync returned, or everything that
// returned, or whatever. COPY: the directory as it was when the history began, if it was not empty.
// Exit code 0: it is; 1: it is not, and why.
//
// Each domain's operations came one after the other, so a model tells what its folder looked like
// after each of them, and the folder must be one of these states (or one in the middle of a write
// of several pages). From the states that fit, one per domain is to be chosen so that no operation
// is there while another that had returned before it began is not. Such demands are of the form "if
// this one is there, so is that one"; of all choices that meet them there is a least one, which is
// found by raising the lowest candidates until nothing is demanded any more.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "log.h"
#include "model.h"
#include "tool.h"

namespace holdfast::replica_tool {
namespace {

/** A state that the folder may be in: these operations whole, and up to `begun` in part. */
struct Candidate {
  size_t whole = 0;
  size_t begun = 0;
};

struct Domain {
  size_t number = 0;
  const std::vector<Step>* steps = nullptr;
  Snapshot replica;
  uint64_t hash = 0;
  size_t appends = 0;  // its records in the common file
  size_t needed = 0;   // the last operation that an fsync covers
  std::vector<Candidate> candidates;
  // By operation, from 0: it returned and left something behind that is to be on the replica.
  std::vector<bool> demands;
};

std::string describe(const Domain& domain, size_t index) {
  return domain_name(domain.number) + " operation " + std::to_string(index) + " (" +
         (index == 0 ? "none" : to_text((*domain.steps)[index - 1].operation)) + ")";
}

/** Differences between a model's state and the replica, by path. */
std::vector<std::string> differences(const Snapshot& model, const Snapshot& replica) {
  std::vector<std::string> found;
  for (const auto& [path, entry] : model) {
    const auto other = replica.find(path);
    if (other == replica.end()) {
      found.push_back(encode(path) + ": is missing");
      continue;
    }
    const std::string text = other->second.difference(entry);
    if (!text.empty()) found.push_back(encode(path) + ": " + text);
  }
  for (const auto& [path, entry] : replica) {
    if (!model.contains(path)) found.push_back(encode(path) + ": should not be there");
  }
  return found;
}

/** What must be there. */
enum class Least { none, fsync, all };

class Replay {
 public:
  Replay(Domain& domain, Least least, Model model)
      : domain_(domain), least_(least), model_(std::move(model)) {}
  void run();
  /** After run: the state that comes closest, in words. */
  std::string closest() const;

 private:
  void look(size_t whole, size_t begun);
  void step(size_t index, const Step& step);

  Domain& domain_;
  Least least_;
  Model model_;
  size_t appended_ = 0;
  size_t best_ = 0;
  std::vector<std::string> best_differences_;
  bool any_ = false;
};

void Replay::look(size_t whole, size_t begun) {
  const Snapshot state = model_.snapshot();
  const bool same = hash_of(state) == domain_.hash && appended_ == domain_.appends;
  // Comparing it name by name is only worth while where it fits, or to say what is wrong.
  if (!same && !domain_.candidates.empty()) return;
  std::vector<std::string> found = differences(state, domain_.replica);
  if (appended_ != domain_.appends) {
    found.push_back(std::to_string(domain_.appends) + " records in " + all_name + ", not " +
                    std::to_string(appended_));
  }
  if (found.empty()) {
    domain_.candidates.push_back({whole, begun});
  } else if (!any_ || found.size() <= best_differences_.size()) {
    any_ = true;
    best_ = begun;
    best_differences_ = std::move(found);
  }
}

void Replay::step(size_t index, const Step& step) {
  Operation operation = step.operation;
  if (step.returned() && step.error == 0 && !changes_something(operation.action)) {
    const NodePtr node = model_.find(operation.a);
    if (least_ == Least::fsync && operation.action != Action::fsync_all && node != nullptr) {
      domain_.needed = std::max<size_t>(domain_.needed, node->changed);
    }
    return;
  }
  if (step.returned() && step.error != 0) return;
  // The kernel answers it alone, even where the server is gone and what came before was lost.
  if (step.returned() && model_.is_idle(step.operation)) return;
  domain_.demands[index - 1] = step.returned();
  // An operation that had not returned may fail, or never have come to anything.
  for (const uint64_t bytes : cuts(operation, model_)) {
    if (operation.action == Action::append) {
      operation.offset = model_.find(operation.a)->bytes.size();
      operation.action = Action::write;
    }
    model_.apply(operation, index, bytes);
    look(index - 1, index);
  }
  const int error = model_.apply(operation, index);
  if (error != 0) {
    if (step.returned()) die("the history does not fit the model: " + describe(domain_, index));
    return;
  }
  if (operation.action == Action::append_all) appended_++;
  const std::vector<std::string> paths = Model::touched(step.operation);
  for (size_t i = 0; i < paths.size() && i < step.mtimes.size(); i++) {
    model_.set_mtime(paths[i], step.mtimes[i]);
  }
  const bool covered = is_durable(operation) ? least_ != Least::none : least_ == Least::all;
  if (step.returned() && covered) domain_.needed = index;
  look(index, index);
}

void Replay::run() {
  domain_.demands.assign(domain_.steps->size(), false);
  look(0, 0);
  for (size_t i = 0; i < domain_.steps->size(); i++) step(i + 1, (*domain_.steps)[i]);
}

std::string Replay::closest() const {
  std::string text = "closest is the state after " + describe(domain_, best_);
  for (size_t i = 0; i < best_differences_.size() && i < 8; i++) {
    text += "\n    " + best_differences_[i];
  }
  return text;
}

class Check {
 public:
  /** `base` below 0: the history began with nothing. */
  Check(const Log& log, int root, Least least, int base);
  /** True when it is a prefix; else what is wrong was printed. */
  bool run();

 private:
  bool read_all_file(int root);
  void need_of_common_syncs();
  size_t demanded(const Domain& of, int64_t before) const;
  Model base_model(const Domain& domain) const;
  bool choose();

  const Log& log_;
  Least least_;
  int base_;
  bool fits_ = true;
  std::vector<Domain> domains_;
};

Check::Check(const Log& log, int root, Least least, int base)
    : log_(log), least_(least), base_(base), domains_(log.domains.size()) {
  for (size_t i = 0; i < domains_.size(); i++) {
    Domain& domain = domains_[i];
    domain.number = i;
    domain.steps = &log.domains[i];
    const Fd folder(openat(root, domain_name(i).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid()) {
      std::printf("check-prefix: %s: %s\n", domain_name(i).c_str(), error_name(errno).c_str());
      fits_ = false;
      continue;
    }
    domain.replica = read_snapshot(folder.get());
    domain.hash = hash_of(domain.replica);
  }
  if (fits_) fits_ = read_all_file(root);
}

/** Whole records, each domain's in its order, none before one that had returned when it began. */
bool Check::read_all_file(int root) {
  std::string text, before;
  if (!read_file(root, all_name, text)) text = "?";
  if (base_ >= 0) require(read_file(base_, all_name, before), all_name);
  if (!text.starts_with(before)) {
    std::printf("check-prefix: %s: not what it was before the history\n", all_name);
    return false;
  }
  std::vector<std::vector<const Step*>> appends(domains_.size());
  for (size_t i = 0; i < domains_.size(); i++) {
    for (const Step& step : log_.domains[i]) {
      if (step.operation.action == Action::append_all) appends[i].push_back(&step);
    }
  }
  int64_t latest_start = 0;
  for (size_t at = before.size(); at < text.size(); at += all_record) {
    bool found = false;
    for (Domain& domain : domains_) {
      const size_t next = domain.appends;
      if (next >= appends[domain.number].size()) continue;
      const Step& step = *appends[domain.number][next];
      if (text.compare(at, all_record, all_text(domain.number, step.operation.number)) != 0) {
        continue;
      }
      if (step.returned() && step.end < latest_start) {
        std::printf("check-prefix: %s: the record at %zu is behind one that began later\n",
                    all_name, at);
        return false;
      }
      latest_start = std::max(latest_start, step.start);
      domain.appends++;
      found = true;
      break;
    }
    if (!found) {
      std::printf("check-prefix: %s: the bytes at %zu are no record that comes next\n", all_name,
                  at);
      return false;
    }
  }
  return true;
}

/** An fsync of the common file covers what any domain had appended when it began. */
void Check::need_of_common_syncs() {
  int64_t latest = 0;
  for (const Domain& domain : domains_) {
    for (const Step& step : *domain.steps) {
      if (step.operation.action != Action::fsync_all || !step.returned() || step.error != 0) {
        continue;
      }
      latest = std::max(latest, step.start);
    }
  }
  for (Domain& domain : domains_) {
    for (size_t i = 0; i < domain.steps->size(); i++) {
      const Step& step = (*domain.steps)[i];
      const bool is_append = step.operation.action == Action::append_all && step.returned();
      if (is_append && step.end < latest) domain.needed = std::max(domain.needed, i + 1);
    }
  }
}

/** The last operation that left something behind and had returned before that moment. */
size_t Check::demanded(const Domain& of, int64_t before) const {
  const auto& steps = *of.steps;
  auto at = std::partition_point(steps.begin(), steps.end(), [before](const Step& step) {
    return step.returned() && step.end < before;
  });
  while (at != steps.begin()) {
    --at;
    const auto index = static_cast<size_t>(at - steps.begin());
    if (of.demands[index]) return index + 1;
  }
  return 0;
}

bool Check::choose() {
  std::vector<size_t> chosen(domains_.size(), 0);
  const auto raise = [&](size_t i, size_t to, const std::string& why) {
    const auto& candidates = domains_[i].candidates;
    while (chosen[i] < candidates.size() && candidates[chosen[i]].whole < to) chosen[i]++;
    if (chosen[i] < candidates.size()) return true;
    std::printf("check-prefix: %s is missing, %s; the replica is at %s\n",
                describe(domains_[i], to).c_str(), why.c_str(),
                describe(domains_[i], candidates.back().whole).c_str());
    return false;
  };
  for (size_t i = 0; i < domains_.size(); i++) {
    if (!raise(i, domains_[i].needed,
               least_ == Least::all ? "and it had returned"
                                    : "and an fsync that covers it has returned"))
      return false;
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < domains_.size(); i++) {
      const size_t begun = domains_[i].candidates[chosen[i]].begun;
      if (begun == 0) continue;
      const int64_t start = (*domains_[i].steps)[begun - 1].start;
      for (size_t j = 0; j < domains_.size(); j++) {
        if (j == i) continue;
        const size_t before = chosen[j];
        const size_t demand = demanded(domains_[j], start);
        const std::string why =
            "which had returned when " + describe(domains_[i], begun) + " began, and that is there";
        if (!raise(j, demand, why)) return false;
        changed = changed || chosen[j] != before;
      }
    }
  }
  std::printf("check-prefix: a prefix:");
  for (size_t i = 0; i < domains_.size(); i++) {
    std::printf(" %zu/%zu", domains_[i].candidates[chosen[i]].whole, domains_[i].steps->size());
  }
  std::printf("\n");
  return true;
}

Model Check::base_model(const Domain& domain) const {
  if (base_ < 0) return Model(0755);
  const std::string name = domain_name(domain.number);
  const Fd folder(openat(base_, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(folder.valid(), name);
  return Model::of(folder.get());
}

bool Check::run() {
  if (!fits_) return false;
  for (Domain& domain : domains_) {
    Replay replay(domain, least_, base_model(domain));
    replay.run();
    if (!domain.candidates.empty()) continue;
    std::printf("check-prefix: %s is in no state that it had; %s\n",
                domain_name(domain.number).c_str(), replay.closest().c_str());
    fits_ = false;
  }
  if (least_ == Least::fsync) need_of_common_syncs();
  return fits_ && choose();
}

}  // namespace

int run_check_prefix(const Args& args) {
  const Options options = parse_options(args, {{"least", "fsync"}, {"base", ""}}, 2);
  const std::string& word = options.text("least");
  if (word != "none" && word != "fsync" && word != "all") die("--least none, fsync or all");
  const Least least = word == "none" ? Least::none : word == "all" ? Least::all : Least::fsync;
  const Log log = read_log(options.words[0]);
  const Fd root(open(options.words[1].c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(root.valid(), options.words[1]);
  Fd base;
  if (const std::string& copy = options.text("base"); !copy.empty()) {
    base.reset(open(copy.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    require(base.valid(), copy);
  }
  return Check(log, root.get(), least, base.valid() ? base.get() : -1).run() ? 0 : 1;
}

}  // namespace holdfast::replica_tool
