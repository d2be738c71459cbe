#pragma once
#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "replica/ids.h"

/** The real directories below the mounts, reached by FileId. Used by the primary and the applier.
 */
namespace holdfast::replica {

/** An open file of the cache: regular files O_RDWR (O_RDONLY where that is refused), directories
 * O_RDONLY | O_DIRECTORY, all others O_PATH. It stays open while somebody holds the pointer. */
struct OpenFile {
  Fd fd;
  uint32_t type = 0;
  uint8_t volume = 0;
  bool writable = false;
};
using FileRef = std::shared_ptr<OpenFile>;

class Tree {
 public:
  Tree(Ids& ids, size_t max_open);
  ~Tree();
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  /**
   * Adds the next replicated directory by its descriptor, which was opened before anything was
   * mounted over it. Its root gets the id volume + 1. Errors of name_to_handle_at: EOPNOTSUPP when
   * the file system has no file handles.
   */
  Result<uint8_t> add_volume(Fd directory);
  size_t volumes() const;
  /** The directory's own descriptor. */
  int root_fd(uint8_t volume) const;

  /** The file, opened when it is not in the cache. error ESTALE: no such id, or the file is gone.
   */
  Result<FileRef> open(FileId id);
  /** The file of an entry, past the cache; its own descriptor. */
  Result<FileRef> open_entry(const IdEntry& entry) const;
  /** Puts an open file into the cache, in place of what is there. */
  void add(FileId id, FileRef file);
  /** Drops the cached descriptor, and keeps it from coming back while it is being replaced. */
  void drop(FileId id);

  /** Handle and attributes of a name in an open directory (the link itself, not its target). */
  static int identify(int directory, const char* name, Handle& handle, struct stat& attributes);
  /** Handle and attributes of an open descriptor. */
  static int identify(int fd, Handle& handle, struct stat& attributes);

  /** syncfs on every volume; 0 or the first errno. */
  int sync_all();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/** "/proc/self/fd/N": names what an O_PATH descriptor stands for, for calls that want a path. */
struct ProcPath {
  char text[32];
  explicit ProcPath(int fd);
};

}  // namespace holdfast::replica
