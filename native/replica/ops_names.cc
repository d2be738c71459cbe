// Names that go or move: UNLINK, RMDIR, RENAME, RENAME2, LINK.
//
// The kernel holds the directories' locks, and those of the files that lose or get a name, from
// before the request until after the answer: what is found here stays so until the change is made.

#include <fcntl.h>
#include <linux/fs.h>

#include <cerrno>
#include <cstdio>

#include "replica/core.h"

namespace holdfast::replica {
namespace {

Lsn append_unlink(Core& core, Room& r, FileId parent, const FileRef& dir, const char* name,
                  FileId id, bool last, bool is_directory, uint64_t* early) {
  struct stat now {};
  fstat(dir->fd.get(), &now);
  UnlinkBody body{};
  body.parent = parent;
  body.parent_mtime = to_time(now.st_mtim);
  body.name_size = static_cast<uint32_t>(std::strlen(name));
  body.is_directory = is_directory ? 1 : 0;
  const iovec parts[] = {{&body, sizeof body}, {const_cast<char*>(name), body.name_size}};
  return core.append(r, Kind::unlink, last ? flag_last_name : uint16_t{0}, id, parts, early);
}

/** Both names of a rename, and what was found at them. */
struct Move {
  FileId from = 0, to = 0;  // directories
  FileRef from_dir, to_dir;
  const char* name = nullptr;
  const char* new_name = nullptr;
  uint32_t flags = 0;
  FileId file = 0;
  FileId replaced = 0;
  struct stat file_now {};
  struct stat replaced_now {};
  uint64_t kind = 0;  // IntentFlags
};

Lsn append_rename(Core& core, Room& r, const Move& m, Intent* intent) {
  struct stat from {};
  struct stat to {};
  fstat(m.from_dir->fd.get(), &from);
  fstat(m.to_dir->fd.get(), &to);
  RenameBody body{};
  body.parent = m.from;
  body.new_parent = m.to;
  body.replaced = (m.kind & intent_replaced_local) != 0 ? 0 : m.replaced;
  body.parent_mtime = to_time(from.st_mtim);
  body.new_parent_mtime = to_time(to.st_mtim);
  body.name_size = static_cast<uint16_t>(std::strlen(m.name));
  body.new_name_size = static_cast<uint16_t>(std::strlen(m.new_name));
  body.exchange = (m.kind & intent_exchange) != 0 ? 1 : 0;
  const iovec parts[] = {{&body, sizeof body},
                         {const_cast<char*>(m.name), body.name_size},
                         {const_cast<char*>(m.new_name), body.new_name_size}};
  const bool last = (m.kind & intent_last_name) != 0 && body.replaced != 0;
  return core.append(r, Kind::rename, last ? flag_last_name : uint16_t{0}, m.file, parts,
                     &intent->lsn);
}

/** What the change is with respect to what is replicated, or the errno that forbids it. */
int classify(const Core& core, Move& m) {
  uint8_t flags = 0;
  core.flags_of(m.file, flags);
  const bool directory = S_ISDIR(m.file_now.st_mode);
  const bool was_local = (flags & id_local) != 0;
  const bool is_local = core.is_local(m.to, m.to_dir, m.new_name, directory);
  const bool exchange = (m.flags & RENAME_EXCHANGE) != 0;
  bool other_local = false;
  if (m.replaced != 0) {
    core.flags_of(m.replaced, flags);
    other_local = (flags & id_local) != 0;
  }
  if (exchange) {
    m.kind |= intent_exchange;
    if (was_local != other_local || was_local != is_local) return EXDEV;
  } else if (m.replaced != 0) {
    if (S_ISDIR(m.replaced_now.st_mode) || m.replaced_now.st_nlink == 1) m.kind |= intent_last_name;
    if (other_local) m.kind |= intent_replaced_local;
  }
  if (was_local != is_local) {
    // Only a file that has this one name can go from one side to the other.
    if (directory || m.file_now.st_nlink > 1) return EXDEV;
    m.kind |= is_local ? intent_withdraw : intent_publish;
  } else if (was_local) {
    m.kind |= intent_local;
  }
  return 0;
}

/** Reads the request. False: it is none, or has a flag that is not served (RENAME_WHITEOUT). */
bool parse_move(const Call& call, Move& m) {
  size_t at = 0;
  if (call.head.opcode == FUSE_RENAME2) {
    const auto* in = call.in<fuse_rename2_in>();
    if (in == nullptr) return false;
    m.to = call.session->file_of(in->newdir);
    m.flags = in->flags;
    at = sizeof *in;
  } else {
    const auto* in = call.in<fuse_rename_in>();
    if (in == nullptr) return false;
    m.to = call.session->file_of(in->newdir);
    at = sizeof *in;
  }
  m.from = call.file;
  m.name = call.text(at);
  m.new_name = m.name == nullptr ? nullptr : call.text(at + std::strlen(m.name) + 1);
  return m.new_name != nullptr && (m.flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) == 0;
}

/** Finds what stands at both names; 0 or errno. */
int find_both(Core& core, const Call& call, Move& m) {
  const dev_t device = call.session->device;
  Handle handle;
  int error = core.tree.identify(m.from_dir->fd.get(), m.name, handle, m.file_now);
  if (error != 0) return error;
  if (m.file_now.st_dev != device) return EBUSY;
  m.file = core.id_of(*call.session, m.from, m.from_dir, m.name, handle, m.file_now);
  if (m.file == 0) return ENOSPC;
  error = core.tree.identify(m.to_dir->fd.get(), m.new_name, handle, m.replaced_now);
  if (error == ENOENT) return 0;
  if (error != 0) return error;
  if (m.replaced_now.st_dev != device) return EBUSY;
  m.replaced = core.id_of(*call.session, m.to, m.to_dir, m.new_name, handle, m.replaced_now);
  return m.replaced == 0 ? ENOSPC : 0;
}

/** What the change touches, for the marks. */
MarkSet touched_by(const Move& m) {
  MarkSet touched;
  const bool other = m.replaced != 0 && (m.kind & intent_replaced_local) == 0;
  if ((m.kind & intent_local) != 0 && !other) return touched;
  touched.names(m.from);
  touched.names(m.to);
  if (other && (m.kind & intent_last_name) == 0) touched.inode(m.replaced);
  if ((m.kind & (intent_publish | intent_withdraw)) != 0) {
    // What is written to it while it is not replicated is not marked.
    touched.inode(m.file);
    touched.whole(m.file);
  }
  return touched;
}

Intent* begin_move(Core& core, const Call& call, const Move& m) {
  Intent* intent = core.intents.begin(FUSE_RENAME2, call.session->volume(), call.unique);
  intent->before[before_file] = m.file;
  intent->before[before_replaced] = m.replaced;
  intent->before[before_flags] =
      m.kind | (S_ISDIR(m.replaced_now.st_mode) ? uint64_t{intent_directory} : 0);
  IntentPlan plan{};
  plan.parent = m.from;
  plan.new_parent = m.to;
  Intents::plan(intent, plan, m.name, m.new_name);
  return intent;
}

}  // namespace

Handled Core::op_unlink(Call& call) {
  const char* name = call.text(0);
  const bool is_directory = call.head.opcode == FUSE_RMDIR;
  FileRef dir;
  if (name == nullptr) return fail(call, EINVAL), Handled::yes;
  if (const int error = directory(call.file, dir); error != 0) {
    return fail(call, error), Handled::yes;
  }
  const int dirfd = dir->fd.get();
  Handle handle;
  struct stat now {};
  int error = is_hidden(call, call.file, name) ? ENOENT : tree.identify(dirfd, name, handle, now);
  if (error == 0 && now.st_dev != call.session->device) error = EBUSY;
  if (error != 0) return fail(call, error), Handled::yes;
  const FileId id = id_of(*call.session, call.file, dir, name, handle, now);
  if (id == 0) return fail(call, ENOSPC), Handled::yes;
  Room r(log);
  const Locks::Hold hold(locks, call.file, id);
  uint8_t flags = 0;
  flags_of(id, flags);
  const bool local = (flags & id_local) != 0;
  if (!local && !room(r, call, record_size(sizeof(UnlinkBody) + std::strlen(name)))) {
    return Handled::no_room;
  }
  const bool last = is_directory || now.st_nlink == 1;
  Marks::Guard held;
  if (!local) {
    MarkSet touched;
    touched.names(call.file);
    if (!last) touched.inode(id);
    if (error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  Intent* intent = intents.begin(call.head.opcode, call.session->volume(), call.unique);
  intent->before[before_file] = id;
  intent->before[before_flags] = (local ? uint64_t{intent_local} : 0) |
                                 (last ? uint64_t{intent_last_name} : 0) |
                                 (is_directory ? uint64_t{intent_directory} : 0);
  IntentPlan plan{};
  plan.parent = call.file;
  Intents::plan(intent, plan, name, {});
  if (last) error = hold_unlinked(id, dirfd, name, is_directory);
  if (error == 0 && unlinkat(dirfd, name, is_directory ? AT_REMOVEDIR : 0) != 0) error = errno;
  if (error != 0) {
    if (last) reappear(id);
    check_failure(error, "unlink");
    return fail(call, error, intent), Handled::yes;
  }
  if (last) {
    ids.set_flags(id, id_unlinked, 0);
    tree.drop(id);
  }
  Lsn lsn = 0;
  if (!local) {
    lsn = append_unlink(*this, r, call.file, dir, name, id, last, is_directory, &intent->lsn);
  }
  Intents::done(intent, lsn);
  locks.changed(id, lsn);
  locks.changed(call.file, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  finish(call, lsn, {}, intent);
  return Handled::yes;
}

Handled Core::op_rename(Call& call) {
  Move m;
  if (!parse_move(call, m)) return fail(call, EINVAL), Handled::yes;
  int error = directory(m.from, m.from_dir);
  if (error == 0) error = directory(m.to, m.to_dir);
  if (error == 0 && (is_hidden(call, m.from, m.name) || is_hidden(call, m.to, m.new_name))) {
    error = EPERM;
  }
  if (error != 0) return fail(call, error), Handled::yes;
  if (call.left != nullptr) {
    // The names are as wanted; the file's content was still being sent.
    const Locks::Hold hold(locks, m.from, m.to, call.left->before[before_file]);
    Room r(log);
    if (!room_blocking(r, 2 * record_size(sizeof(UnlinkBody) + 256))) return Handled::yes;
    const Lsn lsn = rename_records(r, call.left, call.left->before[before_file]);
    if (lsn == no_lsn) return not_published(call, call.left);
    Intents::done(call.left, lsn);
    return finish(call, lsn, {}, call.left), Handled::yes;
  }
  if (error = find_both(*this, call, m); error != 0) return fail(call, error), Handled::yes;
  const int from = m.from_dir->fd.get();
  const int to = m.to_dir->fd.get();
  if (m.file == m.replaced) {
    // Two names of one file: POSIX wants both to stay. With flags it may be refused.
    error = renameat2(from, m.name, to, m.new_name, m.flags) == 0 ? 0 : errno;
    return fail(call, error), Handled::yes;
  }
  Room r(log);
  const Locks::Hold hold(locks, m.from, m.to, m.file, m.replaced);
  if (error = classify(*this, m); error != 0) return fail(call, error), Handled::yes;
  const size_t names = std::strlen(m.name) + std::strlen(m.new_name);
  // Two records when the file goes to the other side and another one is replaced.
  const size_t bytes = record_size(sizeof(RenameBody) + names) +
                       record_size(sizeof(UnlinkBody) + names) +
                       record_size(sizeof(CreateBody) + names);
  if ((m.kind & intent_local) == 0 && !room(r, call, bytes)) return Handled::no_room;
  Marks::Guard held;
  if (error = guard(touched_by(m), held); error != 0) return fail(call, error), Handled::yes;
  Intent* intent = begin_move(*this, call, m);
  const bool last = (m.kind & intent_last_name) != 0;
  if (last) error = hold_unlinked(m.replaced, to, m.new_name, S_ISDIR(m.replaced_now.st_mode));
  if (error == 0 && renameat2(from, m.name, to, m.new_name, m.flags) != 0) {
    error = errno;
  }
  if (error != 0) {
    if (last) reappear(m.replaced);
    check_failure(error, "rename");
    return fail(call, error, intent), Handled::yes;
  }
  if (last) {
    ids.set_flags(m.replaced, id_unlinked, 0);
    tree.drop(m.replaced);
  }
  const Lsn lsn = rename_records(r, intent, m.file);
  if (lsn == no_lsn) return not_published(call, intent);
  Intents::done(intent, lsn);
  locks.changed(m.file, lsn);
  locks.changed(m.from, lsn);
  locks.changed(m.to, lsn);
  if (m.replaced != 0) locks.changed(m.replaced, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  finish(call, lsn, {}, intent);
  return Handled::yes;
}

Lsn Core::rename_records(Room& r, Intent* intent, FileId id) {
  IntentPlan plan;
  std::string_view names[2];
  Intents::read_plan(*intent, plan, names[0], names[1]);
  const std::string name(names[0]);
  const std::string new_name(names[1]);
  Move m;
  m.from = plan.parent;
  m.to = plan.new_parent;
  m.name = name.c_str();
  m.new_name = new_name.c_str();
  m.file = id;
  m.replaced = intent->before[before_replaced];
  m.kind = intent->before[before_flags];
  if ((m.kind & intent_local) != 0) return 0;
  if (directory(m.from, m.from_dir) != 0 || directory(m.to, m.to_dir) != 0) return 0;
  if ((m.kind & (intent_publish | intent_withdraw)) == 0) {
    return intent->lsn != 0 ? intent->lsn : append_rename(*this, r, m, intent);
  }
  const bool replaced = m.replaced != 0 && (m.kind & intent_replaced_local) == 0;
  const bool last = (m.kind & intent_last_name) != 0;
  if ((m.kind & intent_publish) != 0) {
    FileRef f;
    if (const int error = file(id, f); error != 0) {
      log.local_failed(error, "open");
      return no_lsn;
    }
    return publish(id, f, {m.to, m.to_dir, m.new_name, replaced ? m.replaced : 0, last}, intent);
  }
  if (replaced && intent->before[before_unlinked] == 0) {
    append_unlink(*this, r, m.to, m.to_dir, m.new_name, m.replaced, last,
                  (m.kind & intent_directory) != 0, &intent->before[before_unlinked]);
  }
  ids.set_flags(id, id_local, 0);
  if (intent->lsn != 0) return intent->lsn;
  return append_unlink(*this, r, m.from, m.from_dir, m.name, id, true, false, &intent->lsn);
}

Handled Core::op_link(Call& call) {
  const auto* in = call.in<fuse_link_in>();
  const char* name = call.text(sizeof *in);
  if (in == nullptr || name == nullptr) return fail(call, EINVAL), Handled::yes;
  const FileId id = call.session->file_of(in->oldnodeid);
  FileRef dir;
  FileRef f;
  int error = directory(call.file, dir);
  if (error == 0) error = file(id, f);
  if (error == 0 && is_hidden(call, call.file, name)) error = EPERM;
  if (error != 0) return fail(call, error), Handled::yes;
  Room r(log);
  const Locks::Hold hold(locks, call.file, id);
  uint8_t flags = 0;
  if (!flags_of(id, flags)) return fail(call, ESTALE), Handled::yes;
  const bool unnamed = (flags & id_unlinked) != 0;
  const bool local = is_local(call.file, dir, name, false);
  // Whether a file is replicated is the same for all its names.
  if (!unnamed && ((flags & id_local) != 0) != local) return fail(call, EXDEV), Handled::yes;
  const size_t bytes = record_size(sizeof(CreateBody) + std::strlen(name));
  if (!local && !room(r, call, bytes)) return Handled::no_room;
  Marks::Guard held;
  if (!local || unnamed) {
    MarkSet touched;
    touched.names(call.file);
    touched.inode(id);
    if (unnamed) touched.whole(id);
    if (error = guard(touched, held); error != 0) return fail(call, error), Handled::yes;
  }
  Intent* intent = call.left;
  if (intent == nullptr) {
    intent = intents.begin(FUSE_LINK, call.session->volume(), call.unique);
    intent->before[before_file] = id;
    intent->before[before_flags] =
        (local ? uint64_t{intent_local} : 0) | (unnamed ? uint64_t{intent_publish} : 0);
    IntentPlan plan{};
    plan.parent = call.file;
    Intents::plan(intent, plan, name, {});
    if (linkat(f->fd.get(), "", dir->fd.get(), name, AT_EMPTY_PATH) != 0) {
      error = errno;
      check_failure(error, "link");
      return fail(call, error, intent), Handled::yes;
    }
  }
  const Lsn lsn = link_records(r, intent, id, f, call.file, dir, name);
  if (lsn == no_lsn) return not_published(call, intent);
  Intents::done(intent, lsn);
  locks.changed(id, lsn);
  locks.changed(call.file, lsn);
  changes.fetch_add(1, std::memory_order_relaxed);
  struct stat now {};
  fstat(f->fd.get(), &now);
  fuse_entry_out out;
  entry_out(call, id, now, out);
  finish(call, lsn, {&out, sizeof out}, intent);
  return Handled::yes;
}

Lsn Core::link_records(Room& r, Intent* intent, FileId id, const FileRef& f, FileId parent,
                       const FileRef& dir, const char* name) {
  const uint64_t kind = intent->before[before_flags];
  Lsn lsn = 0;
  if ((kind & intent_local) != 0) {
    if ((kind & intent_publish) != 0) ids.set_flags(id, id_local, 0);
  } else if ((kind & intent_publish) != 0) {
    lsn = publish(id, f, {parent, dir, name, 0, false}, intent);
    if (lsn == no_lsn) return no_lsn;
  } else if (intent->lsn != 0) {
    lsn = intent->lsn;
  } else {
    struct stat now {};
    fstat(dir->fd.get(), &now);
    LinkBody body{};
    body.parent = parent;
    body.parent_mtime = to_time(now.st_mtim);
    body.name_size = static_cast<uint32_t>(std::strlen(name));
    const iovec parts[] = {{&body, sizeof body}, {const_cast<char*>(name), body.name_size}};
    lsn = append(r, Kind::link, 0, id, parts, &intent->lsn);
  }
  if ((kind & intent_publish) != 0) {
    ids.set_flags(id, 0, id_unlinked);
    reappear(id);
  }
  return lsn;
}

void Core::finish_unlink(Room& r, Intent& intent, const FileRef& dir, FileId parent,
                         const char* name) {
  const uint64_t kind = intent.before[before_flags];
  const FileId id = intent.before[before_file];
  const bool last = (kind & intent_last_name) != 0;
  if (last) ids.set_flags(id, id_unlinked, 0);
  if ((kind & intent_local) != 0 || intent.lsn != 0) return;
  append_unlink(*this, r, parent, dir, name, id, last, (kind & intent_directory) != 0, &intent.lsn);
}

}  // namespace holdfast::replica
