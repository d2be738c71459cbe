// What a domain looks like, from a model or from a real directory.
#define XXH_INLINE_ALL
#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "model.h"
#include "tool.h"

namespace holdfast::replica_tool {
namespace {

uint64_t hash_bytes(const std::string& bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

uint64_t hash_xattrs(const std::map<std::string, std::string>& xattrs) {
  uint64_t sum = 0;
  for (const auto& [name, value] : xattrs) {
    sum += XXH3_64bits_withSeed(value.data(), value.size(), hash_bytes(name));
  }
  return sum;
}

void add(const NodePtr& node, const std::string& path, Snapshot& out,
         std::map<const Node*, std::string>& first) {
  Entry entry;
  entry.mode = node->mode;
  entry.uid = node->uid;
  entry.gid = node->gid;
  entry.device = node->device;
  entry.links = node->is_directory() ? 0 : node->links;
  entry.size = node->is_directory() ? 0 : node->bytes.size();
  if (!node->hashed) node->content = node->is_directory() ? 0 : hash_bytes(node->bytes);
  node->hashed = true;
  entry.content = node->content;
  entry.xattrs = hash_xattrs(node->xattrs);
  entry.mtime = node->mtime;
  entry.mtime_known = node->mtime_known;
  entry.first = node->links > 1 ? first.emplace(node.get(), path).first->second : path;
  out.emplace(path, std::move(entry));
  for (const auto& [name, child] : node->children) {
    add(child, path.empty() ? name : path + "/" + name, out, first);
  }
}

std::map<std::string, std::string> xattrs_of(int directory, const std::string& name) {
  const std::string path = "/proc/self/fd/" + std::to_string(directory) + "/" + name;
  std::string list(65536, '\0'), value(65536, '\0');
  std::map<std::string, std::string> found;
  const ssize_t size = llistxattr(path.c_str(), list.data(), list.size());
  require(size >= 0, "listxattr " + name);
  for (size_t at = 0; at < static_cast<size_t>(size);) {
    const std::string xattr = list.c_str() + at;
    at += xattr.size() + 1;
    const ssize_t got = lgetxattr(path.c_str(), xattr.c_str(), value.data(), value.size());
    require(got >= 0, "getxattr " + name);
    found.emplace(xattr, value.substr(0, static_cast<size_t>(got)));
  }
  return found;
}

std::set<std::string> names_in(int directory) {
  std::set<std::string> names;
  DIR* stream = fdopendir(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(stream != nullptr, "opening a folder");
  while (const dirent* found = readdir(stream)) names.insert(found->d_name);
  closedir(stream);
  names.erase(".");
  names.erase("..");
  return names;
}

class Reader {
 public:
  Snapshot out;

  void entry(int directory, const std::string& name, const std::string& path);

 private:
  void children(int directory, const std::string& path);

  std::map<ino_t, std::string> first_;
};

void Reader::entry(int directory, const std::string& name, const std::string& path) {
  struct stat attributes {};
  require(fstatat(directory, name.c_str(), &attributes, AT_SYMLINK_NOFOLLOW) == 0, path);
  Entry entry;
  entry.mode = attributes.st_mode;
  entry.uid = attributes.st_uid;
  entry.gid = attributes.st_gid;
  entry.mtime = attributes.st_mtim;
  entry.mtime_known = true;
  entry.first = path;
  const bool is_folder = S_ISDIR(attributes.st_mode);
  if (!is_folder) {
    entry.links = attributes.st_nlink;
    if (S_ISCHR(attributes.st_mode)) entry.device = attributes.st_rdev;
    if (attributes.st_nlink > 1)
      entry.first = first_.emplace(attributes.st_ino, path).first->second;
  }
  std::string bytes;
  if (S_ISREG(attributes.st_mode)) require(read_file(directory, name.c_str(), bytes), path);
  if (S_ISLNK(attributes.st_mode)) {
    bytes.resize(4096);
    const ssize_t got = readlinkat(directory, name.c_str(), bytes.data(), bytes.size());
    require(got >= 0, path);
    bytes.resize(static_cast<size_t>(got));
  }
  entry.size = bytes.size();
  if (S_ISREG(attributes.st_mode) && entry.size != static_cast<uint64_t>(attributes.st_size)) {
    die(path + ": its size is not what can be read");
  }
  entry.content = is_folder ? 0 : hash_bytes(bytes);
  entry.xattrs = hash_xattrs(xattrs_of(directory, name));
  out.emplace(path, std::move(entry));
  if (!is_folder) return;
  const Fd inside(openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(inside.valid(), path);
  children(inside.get(), path);
}

void Reader::children(int directory, const std::string& path) {
  for (const std::string& name : names_in(directory)) {
    entry(directory, name, path.empty() ? name : path + "/" + name);
  }
}

}  // namespace

uint64_t Entry::hash(const std::string& path) const {
  const uint64_t fields[] = {mode, uid,     gid,    device,           links,
                             size, content, xattrs, hash_bytes(first)};
  return XXH3_64bits_withSeed(fields, sizeof(fields), hash_bytes(path));
}

std::string Entry::difference(const Entry& other) const {
  std::string out;
  const auto number = [&](const char* what, uint64_t a, uint64_t b) {
    if (a != b)
      out += std::string(what) + " " + std::to_string(a) + " not " + std::to_string(b) + " ";
  };
  number("mode", mode, other.mode);
  number("uid", uid, other.uid);
  number("gid", gid, other.gid);
  number("device", device, other.device);
  number("links", links, other.links);
  number("size", size, other.size);
  if (content != other.content) out += "another content ";
  if (xattrs != other.xattrs) out += "other xattrs ";
  if (first != other.first)
    out += "linked to " + encode(first) + " not " + encode(other.first) + " ";
  if (mtime_known && other.mtime_known) {
    number("mtime", static_cast<uint64_t>(mtime.tv_sec), static_cast<uint64_t>(other.mtime.tv_sec));
    number("mtime's ns", static_cast<uint64_t>(mtime.tv_nsec),
           static_cast<uint64_t>(other.mtime.tv_nsec));
  }
  return out;
}

uint64_t hash_of(const Snapshot& snapshot) {
  uint64_t sum = 0;
  for (const auto& [path, entry] : snapshot) sum += entry.hash(path);
  return sum;
}

namespace {

NodePtr node_of(int directory, const std::string& name, std::map<ino_t, NodePtr>& linked) {
  struct stat attributes {};
  require(fstatat(directory, name.c_str(), &attributes, AT_SYMLINK_NOFOLLOW) == 0, name);
  const bool is_folder = S_ISDIR(attributes.st_mode);
  if (!is_folder && attributes.st_nlink > 1) {
    const auto known = linked.find(attributes.st_ino);
    if (known != linked.end()) {
      known->second->links++;
      return known->second;
    }
  }
  auto node = std::make_shared<Node>();
  if (!is_folder) linked.emplace(attributes.st_ino, node);
  node->mode = attributes.st_mode;
  node->uid = attributes.st_uid;
  node->gid = attributes.st_gid;
  if (S_ISCHR(attributes.st_mode)) node->device = attributes.st_rdev;
  node->mtime = attributes.st_mtim;
  node->mtime_known = true;
  node->xattrs = xattrs_of(directory, name);
  if (S_ISREG(attributes.st_mode)) require(read_file(directory, name.c_str(), node->bytes), name);
  if (S_ISLNK(attributes.st_mode)) {
    node->bytes.resize(4096);
    const ssize_t got = readlinkat(directory, name.c_str(), node->bytes.data(), 4096);
    require(got >= 0, name);
    node->bytes.resize(static_cast<size_t>(got));
  }
  if (!is_folder) return node;
  const Fd inside(openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(inside.valid(), name);
  for (const std::string& child : names_in(inside.get())) {
    node->children.emplace(child, node_of(inside.get(), child, linked));
  }
  return node;
}

}  // namespace

Model Model::of(int directory) {
  std::map<ino_t, NodePtr> linked;
  Model model(0);
  model.root_ = node_of(directory, ".", linked);
  return model;
}

Snapshot Model::snapshot() const {
  Snapshot out;
  std::map<const Node*, std::string> first;
  add(root_, "", out, first);
  return out;
}

std::vector<std::string> Model::paths() const {
  std::vector<std::string> found;
  for (const auto& [path, entry] : snapshot()) {
    if (!path.empty()) found.push_back(path);
  }
  return found;
}

Snapshot read_snapshot(int directory) {
  Reader reader;
  reader.entry(directory, ".", "");
  return std::move(reader.out);
}

}  // namespace holdfast::replica_tool
