// Permissions: modes as other users see them, sticky and setgid directories, and what clears the
// setuid and setgid bits.
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "posix_util.h"

namespace holdfast::replica_tool {

static void own(const char* name, uid_t uid, gid_t gid) {
  require(lchown(name, uid, gid) == 0, std::string("chown ") + name);
}

static void by_others(Table& t) {
  t.did("owner reads", shut(open("private", O_RDONLY)));
  t.did("group member reads 0640", shut(open("group", O_RDONLY)));
  t.did("group member writes 0640", shut(open("group", O_WRONLY)));
  t.did("access R_OK 0640", access("group", R_OK));
  t.did("access W_OK 0640", access("group", W_OK));
  t.did("access X_OK 0640", access("group", X_OK));
  t.did("write-only file is written", shut(open("drop", O_WRONLY)));
  t.did("write-only file is not read", shut(open("drop", O_RDONLY)));
  t.did("stat in a closed directory", access("closed/file", F_OK));
  t.did("stat in a directory of x alone", access("pass/file", F_OK));
  t.did("listing a directory of x alone", shut(open("pass", O_RDONLY | O_DIRECTORY)));
  t.did("listing a directory of r alone", shut(open("list", O_RDONLY | O_DIRECTORY)));
  t.did("stat in a directory of r alone", access("list/file", F_OK));
  t.did("create in a directory of r-x", shut(open("fixed/new", O_CREAT | O_RDWR, 0644)));
  t.did("mkdir in a directory of r-x", mkdir("fixed/new", 0755));
  t.did("unlink in a directory of r-x", unlink("fixed/file"));
  t.did("rename out of a directory of r-x", rename("fixed/file", "stolen"));
  t.did("rename into a directory of r-x", rename("mine", "fixed/mine"));
  t.did("link into a directory of r-x", link("mine", "fixed/mine"));
  t.did("symlink into a directory of r-x", symlink("mine", "fixed/mine"));
  t.did("chmod of another's file", chmod("private", 0777));
  t.did("chown of another's file", chown("private", alice, staff));
  t.did("chown of the own file", chown("mine", bob, static_cast<gid_t>(-1)));
  t.did("chgrp of the own file to an own group", chown("mine", alice, guests));
  t.did("chgrp of the own file to another group", chown("mine", alice, 14000));
  t.did("truncate of another's file", truncate("group", 0));
  t.did("O_NOATIME of another's file", shut(open("group", O_RDONLY | O_NOATIME)));
  t.did("O_NOATIME of the own file", shut(open("mine", O_RDONLY | O_NOATIME)));
  t.did("utimensat of another's file", utimensat(AT_FDCWD, "group", nullptr, 0));
  t.did("utimensat now of a writable file", utimensat(AT_FDCWD, "drop", nullptr, 0));
  const timespec fixed[2] = {{1, 0}, {1, 0}};
  t.did("utimensat to a time of a writable file", utimensat(AT_FDCWD, "drop", fixed, 0));
  t.did("mknod of a device", mknod("device", S_IFCHR | 0600, 0x103));
  t.did("mkfifo", mkfifo("fifo", 0600));
  t.did("setting trusted.*", setxattr("mine", "trusted.x", "1", 1, 0));
  t.did("setting user.* of a file to read", setxattr("group", "user.x", "1", 1, 0));
  t.did("linking another's unreadable file", link("private", "private-link"));
}

static void modes_by_owner(Table& t) {
  t.did("chmod", chmod("mine", 0600));
  t.is("chmod took", mode_of("mine"));
  t.did("chmod 02755 in an own group", chmod("mine", 02755));
  t.is("setgid of an own group", mode_of("mine"));
  t.did("chmod 02755 in another group", chmod("strange-group", 02755));
  t.is("setgid of another group is dropped", mode_of("strange-group"));
  t.did("chmod 04755", chmod("mine", 04755));
  t.is("setuid", mode_of("mine"));
  t.did("chmod 01644 of a file", chmod("mine", 01644));
  t.is("sticky file", mode_of("mine"));
  t.did("create in an open directory", shut(open("born", O_CREAT | O_RDWR, 0644)));
  t.truth("is the creator's", stat_of("born").st_uid == alice && stat_of("born").st_gid == staff);
  t.did("create in a setgid directory", shut(open("setgid/born", O_CREAT | O_RDWR, 02775)));
  t.number("has the directory's group", static_cast<long>(stat_of("setgid/born").st_gid));
  t.is("and no setgid of a group that is not its own", mode_of("setgid/born"));
  t.did("mkdir in a setgid directory", mkdir("setgid/dir", 0755));
  t.is("inherits the bit", mode_of("setgid/dir"));
  t.number("and the group", static_cast<long>(stat_of("setgid/dir").st_gid));
  t.did("symlink in a setgid directory", symlink("x", "setgid/sym"));
  t.number("symlink has the group", static_cast<long>(stat_of("setgid/sym").st_gid));
  t.did("mkfifo in a setgid directory", mkfifo("setgid/fifo", 0644));
  t.number("fifo has the group", static_cast<long>(stat_of("setgid/fifo").st_gid));
  t.did("own file without r is not read", shut(open("blind", O_RDONLY)));
  t.did("own file 0000 gets its mode back", chmod("blind", 0600));
  t.did("and is read", shut(open("blind", O_RDONLY)));
  t.did("group is asked before others", shut(open("not-group", O_RDONLY)));
}

void posix_access(Table& t) {
  make("private", 0600);
  make("group", 0640);
  own("group", 0, staff);
  make("drop", 0622);
  make("mine", 0644);
  own("mine", alice, staff);
  make("strange-group", 0644);
  own("strange-group", alice, 14000);
  make("blind", 0000);
  own("blind", alice, staff);
  make("not-group", 0604);
  own("not-group", 0, staff);
  for (const auto& [name, mode] : {std::pair<const char*, mode_t>{"closed", 0700},
                                   {"pass", 0711},
                                   {"list", 0744},
                                   {"fixed", 0755},
                                   {"setgid", 02777}}) {
    require(mkdir(name, 0755) == 0, name);
    make(std::string(name) + "/file");
    require(chmod(name, mode) == 0, name);
  }
  own("setgid", 0, 14000);
  require(chmod("setgid", 02777) == 0, "setgid");
  t.as(alice, staff, {staff, guests}, [&] { by_others(t); });
  own("mine", alice, staff);
  t.as(alice, staff, {staff, guests}, [&] { modes_by_owner(t); });
  t.did("root reads mode 0000", shut(open("private", O_RDONLY)));
  t.did("root does not run what has no x", access("private", X_OK));
  t.did("root creates with setgid in a setgid directory",
        shut(open("setgid/root", O_CREAT | O_RDWR, 02775)));
  t.is("and keeps it", mode_of("setgid/root"));
}

void posix_sticky(Table& t) {
  require(mkdir("sticky", 0777) == 0 && chmod("sticky", 01777) == 0, "sticky");
  make("sticky/alice", 0666);
  own("sticky/alice", alice, staff);
  make("sticky/bob", 0666);
  own("sticky/bob", bob, staff);
  require(mkdir("sticky/bobs", 0777) == 0 && chmod("sticky/bobs", 0777) == 0, "bobs");
  own("sticky/bobs", bob, staff);
  t.as(alice, staff, {}, [&] {
    t.did("unlink another's", unlink("sticky/bob"));
    t.did("rename another's", rename("sticky/bob", "sticky/x"));
    t.did("rename another's out", rename("sticky/bob", "x"));
    t.did("rename over another's", rename("sticky/alice", "sticky/bob"));
    t.did("rmdir another's", rmdir("sticky/bobs"));
    t.did("link another's writable file", link("sticky/bob", "sticky/bob2"));
    t.did("write another's", shut(open("sticky/bob", O_WRONLY)));
    t.did("rename the own", rename("sticky/alice", "sticky/alice2"));
    t.did("unlink the own", unlink("sticky/alice2"));
  });
  t.as(bob, staff, {}, [&] {
    t.did("owner removes the directory", rmdir("sticky/bobs"));
    t.did("owner removes the file", unlink("sticky/bob"));
  });
  own("sticky", alice, staff);
  require(chmod("sticky", 01777) == 0, "chmod");
  make("sticky/bob", 0644);
  own("sticky/bob", bob, staff);
  t.as(alice, staff, {},
       [&] { t.did("the directory's owner removes another's", unlink("sticky/bob")); });
}

static std::string after(mode_t mode, const std::function<void()>& action) {
  unlink("bits");
  make("bits", 0644, "0123456789");
  own("bits", alice, staff);
  require(chmod("bits", mode) == 0, "bits");
  action();
  return mode_of("bits");
}

// What each action leaves of the bits when alice, without any capability, does it.
static std::string by_alice(mode_t mode, const std::function<void()>& action) {
  return after(mode, [&] {
    in_child([&] {
      if (setresgid(staff, staff, staff) != 0 || setresuid(alice, alice, alice) != 0) return 1;
      action();
      return 0;
    });
  });
}

void posix_killpriv(Table& t) {
  const auto write_it = [] {
    const Fd fd(open("bits", O_WRONLY));
    if (pwrite(fd.get(), "x", 1, 0) != 1) errno = EIO;
  };
  const auto truncate_it = [] { static_cast<void>(!truncate("bits", 3)); };
  const auto open_it = [] { shut(open("bits", O_WRONLY | O_TRUNC)); };
  const auto allocate_it = [] {
    const Fd fd(open("bits", O_WRONLY));
    fallocate(fd.get(), 0, 0, 100);
  };
  const auto direct_it = [] {
    alignas(4096) static char block[4096];
    const Fd fd(open("bits", O_WRONLY | O_DIRECT));
    static_cast<void>(!pwrite(fd.get(), block, sizeof(block), 0));
  };
  const auto chown_it = [] { static_cast<void>(!chown("bits", alice, staff)); };
  const auto chgrp_it = [] { static_cast<void>(!chown("bits", static_cast<uid_t>(-1), guests)); };
  const auto nothing = [] {
    static_cast<void>(!chown("bits", static_cast<uid_t>(-1), static_cast<gid_t>(-1)));
  };
  for (const mode_t mode : {04755u, 06755u, 02755u, 02745u}) {
    const std::string text = std::to_string(mode >> 9) + std::to_string(mode >> 6 & 7) +
                             std::to_string(mode >> 3 & 7) + std::to_string(mode & 7);
    t.is(("write " + text).c_str(), by_alice(mode, write_it));
    t.is(("truncate " + text).c_str(), by_alice(mode, truncate_it));
    t.is(("O_TRUNC " + text).c_str(), by_alice(mode, open_it));
    t.is(("fallocate " + text).c_str(), by_alice(mode, allocate_it));
    t.is(("O_DIRECT write " + text).c_str(), by_alice(mode, direct_it));
    t.is(("chown " + text).c_str(), by_alice(mode, chown_it));
    t.is(("chown of nothing " + text).c_str(), by_alice(mode, nothing));
    t.is(("write by root " + text).c_str(), after(mode, write_it));
    t.is(("truncate by root " + text).c_str(), after(mode, truncate_it));
    t.is(("chown by root " + text).c_str(), after(mode, chown_it));
    t.is(("chgrp by root " + text).c_str(), after(mode, chgrp_it));
  }
  require(mkdir("folder", 0755) == 0 && chmod("folder", 06755) == 0, "folder");
  t.did("chown of a directory", chown("folder", alice, staff));
  t.is("keeps its bits", mode_of("folder"));
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 4};  // VFS_CAP_REVISION_2, effective
  make("cap", 0755, "x");
  t.did("file capability", setxattr("cap", "security.capability", capability, 20, 0));
  char value[64];
  t.number("is there", getxattr("cap", "security.capability", value, sizeof(value)));
  const Fd fd(open("cap", O_WRONLY));
  t.number("write to it", pwrite(fd.get(), "y", 1, 0));
  t.did("write removes it", getxattr("cap", "security.capability", value, sizeof(value)));
  t.did("file capability again", setxattr("cap", "security.capability", capability, 20, 0));
  t.did("chown of it", chown("cap", alice, staff));
  t.did("chown removes it", getxattr("cap", "security.capability", value, sizeof(value)));
}

}  // namespace holdfast::replica_tool
