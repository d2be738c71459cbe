#include "choose.h"

#include <algorithm>

namespace holdfast::replica_tool {
namespace {

constexpr uint64_t page = 4096;
constexpr uint64_t max_size = 192 * 1024;
constexpr size_t many_files = 40;
constexpr int max_depth = 4;

long depth_of(const std::string& path) {
  return std::count(path.begin(), path.end(), '/');
}

}  // namespace

Chooser::Files Chooser::look(const Model& model) {
  Files files;
  files.folders.emplace_back();
  for (const std::string& path : model.paths()) {
    const NodePtr node = model.find(path);
    files.any.push_back(path);
    if (node->is_directory()) {
      if (depth_of(path) >= max_depth) continue;
      files.folders.push_back(path);
      if (node->xattrs.contains("system.posix_acl_default")) files.inheriting.push_back(path);
    } else if (node->is_regular()) {
      files.regular.push_back(path);
    } else {
      files.others.push_back(path);
    }
  }
  return files;
}

std::string Chooser::pick(const std::vector<std::string>& from) {
  return from.empty() ? "" : from[random_.below(from.size())];
}

std::string Chooser::new_name(const Files& files) {
  static const std::string names[] = {"a",        "b",         "c",        "d",
                                      "e",        "f",         "g",        "h",
                                      "\xff\xfe", "new\nline", "% space ", std::string(200, 'l')};
  // What is made inherits an ACL often, since that is more than a name and a mode.
  const bool inherits = !files.inheriting.empty() && random_.chance(25);
  const std::string folder = pick(inherits ? files.inheriting : files.folders);
  const std::string& name = names[random_.below(12)];
  return folder.empty() ? name : folder + "/" + name;
}

Operation Chooser::make(const Model& model, const Files& files) {
  Operation operation;
  operation.a = new_name(files);
  operation.number = static_cast<uint32_t>(0600 | random_.below(0200));
  const uint64_t kind = random_.below(100);
  if (kind < 55) {
    operation.action = Action::create;
  } else if (kind < 72) {
    operation.action = kind < 65 || !replaces_ ? Action::adopt : Action::replace;
    const bool again = operation.action == Action::replace && !files.any.empty();
    if (again && random_.chance(60)) operation.a = pick(files.any);
    // One that fails leaves another mtime of the folder here, by a name that is not replicated.
    const NodePtr there = model.find(operation.a);
    if (there != nullptr && there->is_directory()) operation.action = Action::adopt;
    operation.length = 1 + random_.below(12'000);
    operation.seed = random_.next() >> 1;
  } else if (kind < 80) {
    operation.action = Action::mkdir;
    operation.number |= 0700;
  } else if (kind < 90) {
    operation.action = Action::symlink;
    operation.b = std::string(1 + random_.below(90), static_cast<char>(1 + random_.below(255)));
  } else if (kind < 95) {
    operation.action = Action::fifo;
  } else {
    operation.action = Action::device;
    operation.offset = 0x100 + random_.below(16);
  }
  return operation;
}

Operation Chooser::data(const Model& model, const Files& files) {
  Operation operation;
  operation.a = pick(files.regular);
  operation.seed = random_.next() >> 1;
  const uint64_t size = model.find(operation.a)->bytes.size();
  const uint64_t most = random_.chance(5) ? 128 * 1024 : random_.chance(50) ? 300 : 12'000;
  operation.length = 1 + random_.below(most);
  // Mostly where there is something already, so that the order of changes shows.
  operation.offset = random_.below(random_.chance(80) ? size + 1000 : max_size - operation.length);
  operation.offset = std::min(operation.offset, max_size - operation.length);
  const uint64_t kind = random_.below(100);
  if (kind < 40) {
    operation.action = Action::write;
    if (random_.chance(6)) operation.number |= write_durable;
    if (random_.chance(6)) {
      operation.number |= write_direct;
      operation.offset &= ~(page - 1);
      operation.length = (operation.length + page - 1) & ~(page - 1);
    }
  } else if (kind < 65) {
    operation.action = size + operation.length > max_size ? Action::reset : Action::append;
    operation.offset = 0;
  } else if (kind < 73) {
    operation.action = Action::truncate;
    operation.offset = random_.below(std::min(max_size, size * 2 + 1000));
  } else if (kind < 76) {
    operation.action = Action::reset;
    operation.offset = 0;
  } else if (kind < 80) {
    operation.action = Action::allocate;
  } else if (kind < 85) {
    operation.action = Action::punch;
  } else if (kind < 90) {
    operation.action = Action::zero;
  } else if (size > 0) {
    operation.action = Action::store;
    operation.offset = random_.below(size);
    operation.length = std::min(operation.length, size - operation.offset);
  }
  return operation;
}

Operation Chooser::copy(const Model& model, const Files& files) {
  Operation operation;
  operation.action = Action::copy;
  operation.a = pick(files.regular);
  operation.b = pick(files.regular);
  const NodePtr from = model.find(operation.a);
  const uint64_t size = from->bytes.size();
  operation.offset = random_.below(size) & ~(page - 1);
  operation.length = std::min(1 + random_.below(40'000), size - operation.offset);
  operation.number = static_cast<uint32_t>(random_.below(max_size - operation.length)) &
                     ~static_cast<uint32_t>(page - 1);
  if (size == 0 || from == model.find(operation.b)) {
    operation.action = Action::append;
    operation.offset = 0;
    operation.length = 100;
    operation.seed = random_.next() >> 1;
  }
  return operation;
}

Operation Chooser::names(const Model& model, const Files& files) {
  Operation operation;
  operation.a = pick(files.any);
  operation.b = random_.chance(70) ? new_name(files) : pick(files.any);
  const NodePtr node = model.find(operation.a);
  const bool crowded = files.any.size() > many_files;
  const uint64_t kind = random_.below(100);
  if (crowded || kind < 35) {
    operation.b.clear();
    operation.action = node->is_directory() ? Action::rmdir : Action::unlink;
    if (node->is_regular() && node->links == 1 && random_.chance(20)) {
      operation.action = Action::unlink_open;
    }
    if (random_.chance(3)) {
      operation.action = Action::unlink;
      operation.a = new_name(files);
    }
  } else if (kind < 50 && !node->is_directory()) {
    operation.action = Action::link;
  } else if (kind < 85) {
    operation.action = Action::rename;
  } else if (kind < 92) {
    operation.action = Action::rename_new;
  } else {
    operation.action = Action::exchange;
    operation.b = pick(files.any);
  }
  return operation;
}

Operation Chooser::attributes(const Model& model, const Files& files) {
  Operation operation;
  operation.a = pick(files.any);
  const NodePtr node = model.find(operation.a);
  const bool has_acl = node->xattrs.contains("system.posix_acl_access");
  const bool takes_xattrs = node->is_regular() || node->is_directory();
  const uint64_t kind = node->is_directory() && random_.chance(40) ? 58 : random_.below(100);
  if (kind < 30 && !S_ISLNK(node->mode) && !has_acl) {
    operation.action = Action::chmod;
    operation.number = static_cast<uint32_t>(0600 | random_.below(0200));
  } else if (kind < 50 && takes_xattrs) {
    operation.action = Action::set_xattr;
    operation.b = random_.chance(50) ? "user.a" : "trusted.\xff";
    operation.length = random_.below(300);
    operation.seed = random_.next() >> 1;
  } else if (kind < 58 && takes_xattrs) {
    operation.action = Action::remove_xattr;
    operation.b = random_.chance(50) ? "user.a" : "trusted.\xff";
  } else if (kind < 66 && takes_xattrs) {
    operation.action = node->is_regular() ? Action::set_acl : Action::set_default;
    operation.number = static_cast<uint32_t>(random_.below(8));
    operation.offset = random_.below(8);
  } else if (kind < 85) {
    operation.action = Action::times;
    operation.offset = 1'000'000'000 + random_.below(900'000'000);
    operation.number = static_cast<uint32_t>(random_.below(1'000'000'000));
  } else {
    operation.action = Action::chown;
    operation.number = static_cast<uint32_t>(random_.below(5));
    operation.offset = random_.below(5);
  }
  return operation;
}

Operation Chooser::sync(const Files& files, bool all) {
  Operation operation;
  if (all && random_.chance(25)) {
    operation.action = Action::fsync_all;
    return operation;
  }
  operation.action = random_.chance(50) ? Action::fsync : Action::fdatasync;
  operation.a =
      files.regular.empty() || random_.chance(25) ? pick(files.folders) : pick(files.regular);
  return operation;
}

Operation Chooser::next(const Model& model, bool all) {
  const Files files = look(model);
  if (files.regular.size() < 3) return make(model, files);
  const uint64_t kind = random_.below(100);
  if (kind < 14) return make(model, files);
  if (kind < 52) return data(model, files);
  if (kind < 55) return copy(model, files);
  if (kind < 75) return names(model, files);
  if (kind < 85) return attributes(model, files);
  if (kind < 93 || !all) return sync(files, all);
  Operation operation;
  operation.action = Action::append_all;
  operation.number = ++appended_;
  return operation;
}

}  // namespace holdfast::replica_tool
