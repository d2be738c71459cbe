// POSIX ACLs as xattrs, in the kernel's format (include/uapi/linux/posix_acl_xattr.h): version 2,
// then {u16 tag, u16 permissions, u32 id} each, little-endian, in the order of the tags.
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "posix_util.h"

namespace holdfast::replica_tool {

struct Entry {
  uint16_t tag;
  uint16_t permissions;
  uint32_t id;
};
static constexpr uint16_t user_owner = 1, user_named = 2, group_owner = 4, group_named = 8;
static constexpr uint16_t mask_entry = 16, others = 32;
static constexpr uint32_t nobody = 0xffffffff;
static constexpr const char* access_acl = "system.posix_acl_access";
static constexpr const char* default_acl = "system.posix_acl_default";

static std::string encoded(const std::vector<Entry>& entries) {
  std::string out("\x02\0\0\0", 4);
  for (const Entry& entry : entries) {
    out.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
  }
  return out;
}

static long set(const char* file, const char* which, const std::vector<Entry>& entries) {
  const std::string value = encoded(entries);
  return setxattr(file, which, value.data(), value.size(), 0);
}

static std::string show(const char* file, const char* which) {
  std::string raw(4096, '\0');
  const ssize_t got = getxattr(file, which, raw.data(), raw.size());
  if (got < 0) return error_name(errno);
  std::string out;
  for (size_t at = 4; at + sizeof(Entry) <= static_cast<size_t>(got); at += sizeof(Entry)) {
    Entry entry{};
    std::memcpy(&entry, raw.data() + at, sizeof(entry));
    out += std::to_string(entry.tag) + ":";
    if (entry.id != nobody) out += std::to_string(entry.id);
    out += ":" + std::to_string(entry.permissions) + " ";
  }
  return out;
}

static std::vector<Entry> for_alice(uint16_t permissions, uint16_t mask) {
  return {{user_owner, 6, nobody},
          {user_named, permissions, alice},
          {group_owner, 4, nobody},
          {mask_entry, mask, nobody},
          {others, 0, nobody}};
}

static void access_lists(Table& t) {
  make("f", 0640, "x");
  t.is("none at first", show("f", access_acl));
  t.did("set", set("f", access_acl, for_alice(6, 7)));
  t.is("comes back", show("f", access_acl));
  t.is("the mask is in the mode", mode_of("f"));
  t.as(alice, staff, {}, [&] {
    t.did("alice writes", shut(open("f", O_RDWR)));
    t.did("access says so", access("f", W_OK));
  });
  t.as(bob, staff, {}, [&] { t.did("bob does not read", shut(open("f", O_RDONLY))); });
  t.did("chmod 0600", chmod("f", 0600));
  t.is("clears the mask", show("f", access_acl));
  t.as(alice, staff, {}, [&] { t.did("alice reads no more", shut(open("f", O_RDONLY))); });
  t.did("chmod 0640", chmod("f", 0640));
  t.as(alice, staff, {}, [&] {
    t.did("alice reads again", shut(open("f", O_RDONLY)));
    t.did("but does not write", shut(open("f", O_RDWR)));
    t.did("alice sets no ACL", set("f", access_acl, for_alice(7, 7)));
  });
  t.did("an ACL as the mode says",
        set("f", access_acl,
            {{user_owner, 7, nobody}, {group_owner, 5, nobody}, {others, 1, nobody}}));
  t.is("is the mode", mode_of("f"));
  t.is("and no ACL", show("f", access_acl));
  t.did("set again", set("f", access_acl, for_alice(4, 4)));
  t.did("remove", removexattr("f", access_acl));
  t.is("leaves the mode", mode_of("f"));
  t.did("remove none", removexattr("f", access_acl));
  t.did("without an owner", set("f", access_acl, {{others, 1, nobody}}));
  t.did("named without a mask", set("f", access_acl,
                                    {{user_owner, 6, nobody},
                                     {user_named, 4, alice},
                                     {group_owner, 4, nobody},
                                     {others, 0, nobody}}));
  t.did("garbage", setxattr("f", access_acl, "garbage", 7, 0));
  t.did("default ACL of a file", set("f", default_acl, for_alice(6, 7)));
  t.did("group entry", set("f", access_acl,
                           {{user_owner, 6, nobody},
                            {group_owner, 0, nobody},
                            {group_named, 4, guests},
                            {mask_entry, 4, nobody},
                            {others, 0, nobody}}));
  t.as(bob, staff, {guests}, [&] { t.did("a named group reads", shut(open("f", O_RDONLY))); });
  t.as(bob, staff, {}, [&] { t.did("without the group not", shut(open("f", O_RDONLY))); });
  require(symlink("f", "s") == 0, "s");
  t.did("of a symbolic link", lsetxattr("s", access_acl, "x", 1, 0));
  t.did("link", link("f", "f2"));
  t.is("link has it", show("f2", access_acl));
  t.did("rename", rename("f", "f3"));
  t.is("rename keeps it", show("f3", access_acl));
}

static void defaults(Table& t) {
  require(mkdir("d", 0755) == 0, "d");
  t.did("default ACL", set("d", default_acl, for_alice(7, 7)));
  t.is("default comes back", show("d", default_acl));
  t.is("the directory's mode stays", mode_of("d"));
  umask(077);
  make("d/f");
  t.is("a made file's ACL", show("d/f", access_acl));
  t.did("create", shut(open("d/g", O_CREAT | O_RDWR, 0666)));
  t.is("inherits without umask", mode_of("d/g"));
  t.is("its ACL", show("d/g", access_acl));
  t.did("create 0600", shut(open("d/h", O_CREAT | O_RDWR, 0600)));
  t.is("mode and mask", mode_of("d/h") + " " + show("d/h", access_acl));
  t.did("mkdir", mkdir("d/sub", 0777));
  t.is("inherits the access ACL", show("d/sub", access_acl));
  t.is("and the default ACL", show("d/sub", default_acl));
  t.is("its mode", mode_of("d/sub"));
  t.did("mkfifo", mkfifo("d/p", 0666));
  t.is("fifo's ACL", show("d/p", access_acl));
  t.is("fifo's mode", mode_of("d/p"));
  t.did("mknod", mknod("d/n", S_IFREG | 0666, 0));
  t.is("mknod's mode", mode_of("d/n"));
  t.did("symlink", symlink("x", "d/s"));
  const Fd fd(open("d", O_TMPFILE | O_RDWR, 0666));
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  t.did("O_TMPFILE", fd.get());
  t.did("gets a name", linkat(AT_FDCWD, path.c_str(), AT_FDCWD, "d/t", AT_SYMLINK_FOLLOW));
  t.is("O_TMPFILE's ACL", show("d/t", access_acl));
  t.did("deeper", shut(open("d/sub/x", O_CREAT | O_RDWR, 0666)));
  t.is("inherits as well", show("d/sub/x", access_acl));
  umask(022);
  t.did("rename out", rename("d/g", "g"));
  t.is("keeps what it inherited", show("g", access_acl));
  make("plain", 0644);
  t.did("rename in", rename("plain", "d/plain"));
  t.is("does not inherit", show("d/plain", access_acl));
  t.did("remove the default", removexattr("d", default_acl));
  t.did("create afterwards", shut(open("d/z", O_CREAT | O_RDWR, 0666)));
  t.is("umask counts again", mode_of("d/z"));
}

void posix_acl(Table& t) {
  access_lists(t);
  defaults(t);
}

}  // namespace holdfast::replica_tool
