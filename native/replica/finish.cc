// What an earlier process had begun when it died: finished before this one serves anything.
//
// The slots tell what was being done. Whether the local call was made is seen in the directory;
// whether its record counts, by the LSN that was noted before the record did (Log::append_noting).
// Changes whose content does not fit into a slot (extended attributes, a file that is being
// published) are finished when the kernel sends the request again, which is certain.

#include <fcntl.h>

#include <cerrno>
#include <climits>

#include "replica/make.h"

namespace holdfast::replica {
namespace {

struct Plan {
  IntentPlan plan;
  std::string name;
  std::string new_name;

  explicit Plan(const Intent& intent) {
    std::string_view a;
    std::string_view b;
    Intents::read_plan(intent, plan, a, b);
    name = a;
    new_name = b;
  }
};

}  // namespace

void Core::finish_make(Room& r, Intent& intent) {
  const Plan p(intent);
  FileRef dir;
  if (directory(p.plan.parent, dir) != 0) return intents.end(&intent);
  const int dirfd = dir->fd.get();
  IdEntry entry;
  struct stat made {};
  struct stat parent {};
  if (tree.identify(dirfd, p.name.c_str(), entry.handle, made) != 0) return intents.end(&intent);
  const FileId known = ids.find(dir->volume, entry.handle);
  // Another file has the name: it was there before, and the call was to fail.
  if (known != 0 && known != intent.made) return intents.end(&intent);
  Make what;
  what.opcode = Intents::opcode_of(intent);
  what.mode = p.plan.mode;
  what.uid = p.plan.uid;
  what.gid = p.plan.gid;
  const bool fresh = intent.lsn == 0;
  if (fresh && S_ISREG(made.st_mode) && (p.plan.mode & (S_ISUID | S_ISGID)) != 0) {
    fchmodat(dirfd, p.name.c_str(), (made.st_mode | (p.plan.mode & 06000)) & 07777, 0);
  }
  fstat(dirfd, &parent);
  if (fresh) own(what, dirfd, p.name.c_str(), parent, made);
  if (tree.identify(dirfd, p.name.c_str(), entry.handle, made) != 0) return intents.end(&intent);
  const bool local = (intent.before[before_flags] & intent_local) != 0;
  entry.id = intent.made;
  entry.type = made.st_mode & S_IFMT;
  entry.volume = dir->volume;
  entry.flags = local ? id_local : 0;
  entry.opens = what.opcode == FUSE_CREATE ? 1 : 0;
  if (ids.put(entry) != 0) return intents.end(&intent);
  char target[PATH_MAX] = "";
  if (S_ISLNK(made.st_mode)) {
    const ssize_t size = readlinkat(dirfd, p.name.c_str(), target, sizeof target - 1);
    if (size >= 0) target[size] = 0;
  }
  Lsn lsn = 0;
  if (!local) {
    lsn = made_records(r, intent.made, p.plan.parent, dir, p.name.c_str(), target, made, &intent);
  }
  Intents::done(&intent, lsn);
}

void Core::finish_name(Room& r, Intent& intent) {
  const Plan p(intent);
  const uint32_t opcode = Intents::opcode_of(intent);
  const uint64_t kind = intent.before[before_flags];
  const FileId id = intent.before[before_file];
  FileRef dir;
  FileRef new_dir;
  if (directory(p.plan.parent, dir) != 0) return intents.end(&intent);
  Handle handle;
  struct stat now {};
  const auto stands = [&](const FileRef& at, const std::string& name) -> FileId {
    if (tree.identify(at->fd.get(), name.c_str(), handle, now) != 0) return 0;
    return ids.find(at->volume, handle);
  };
  if (opcode == FUSE_UNLINK || opcode == FUSE_RMDIR) {
    if (stands(dir, p.name) == id) return intents.end(&intent);
    finish_unlink(r, intent, dir, p.plan.parent, p.name.c_str());
    return Intents::done(&intent, intent.lsn);
  }
  if (opcode == FUSE_LINK) {
    if (stands(dir, p.name) != id) return intents.end(&intent);
    const bool sends = (kind & intent_publish) != 0 && (kind & intent_local) == 0;
    if (sends && intent.lsn == 0) return;
    FileRef f;
    if (file(id, f) != 0) return intents.end(&intent);
    const Lsn lsn = link_records(r, &intent, id, f, p.plan.parent, dir, p.name.c_str());
    return Intents::done(&intent, lsn);
  }
  if (directory(p.plan.new_parent, new_dir) != 0) return intents.end(&intent);
  if (stands(new_dir, p.new_name) != id) return intents.end(&intent);
  if ((kind & intent_last_name) != 0) ids.set_flags(intent.before[before_replaced], id_unlinked, 0);
  // With its name in the log it is published: changes of it are in the log from here on.
  if ((kind & intent_publish) != 0 && intent.lsn == 0) return;
  Intents::done(&intent, rename_records(r, &intent, id));
}

void Core::finish_one(Intent& intent) {
  const uint32_t opcode = Intents::opcode_of(intent);
  // Noted, but the record never counted.
  const Lsn last = log.last();
  if (intent.lsn > last) intent.lsn = 0;
  Room r(log);
  switch (opcode) {
    case FUSE_OPEN:
    case FUSE_OPENDIR:
    case FUSE_RELEASE: {
      IdEntry entry;
      const bool known = ids.get(intent.before[before_file], entry);
      const bool counted = !known || entry.opens != intent.before[before_count];
      return counted ? Intents::done(&intent, 0) : intents.end(&intent);
    }
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
      return;  // when it comes again
    case FUSE_CREATE:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
      // What the earlier process had set aside is free again, so there is room.
      r.take(record_size(sizeof(CreateBody) + NAME_MAX + PATH_MAX + 2 * acl_max),
             Waiter{room_again, this, 0});
      return finish_make(r, intent);
    case fuse_op_tmpfile:
      // A file that nobody has seen: made anew.
      gone(intent.made);
      return intents.end(&intent);
    default:
      if (opcode == FUSE_RENAME2 && intent.before[before_unlinked] > last) {
        intent.before[before_unlinked] = 0;
      }
      r.take(2 * record_size(sizeof(RenameBody) + 512), Waiter{room_again, this, 0});
      return finish_name(r, intent);
  }
}

void Core::finish_all() {
  intents.inherit();
  for (size_t i = 0; i < intent_slots; i++) {
    Intent& intent = intents.slots()[i];
    if (intent.phase.load() != 1) continue;
    finish_one(intent);
    if (intent.phase.load() == 2) finished.fetch_add(1);
  }
}

bool Core::answer_left(Call& call) {
  Intent* intent = intents.left(call.session->volume(), call.unique);
  if (intent == nullptr) return false;
  if (intent->phase.load() == 1) {
    call.left = intent;
    return false;
  }
  const Lsn lsn = intent->lsn;
  const uint32_t opcode = Intents::opcode_of(*intent);
  switch (opcode) {
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
      const auto* in = call.in<fuse_open_in>();
      const fuse_open_out out = open_reply(in == nullptr ? 0 : in->flags, opcode == FUSE_OPENDIR);
      return finish(call, lsn, {&out, sizeof out}, intent), true;
    }
    case FUSE_CREATE:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_LINK:
    case fuse_op_tmpfile: {
      const FileId id = opcode == FUSE_LINK ? intent->before[before_file] : intent->made;
      const Plan p(*intent);
      FileRef f;
      struct stat now {};
      int error = file(id, f);
      if (error == 0 && fstat(f->fd.get(), &now) != 0) error = errno;
      if (error != 0) return fail(call, error, intent), true;
      Make what;
      what.opcode = opcode;
      what.flags = p.plan.flags;
      return answer_made(call, what, lsn, id, now, intent), true;
    }
    case FUSE_RELEASE: {
      IdEntry entry;
      const FileId id = intent->before[before_file];
      const Locks::Hold hold(locks, id);
      if (ids.get(id, entry) && entry.opens == 0 && (entry.flags & id_unlinked) != 0) gone(id);
      return finish(call, 0, {}, intent), true;
    }
    default:
      return finish(call, lsn, {}, intent), true;
  }
}

}  // namespace holdfast::replica
