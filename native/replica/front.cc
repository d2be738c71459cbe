#include "replica/front.h"

#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <vector>

#include "replica/mounts.h"
#include "replica/proto.h"

namespace holdfast::replica {

namespace {

constexpr int unmount_wait_ms = 2000;

/** What the kernel's FUSE can, as `status` names it. */
std::string features_of(uint64_t flags) {
  constexpr struct {
    uint64_t flag;
    const char* name;
  } known[] = {
      {FUSE_PARALLEL_DIROPS, "parallel_directory_operations"},
      {FUSE_DO_READDIRPLUS, "readdirplus"},
      {FUSE_POSIX_ACL, "acl"},
      {FUSE_MAX_PAGES, "large_writes"},
      {FUSE_CACHE_SYMLINKS, "cached_links"},
      {FUSE_HANDLE_KILLPRIV_V2, "killpriv_v2"},
      {FUSE_SETXATTR_EXT, "setxattr_ext"},
      {fuse_has_resend, "notify_resend"},
  };
  std::string list;
  for (const auto& [flag, name] : known) {
    if ((flags & flag) == 0) continue;
    if (!list.empty()) list += ',';
    list += name;
  }
  return list;
}

}  // namespace

Failure Front::open_files() {
  if (Failure failure = volumes_.lock_state(); failure.failed()) return failure;
  const auto opened = ids_.open(volumes_.state_path("ids"));
  if (!opened.ok()) return Failure::of(opened.error, volumes_.state_path("ids"));
  return volumes_.open(tree_);
}

/** True when the worker before left a connection for every directory, and its mount stands. */
bool Front::all_kept() const {
  for (size_t i = 0; i < volumes_.count(); i++)
    if (!context_.store.get(StoreKind::fuse, i).valid() || !volumes_.mounted(i)) return false;
  return true;
}

void Front::make_server(Log& log, Marks* marks) {
  ServerOptions options;
  options.threads = line_.threads;
  options.epoch = id_epoch();
  options.skip = line_.skip;
  options.marks = marks;
  options.keep = [this](FileId id, int fd) {
    if (context_.store.keep(StoreKind::open_file, id, fd) != 0) not_kept_.fetch_add(1);
  };
  options.drop = [this](FileId id) { context_.store.drop(StoreKind::open_file, id); };
  server_ = std::make_unique<Server>(tree_, ids_, log, context_.shared, std::move(options),
                                     context_.events);
}

Failure Front::adopt_all(bool& no_resend) {
  for (size_t i = 0; i < volumes_.count(); i++) {
    const int error =
        server_->adopt(uint8_t(i), volumes_.dir(i).c_str(), context_.store.get(StoreKind::fuse, i));
    no_resend = error == EOPNOTSUPP;
    if (error != 0) return Failure::of(error, "going on with " + volumes_.dir(i));
  }
  std::vector<std::pair<FileId, Fd>> files;
  context_.store.for_each(StoreKind::open_file,
                          [&](uint64_t key, int) { files.emplace_back(key, Fd()); });
  for (auto& [id, fd] : files) {
    fd = context_.store.get(StoreKind::open_file, id);
    if (fd.valid()) server_->adopt_file(id, std::move(fd));
  }
  return {};
}

Failure Front::mount_all() {
  for (size_t i = 0; i < volumes_.count(); i++) {
    Fd kept;
    const int error = server_->mount(uint8_t(i), volumes_.dir(i).c_str(), kept);
    if (error != 0) return Failure::of(error, "mounting over " + volumes_.dir(i));
    if (const int lost = context_.store.keep(StoreKind::fuse, i, kept.get()); lost != 0)
      return Failure::of(lost, "keeping the mount of " + volumes_.dir(i));
    if (Failure failure = volumes_.remember_mount(i); failure.failed()) return failure;
  }
  return {};
}

/** Ends what a worker before mounted and nobody can serve any more. */
Failure Front::end_old_mounts(const char* why) {
  bool any = false;
  for (size_t i = 0; i < volumes_.count(); i++) {
    const auto mount = mount_at(volumes_.dir(i));
    if (!volumes_.mounted(i) || !mount) continue;
    any = true;
    (void)abort_fuse(mount->device_minor);  // closing the last descriptor does the same
    if (Failure failure = volumes_.take_away(i, 0); failure.failed()) return failure;
  }
  context_.store.drop_all(StoreKind::fuse);
  context_.store.drop_all(StoreKind::open_file);
  if (any)
    context_.events.event("warning", {{"text",
                                       "the directories are mounted anew: what was under "
                                       "way or open in them got errors"},
                                      {"reason", why}});
  return {};
}

Failure Front::serve(Log& log, Marks* marks) {
  Failure failure;
  bool mounted_new = !context_.resume || !all_kept();
  if (mounted_new) {
    failure = end_old_mounts("nothing was kept of them");
    if (failure.failed()) return failure;
  }
  make_server(log, marks);
  if (!mounted_new) {
    bool no_resend = false;
    failure = adopt_all(no_resend);
    if (failure.failed()) {
      server_->stop(false);
      server_.reset();
      const std::string why =
          no_resend ? "the kernel has no FUSE_NOTIFY_RESEND (6.9)" : failure.text;
      failure = end_old_mounts(why.c_str());
      if (failure.failed()) return failure;
      make_server(log, marks);
      mounted_new = true;
    }
  }
  if (mounted_new) failure = mount_all();
  if (!failure.failed()) {
    const int error = server_->start();
    if (error != 0) failure = Failure::of(error, "serving the directories");
  }
  if (failure.failed()) {
    (void)stop();
    return failure;
  }
  serving_ = server_.get();
  return {};
}

Failure Front::stop() {
  serving_ = nullptr;
  if (server_) server_->stop(true, unmount_wait_ms);
  Failure failure;
  for (size_t i = 0; i < volumes_.count(); i++) {
    // The server has unmounted; what is left is a mount that it did not know of.
    const Failure one = volumes_.take_away(i, 0);
    if (one.failed()) failure = one;
  }
  context_.store.drop_all(StoreKind::fuse);
  context_.store.drop_all(StoreKind::open_file);
  return failure;
}

int64_t Front::change_p99_ns() const {
  const Server* server = serving_.load();
  return server == nullptr ? 0 : server->change_p99_ns();
}

void Front::status(Line& line) const {
  line.add("files", ids_.count()).add("not_kept", not_kept_.load());
  const Server* server = serving_.load();
  if (server == nullptr) return;
  const ServerStatus now = server->status();
  line.add("fuse_minor", uint64_t(now.minor)).add("max_write", uint64_t(now.max_write));
  line.add("resend", uint64_t(now.resend)).add("fuse_features", features_of(now.flags));
  line.add("requests", now.requests).add("changes", now.changes).add("again", now.again);
  line.add("finished", now.finished).add("parked", now.parked).add("parked_now", now.parked_now);
  line.add("sync_failures", now.sync_failures).add("mounts_gone", now.mounts_gone);
}

}  // namespace holdfast::replica
