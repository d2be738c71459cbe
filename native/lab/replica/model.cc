#include "model.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tool.h"

namespace holdfast::replica_tool {
namespace {

constexpr uint64_t page = 4096;
constexpr const char* access_acl = "system.posix_acl_access";
constexpr const char* default_acl = "system.posix_acl_default";

std::string base_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool is_within(const std::string& path, const std::string& folder) {
  return path.size() > folder.size() && path.starts_with(folder) && path[folder.size()] == '/';
}

mode_t type_made(Action action) {
  switch (action) {
    case Action::mkdir:
      return S_IFDIR;
    case Action::symlink:
      return S_IFLNK;
    case Action::fifo:
      return S_IFIFO;
    case Action::device:
      return S_IFCHR;
    default:
      return S_IFREG;
  }
}

void changed(Node& node, uint64_t index) {
  node.changed = index;
  node.mtime_known = false;
}

}  // namespace

Model::Model(mode_t mode) : root_(std::make_shared<Node>()) {
  root_->mode = S_IFDIR | mode;
}

NodePtr Model::find(const std::string& path) const {
  NodePtr at = root_;
  size_t from = 0;
  while (from < path.size() && at != nullptr) {
    const size_t slash = std::min(path.find('/', from), path.size());
    const auto found = at->children.find(path.substr(from, slash - from));
    at = found == at->children.end() ? nullptr : found->second;
    from = slash + 1;
  }
  return at;
}

NodePtr Model::parent_of(const std::string& path) const {
  const NodePtr parent = find(folder_of(path));
  return parent != nullptr && parent->is_directory() ? parent : nullptr;
}

int Model::apply_data(const Operation& operation, uint64_t index, uint64_t bytes) {
  const NodePtr node = find(operation.action == Action::copy ? operation.b : operation.a);
  if (node == nullptr) return ENOENT;
  const uint64_t length = std::min(operation.length, bytes);
  uint64_t offset = operation.offset;
  std::string data;
  if (operation.action == Action::copy) {
    const NodePtr from = find(operation.a);
    if (from == nullptr) return ENOENT;
    data = from->bytes.substr(offset, length);
    offset = operation.number;
  } else {
    data.resize(operation.length);
    fill(data.data(), data.size(), operation.seed);
    data.resize(length);
  }
  if (operation.action == Action::append) offset = node->bytes.size();
  if (node->bytes.size() < offset + data.size()) node->bytes.resize(offset + data.size());
  std::memcpy(node->bytes.data() + offset, data.data(), data.size());
  node->hashed = false;
  changed(*node, index);
  return 0;
}

int Model::apply_attributes(const Operation& operation, uint64_t index) {
  const NodePtr node = find(operation.a);
  if (node == nullptr) return ENOENT;
  const size_t end = operation.offset + operation.length;
  switch (operation.action) {
    case Action::truncate:
    case Action::reset:
      node->bytes.resize(operation.action == Action::reset ? 0 : operation.offset);
      break;
    case Action::allocate:
    case Action::zero:
      if (node->bytes.size() < end) node->bytes.resize(end);
      [[fallthrough]];
    case Action::punch: {
      if (operation.action == Action::allocate) break;
      const size_t from = std::min<size_t>(operation.offset, node->bytes.size());
      std::fill(node->bytes.begin() + static_cast<long>(from),
                node->bytes.begin() + static_cast<long>(std::min(end, node->bytes.size())), '\0');
      break;
    }
    case Action::chmod:
      node->mode = (node->mode & S_IFMT) | operation.number;
      break;
    case Action::chown:
      node->uid = operation.number;
      node->gid = static_cast<gid_t>(operation.offset);
      break;
    case Action::set_xattr: {
      std::string value(operation.length, '\0');
      fill(value.data(), value.size(), operation.seed);
      node->xattrs[operation.b] = value;
      break;
    }
    case Action::remove_xattr:
      if (node->xattrs.erase(operation.b) == 0) return ENODATA;
      break;
    case Action::set_acl: {
      const auto mask = static_cast<uint32_t>(operation.offset);
      node->xattrs[access_acl] = acl_value(node->mode, operation.number, mask);
      node->mode = (node->mode & ~static_cast<mode_t>(070)) | mask << 3;
      break;
    }
    case Action::set_default: {
      const auto mask = static_cast<uint32_t>(operation.offset);
      node->xattrs[default_acl] = acl_value(node->mode, operation.number, mask);
      break;
    }
    default:
      break;
  }
  node->changed = index;
  if (operation.action <= Action::zero) {
    node->hashed = false;
    node->mtime_known = false;
  }
  if (operation.action == Action::times) {
    node->mtime = {static_cast<time_t>(operation.offset), static_cast<long>(operation.number)};
    node->mtime_known = true;
  }
  return 0;
}

int Model::make(const Operation& operation, uint64_t index) {
  const NodePtr parent = parent_of(operation.a);
  if (parent == nullptr) return ENOENT;
  const auto node = std::make_shared<Node>();
  NodePtr& place = parent->children[base_of(operation.a)];
  if (place != nullptr) {
    if (operation.action != Action::replace) return EEXIST;
    if (place->is_directory()) return EISDIR;
    place->links--;
    place->changed = index;
  }
  place = node;
  node->mode =
      type_made(operation.action) | (operation.action == Action::symlink ? 0777 : operation.number);
  const auto inherited = parent->xattrs.find(default_acl);
  if (inherited != parent->xattrs.end() && operation.action != Action::symlink) {
    node->mode = inherit_acl(inherited->second, node->mode, node->xattrs[access_acl]);
    if (node->is_directory()) node->xattrs[default_acl] = inherited->second;
  }
  if (operation.action == Action::adopt || operation.action == Action::replace) {
    node->bytes.resize(operation.length);
    fill(node->bytes.data(), node->bytes.size(), operation.seed);
  }
  if (operation.action == Action::symlink) node->bytes = operation.b;
  if (operation.action == Action::device) node->device = operation.offset;
  changed(*node, index);
  changed(*parent, index);
  return 0;
}

int Model::link(const Operation& operation, uint64_t index) {
  const NodePtr node = find(operation.a), parent = parent_of(operation.b);
  if (node == nullptr || parent == nullptr) return ENOENT;
  if (!parent->children.emplace(base_of(operation.b), node).second) return EEXIST;
  node->links++;
  node->changed = index;
  changed(*parent, index);
  return 0;
}

int Model::remove(const Operation& operation, uint64_t index) {
  const NodePtr node = find(operation.a), parent = parent_of(operation.a);
  if (node == nullptr || parent == nullptr) return ENOENT;
  if (operation.action == Action::rmdir) {
    if (!node->is_directory()) return ENOTDIR;
    if (!node->children.empty()) return ENOTEMPTY;
  } else if (node->is_directory()) {
    return EISDIR;
  }
  node->links--;
  node->changed = index;
  parent->children.erase(base_of(operation.a));
  changed(*parent, index);
  return 0;
}

bool Model::is_idle(const Operation& operation) const {
  if (operation.action != Action::rename && operation.action != Action::exchange) return false;
  const NodePtr node = find(operation.a);
  return node != nullptr && node == find(operation.b);
}

int Model::rename(const Operation& operation, uint64_t index) {
  const NodePtr from = parent_of(operation.a), to = parent_of(operation.b);
  const NodePtr node = find(operation.a), other = find(operation.b);
  if (node == nullptr || from == nullptr || to == nullptr) return ENOENT;
  if (operation.action == Action::exchange && other == nullptr) return ENOENT;
  if (operation.action == Action::rename_new && other != nullptr) return EEXIST;
  if (is_within(operation.b, operation.a)) return EINVAL;
  if (is_within(operation.a, operation.b)) {
    return operation.action == Action::exchange ? EINVAL : ENOTEMPTY;
  }
  if (is_idle(operation)) return 0;
  if (operation.action == Action::exchange) {
    other->changed = index;
    from->children[base_of(operation.a)] = other;
    to->children[base_of(operation.b)] = node;
  } else {
    if (other != nullptr) {
      if (node->is_directory() && !other->is_directory()) return ENOTDIR;
      if (!node->is_directory() && other->is_directory()) return EISDIR;
      if (!other->children.empty()) return ENOTEMPTY;
      other->links--;
      other->changed = index;
    }
    from->children.erase(base_of(operation.a));
    to->children[base_of(operation.b)] = node;
  }
  node->changed = index;
  changed(*from, index);
  changed(*to, index);
  return 0;
}

int Model::apply(const Operation& operation, uint64_t index, uint64_t bytes) {
  switch (operation.action) {
    case Action::write:
    case Action::append:
    case Action::store:
    case Action::copy:
      return apply_data(operation, index, bytes);
    case Action::create:
    case Action::mkdir:
    case Action::symlink:
    case Action::fifo:
    case Action::device:
    case Action::adopt:
    case Action::replace:
      return make(operation, index);
    case Action::link:
      return link(operation, index);
    case Action::unlink:
    case Action::unlink_open:
    case Action::rmdir:
      return remove(operation, index);
    case Action::rename:
    case Action::rename_new:
    case Action::exchange:
      return rename(operation, index);
    case Action::fsync:
    case Action::fdatasync:
      return find(operation.a) == nullptr ? ENOENT : 0;
    case Action::fsync_all:
    case Action::append_all:
      return 0;
    default:
      return apply_attributes(operation, index);
  }
}

std::vector<std::string> Model::touched(const Operation& operation) {
  switch (operation.action) {
    case Action::write:
    case Action::append:
    case Action::truncate:
    case Action::reset:
    case Action::allocate:
    case Action::punch:
    case Action::zero:
    case Action::store:
      return {operation.a};
    case Action::copy:
      return {operation.b};
    case Action::create:
    case Action::mkdir:
    case Action::symlink:
    case Action::fifo:
    case Action::device:
    case Action::adopt:
    case Action::replace:
      return {operation.a, folder_of(operation.a)};
    case Action::link:
      return {folder_of(operation.b)};
    case Action::unlink:
    case Action::unlink_open:
    case Action::rmdir:
      return {folder_of(operation.a)};
    case Action::rename:
    case Action::rename_new:
    case Action::exchange:
      return {folder_of(operation.a), folder_of(operation.b)};
    default:
      return {};
  }
}

void Model::set_mtime(const std::string& path, const timespec& mtime) {
  const NodePtr node = find(path);
  if (node == nullptr) return;
  node->mtime = mtime;
  node->mtime_known = true;
}

std::vector<uint64_t> cuts(const Operation& operation, const Model& before) {
  std::vector<uint64_t> found;
  uint64_t start = operation.offset;
  switch (operation.action) {
    case Action::write:
    case Action::store:
      break;
    case Action::append: {
      const NodePtr node = before.find(operation.a);
      if (node == nullptr) return found;
      start = node->bytes.size();
      break;
    }
    case Action::copy:
      start = operation.number;
      break;
    default:
      return found;
  }
  for (uint64_t at = (start / page + 1) * page; at < start + operation.length; at += page) {
    found.push_back(at - start);
  }
  return found;
}

}  // namespace holdfast::replica_tool
