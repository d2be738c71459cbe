#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/fd.h"
#include "replica/ids.h"
#include "replica/orphanage.h"
#include "replica/tree.h"
#include "replica/undo_paths.h"

/**
 * The end of a resync on its target: what only this server had is moved out of the way, never
 * removed. In each volume's root:
 *
 *   .holdfast-quarantine/YYYYMMDD-HHMMSS-epochN/   the time is UTC, the epoch the source's
 *     files/PATH        as it was; files/lost/NAME where the path is not known
 *     manifest.jsonl    a line for each file
 *
 * A line: `path` (below the directory), `stored` (below the folder), `type` (file, folder, link,
 * other), `size` in bytes, `mtime` ("SECONDS.NANOSECONDS"), `reason`: rolled_back, foreign, or
 * overwritten: that file stays where it is, and its `ranges` ([from, to] in bytes) may have had
 * other content. Bytes of a path that are no printable ASCII, and " % = \, are %XX.
 *
 * What is in it has no id: no record speaks of it, nothing compares it, no mount shows it.
 */
namespace holdfast::replica {

struct QuarantineOptions {
  uint64_t epoch = 0;  // of the source
  int64_t now_s = 0;   // time of day
  /** Files with this id or a later one were made by this server after the common point; 0: none. */
  FileId own_from = 0;
  /** This copy was another's: nothing that it had was the source's. */
  bool everything = false;
};

/** Parts of a file that may have been written by this server alone. */
struct Overwritten {
  FileId file = 0;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
};

class Quarantine {
 public:
  Quarantine(Tree& tree, Ids& ids, const UndoPaths& paths, const QuarantineOptions& options);

  /** A KeepOrphan (orphanage.h): moves what only this server had. 0 or errno. */
  int keep(const Orphan& orphan, bool& kept);
  /** Notes what was rolled back in place. Looks through the directories for the names. */
  int overwritten(std::vector<Overwritten> files);
  /** All of it is durable when it returns 0. */
  int finish();

  /** Files moved, those in directories included. */
  uint64_t files() const { return files_; }
  /** Name of the folder, "20260131-235959-epoch7"; empty: nothing was moved or noted. */
  const std::string& folder() const { return folder_; }

 private:
  struct Volume {
    Fd folder, stored, manifest;
  };
  struct Stored {
    std::string path, stored, reason;
  };

  int open(uint8_t volume, Volume*& out);
  int make_root(int root, Fd& out);
  int move(Volume& to, const Orphan& orphan, const std::string& path, std::string& stored);
  int move_to(Volume& to, const Orphan& orphan, const std::string& path, std::string& stored);
  int note(Volume& to, uint8_t volume, int directory, const std::string& name, const Stored& what);
  int find_names(uint8_t volume, int directory, const std::string& path,
                 std::vector<Overwritten>& files);
  int write_line(Volume& to, const std::string& line);

  Tree& tree_;
  Ids& ids_;
  const UndoPaths& paths_;
  QuarantineOptions options_;
  std::vector<Volume> volumes_;
  std::string folder_;
  uint64_t files_ = 0;
};

}  // namespace holdfast::replica
