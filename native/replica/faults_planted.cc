#include <cstdlib>
#include <string_view>

#include "replica/faults.h"

/** For holdfast-replica-faulty alone: HOLDFAST_FAULTS holds names of Faults, with commas. */
namespace holdfast::replica {

namespace {

Faults read_environment() {
  const struct {
    std::string_view name;
    bool Faults::*fault;
  } known[] = {{"ack_without_peer", &Faults::ack_without_peer},
               {"ack_before_durable", &Faults::ack_before_durable},
               {"skip_journal_check", &Faults::skip_journal_check},
               {"reorder_apply", &Faults::reorder_apply},
               {"skip_displacement", &Faults::skip_displacement},
               {"source_by_mtime", &Faults::source_by_mtime},
               {"bitmap_cleared_early", &Faults::bitmap_cleared_early},
               {"folder_stays", &Faults::folder_stays},
               {"lose_mtime", &Faults::lose_mtime},
               {"lose_append_offset", &Faults::lose_append_offset},
               {"old_over_new", &Faults::old_over_new},
               {"mark_after_write", &Faults::mark_after_write},
               {"divert_forgets", &Faults::divert_forgets},
               {"marks_forget_distant", &Faults::marks_forget_distant},
               {"distant_ends_early", &Faults::distant_ends_early},
               {"undo_skipped", &Faults::undo_skipped}};
  Faults faults;
  const char* text = getenv("HOLDFAST_FAULTS");
  std::string_view left = text == nullptr ? "" : text;
  while (!left.empty()) {
    const size_t comma = left.find(',');
    const std::string_view name = left.substr(0, comma);
    left.remove_prefix(comma == std::string_view::npos ? left.size() : comma + 1);
    bool found = false;
    for (const auto& one : known) {
      if (one.name != name) continue;
      faults.*one.fault = true;
      found = true;
    }
    // A test with a name that is none would pass for the wrong reason.
    if (!found) abort();
  }
  return faults;
}

}  // namespace

const Faults* faults_of_environment() {
  static const Faults faults = read_environment();
  return &faults;
}

}  // namespace holdfast::replica
