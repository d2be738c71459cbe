#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "posix_util.h"

namespace holdfast::replica_tool {

static std::string value_of(const char* file, const char* name) {
  std::string out(70000, '\0');
  const ssize_t got = lgetxattr(file, name, out.data(), out.size());
  if (got < 0) return error_name(errno);
  out.resize(static_cast<size_t>(got));
  return out;
}

static std::string list_of(const char* file) {
  std::string raw(70000, '\0');
  const ssize_t got = llistxattr(file, raw.data(), raw.size());
  if (got < 0) return error_name(errno);
  std::set<std::string> names;
  for (size_t at = 0; at < static_cast<size_t>(got);) {
    const std::string name = raw.c_str() + at;
    at += name.size() + 1;
    // What the kernel adds to each file of a labelled system is not the file system's.
    if (name != "security.selinux") names.insert(name);
  }
  std::string out;
  for (const auto& name : names) out += name + " ";
  return out;
}

static void values(Table& t) {
  make("f", 0644, "x");
  char small[2];
  t.did("set", setxattr("f", "user.a", "value", 5, 0));
  t.is("get", value_of("f", "user.a"));
  t.number("size alone", getxattr("f", "user.a", nullptr, 0));
  t.did("small buffer", getxattr("f", "user.a", small, sizeof(small)));
  t.did("absent", getxattr("f", "user.none", small, sizeof(small)));
  t.did("XATTR_CREATE over one", setxattr("f", "user.a", "x", 1, XATTR_CREATE));
  t.did("XATTR_REPLACE of one", setxattr("f", "user.a", "new", 3, XATTR_REPLACE));
  t.is("replaced", value_of("f", "user.a"));
  t.did("XATTR_REPLACE of none", setxattr("f", "user.b", "x", 1, XATTR_REPLACE));
  t.did("XATTR_CREATE of none", setxattr("f", "user.b", "x", 1, XATTR_CREATE));
  t.did("unknown flag", setxattr("f", "user.b", "x", 1, 8));
  t.did("empty value", setxattr("f", "user.empty", "", 0, 0));
  t.is("is empty", value_of("f", "user.empty"));
  t.is("list", list_of("f"));
  t.did("list into a small buffer", listxattr("f", small, sizeof(small)));
  t.did("remove", removexattr("f", "user.b"));
  t.did("remove again", removexattr("f", "user.b"));
  t.is("list afterwards", list_of("f"));
  const std::string binary("\0\xff\n\0", 4);
  t.did("binary value", setxattr("f", "user.bin", binary.data(), binary.size(), 0));
  t.truth("comes back", value_of("f", "user.bin") == binary);
  t.did("odd name", setxattr("f", "user.\xff\n =", "x", 1, 0));
  t.is("odd name comes back", value_of("f", "user.\xff\n ="));
  t.did("through a descriptor", fsetxattr(Fd(open("f", O_RDONLY)).get(), "user.fd", "1", 1, 0));
  t.did("of nothing", setxattr("none", "user.a", "x", 1, 0));
}

static void limits(Table& t) {
  make("g", 0644, "x");
  const std::string longest = "user." + std::string(250, 'n');
  t.did("name of 255", setxattr("g", longest.c_str(), "x", 1, 0));
  t.did("name of 256", setxattr("g", (longest + "n").c_str(), "x", 1, 0));
  t.did("name without a name", setxattr("g", "user.", "x", 1, 0));
  t.did("name without a namespace", setxattr("g", "plain", "x", 1, 0));
  t.did("unknown namespace", setxattr("g", "other.x", "x", 1, 0));
  t.did("empty name", setxattr("g", "", "x", 1, 0));
  const std::string value(3000, 'v');
  t.did("value of 3000", setxattr("g", "user.large", value.data(), value.size(), 0));
  t.truth("value of 3000 back", value_of("g", "user.large") == value);
  const std::string over(65537, 'v');
  t.did("value of 65537", setxattr("g", "user.over", over.data(), over.size(), 0));
  t.did("value of 65536", setxattr("g", "user.over", over.data(), 65536, 0));
  bool all = true;
  make("many");
  for (int i = 0; i < 40; i++) {
    const std::string name = "user.many" + std::to_string(i);
    all = all && setxattr("many", name.c_str(), "0123456789", 10, 0) == 0;
  }
  t.truth("forty of them", all);
  t.number("are listed", static_cast<long>(list_of("many").size()));
}

static void spaces(Table& t) {
  make("h", 0644, "x");
  t.did("trusted", setxattr("h", "trusted.t", "1", 1, 0));
  t.did("security", setxattr("h", "security.s", "2", 1, 0));
  t.did("user", setxattr("h", "user.u", "3", 1, 0));
  t.is("all three", list_of("h"));
  require(chown("h", alice, staff) == 0, "chown");
  t.as(alice, staff, {}, [&] {
    t.is("trusted is hidden from others", list_of("h"));
    t.is("and cannot be read", value_of("h", "trusted.t"));
    t.is("security can be read", value_of("h", "security.s"));
    t.did("security is not set by the owner", setxattr("h", "security.s", "2", 1, 0));
    t.did("user is set by the owner", setxattr("h", "user.u", "4", 1, 0));
  });
  t.as(bob, staff, {}, [&] {
    t.is("user is read by who may read", value_of("h", "user.u"));
    t.did("and not set", setxattr("h", "user.u", "5", 1, 0));
    t.did("and not removed", removexattr("h", "user.u"));
  });
  require(mkdir("d", 0755) == 0 && mkfifo("p", 0644) == 0, "set-up");
  t.did("user of a directory", setxattr("d", "user.x", "1", 1, 0));
  t.is("is kept", value_of("d", "user.x"));
  t.did("user of a fifo", setxattr("p", "user.x", "1", 1, 0));
  t.did("trusted of a fifo", setxattr("p", "trusted.x", "1", 1, 0));
  t.did("link keeps them", link("h", "h2"));
  t.is("seen at the other name", value_of("h2", "user.u"));
  t.did("rename", rename("h", "h3"));
  t.is("keeps them", value_of("h3", "trusted.t"));
  make("new");
  t.is("a new file has none", list_of("new"));
  const Fd fd(open("h3", O_WRONLY | O_TRUNC));
  t.is("O_TRUNC keeps them", list_of("h3"));
}

void posix_xattr(Table& t) {
  values(t);
  limits(t);
  spaces(t);
}

}  // namespace holdfast::replica_tool
