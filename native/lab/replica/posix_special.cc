// Fifos, sockets, devices, and mknod's umask.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "posix_util.h"

namespace holdfast::replica_tool {

static void fifos(Table& t) {
  t.did("mkfifo", mkfifo("fifo", 0666));
  t.is("umask holds", mode_of("fifo"));
  t.truth("is a fifo", S_ISFIFO(stat_of("fifo").st_mode));
  t.did("mkfifo over it", mkfifo("fifo", 0666));
  t.did("write end without a reader", shut(open("fifo", O_WRONLY | O_NONBLOCK)));
  const Fd reader(open("fifo", O_RDONLY | O_NONBLOCK));
  t.did("read end", reader.get());
  const Fd writer(open("fifo", O_WRONLY | O_NONBLOCK));
  t.did("write end", writer.get());
  t.number("write", write(writer.get(), "through", 7));
  char buffer[16] = {};
  t.number("read", read(reader.get(), buffer, sizeof(buffer)));
  t.is("what came through", buffer);
  t.did("seek in a fifo", lseek(reader.get(), 0, SEEK_SET));
  t.did("truncate a fifo", truncate("fifo", 0));
  t.did("rename a fifo", rename("fifo", "fifo2"));
  t.did("link a fifo", link("fifo2", "fifo3"));
  t.number("its links", static_cast<long>(stat_of("fifo3").st_nlink));
  t.did("chmod a fifo", chmod("fifo2", 0600));
  t.is("through its other name", mode_of("fifo3"));
  t.did("unlink a fifo", unlink("fifo2"));
}

static void sockets(Table& t) {
  const Fd server(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "socket");
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  t.did("bind", bind(server.get(), to, sizeof(address)));
  t.truth("is a socket", S_ISSOCK(stat_of("socket").st_mode));
  t.is("its mode", mode_of("socket"));
  t.did("bind again", bind(Fd(socket(AF_UNIX, SOCK_STREAM, 0)).get(), to, sizeof(address)));
  t.did("listen", listen(server.get(), 1));
  const Fd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  t.did("connect", connect(client.get(), to, sizeof(address)));
  t.did("open of a socket", shut(open("socket", O_RDWR)));
  t.did("mknod of a socket", mknod("socket2", S_IFSOCK | 0644, 0));
  t.truth("is a socket too", S_ISSOCK(stat_of("socket2").st_mode));
  t.did("rename of a socket", rename("socket", "socket3"));
  t.did("unlink of a socket", unlink("socket3"));
}

static void devices(Table& t) {
  t.did("mknod of a character device", mknod("null", S_IFCHR | 0666, makedev(1, 3)));
  t.truth("is a character device", S_ISCHR(stat_of("null").st_mode));
  t.number("its number", static_cast<long long>(stat_of("null").st_rdev));
  t.is("mode of the device", mode_of("null"));
  t.did("mknod of a block device", mknod("block", S_IFBLK | 0600, makedev(259, 70000)));
  t.truth("is a block device", S_ISBLK(stat_of("block").st_mode));
  t.number("its large number", static_cast<long long>(stat_of("block").st_rdev));
  t.did("mknod of a regular file", mknod("regular", S_IFREG | 0666, 0));
  t.is("its umask", mode_of("regular"));
  t.did("mknod without a type", mknod("untyped", 0666, 0));
  t.truth("is a regular file", S_ISREG(stat_of("untyped").st_mode));
  t.did("mknod of a directory", mknod("directory", S_IFDIR | 0755, 0));
  t.did("mknod of a link", mknod("link", S_IFLNK | 0755, 0));
  t.did("mknod over a file", mknod("regular", S_IFREG | 0666, 0));
  umask(0);
  t.did("mknod without umask", mknod("free", S_IFREG | 0666, 0));
  t.is("keeps all bits", mode_of("free"));
  t.did("mknod 06777", mknod("special", S_IFREG | 06777, 0));
  t.is("keeps special bits", mode_of("special"));
  umask(022);
  t.did("chown of a device", chown("null", alice, staff));
  t.number("its owner", stat_of("null").st_uid);
  t.did("link of a device", link("null", "null2"));
  t.did("rename of a device", rename("null2", "null3"));
  t.did("utimensat of a device", utimensat(AT_FDCWD, "null", nullptr, 0));
  t.did("unlink of a device", unlink("null"));
  t.number("one left", static_cast<long>(stat_of("null3").st_nlink));
}

void posix_special(Table& t) {
  fifos(t);
  sockets(t);
  devices(t);
}

}  // namespace holdfast::replica_tool
