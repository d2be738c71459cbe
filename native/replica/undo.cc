#include "replica/undo.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "replica/undo_back.h"
#include "replica/undo_capture.h"
#include "replica/undo_file.h"
#include "replica/undo_paths.h"

namespace holdfast::replica {
namespace {

constexpr uint64_t max_memory = 64u << 20;

}  // namespace

struct Undo::Impl {
  Tree& tree;
  Ids& ids;
  std::string path;
  UndoFile file;
  UndoCapture capture;
  std::atomic<uint64_t> bytes{0}, batches{0};  // for other threads

  Impl(Tree& t, Ids& i, uint64_t memory) : tree(t), ids(i), capture(t, i, file, memory) {}

  void show() {
    bytes.store(file.bytes());
    batches.store(file.batches());
  }
};

Undo::Undo(Tree& tree, Ids& ids, uint64_t memory)
    : impl_(new Impl(tree, ids, memory == 0 ? max_memory : memory)) {}

Undo::~Undo() {
  delete impl_;
}

Result<bool> Undo::open(const std::string& path) {
  impl_->path = path;
  impl_->capture.forget();
  const Result<bool> opened = impl_->file.open(path);
  impl_->show();
  return opened;
}

bool Undo::is_open() const {
  return impl_->file.is_open();
}

int Undo::before(std::span<const Record> records) {
  if (!impl_->file.is_open()) return EBADF;
  impl_->capture.begin();
  int error = 0;
  for (const Record& record : records) {
    if (error = impl_->capture.record(record); error != 0) break;
  }
  if (error == 0) error = impl_->file.end_batch();
  if (error != 0) {
    impl_->file.drop_batch();
    impl_->capture.forget();
  }
  impl_->show();
  return error;
}

int Undo::take_back(Changes& changes) {
  if (!impl_->file.is_open()) return EBADF;
  // What it changes is not what was saved.
  impl_->capture.forget();
  return UndoBack(impl_->tree, impl_->ids, impl_->file, changes).run();
}

int Undo::paths(UndoPaths& out) {
  return impl_->file.is_open() ? out.read(impl_->file) : EBADF;
}

int Undo::discard() {
  if (!impl_->file.is_open()) return 0;
  if (unlink(impl_->path.c_str()) != 0 && errno != ENOENT) return errno;
  impl_->capture.forget();
  const int error = impl_->file.close_removed(impl_->path);
  impl_->show();
  return error;
}

UndoStatus Undo::status() const {
  return {impl_->bytes.load(), impl_->batches.load()};
}

}  // namespace holdfast::replica
