// Reading, writing, sizes, holes, durability.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "posix_util.h"

namespace holdfast::replica_tool {

static void appends(Table& t) {
  make("log", 0644, "123");
  const Fd one(open("log", O_WRONLY | O_APPEND)), two(open("log", O_RDWR | O_APPEND));
  t.number("append", write(one.get(), "4", 1));
  t.number("append by another", write(two.get(), "5", 1));
  t.number("position after it", lseek(two.get(), 0, SEEK_CUR));
  t.number("append after a seek", (lseek(one.get(), 0, SEEK_SET), write(one.get(), "6", 1)));
  t.number("pwrite with O_APPEND appends", pwrite(one.get(), "7", 1, 0));
  t.is("in order", content_of("log"));
  t.did("truncate below the end", truncate("log", 2));
  t.number("append after it", write(one.get(), "8", 1));
  t.is("at the new end", content_of("log"));
  t.did("O_APPEND taken away", fcntl(one.get(), F_SETFL, 0));
  t.number("pwrite at 0", pwrite(one.get(), "9", 1, 0));
  t.is("overwrites", content_of("log"));
  t.did("O_APPEND given", fcntl(one.get(), F_SETFL, O_APPEND));
  t.number("appends again", pwrite(one.get(), "0", 1, 0));
  t.is("at the end", content_of("log"));
  const Fd plain(open("log", O_RDWR));
  iovec part{const_cast<char*>("A"), 1};
  t.number("RWF_APPEND", pwritev2(plain.get(), &part, 1, 0, RWF_APPEND));
  t.is("appends too", content_of("log"));
  iovec parts[2] = {{const_cast<char*>("xy"), 2}, {const_cast<char*>("z"), 1}};
  t.number("pwritev", pwritev(plain.get(), parts, 2, 1));
  t.is("vector", content_of("log"));
}

static void sizes(Table& t) {
  make("s", 0644, "0123456789");
  const Fd fd(open("s", O_RDWR));
  t.did("shrink", ftruncate(fd.get(), 4));
  t.did("grow", ftruncate(fd.get(), 8));
  t.is("zeros in between", bytes_at(fd.get(), 0, 100));
  t.number("write behind the end", pwrite(fd.get(), "e", 1, 12));
  t.is("more zeros", bytes_at(fd.get(), 0, 100));
  t.did("grow within a block", ftruncate(fd.get(), 5000));
  t.did("shrink within a block", ftruncate(fd.get(), 6));
  t.did("grow over it", ftruncate(fd.get(), 14));
  t.is("nothing comes back", bytes_at(fd.get(), 0, 100));
  t.number("write over the end", pwrite(fd.get(), "tail", 4, 12));
  t.number("size", stat_of("s").st_size);
  const off_t large = 1LL << 40;
  t.did("grow to a TiB", ftruncate(fd.get(), large));
  t.truth("size of a TiB", stat_of("s").st_size == large);
  t.truth("few blocks", stat_of("s").st_blocks < 100);
  t.number("write at a TiB", pwrite(fd.get(), "end", 3, large));
  t.is("is there", bytes_at(fd.get(), large - 2, 10));
  t.did("beyond the largest size", ftruncate(fd.get(), 1LL << 62));
  t.did("write beyond the largest size", pwrite(fd.get(), "x", 1, 1LL << 62));
  t.did("back to nothing", ftruncate(fd.get(), 0));
  t.number("no blocks", stat_of("s").st_blocks);
  std::string large_data(3 * 1024 * 1024 + 17, '\0');
  fill(large_data.data(), large_data.size(), 7);
  t.number("a write of 3 MiB", write(fd.get(), large_data.data(), large_data.size()));
  t.truth("reads back", content_of("s") == large_data);
  void* closed = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  t.did("a bad buffer", write(fd.get(), closed, 10));
  t.did("a bad buffer to read to", pread(fd.get(), closed, 10, 0));
  munmap(closed, 4096);
  t.truth("size is as it was", stat_of("s").st_size == static_cast<off_t>(large_data.size()));
}

static void copies(Table& t) {
  std::string data(100'000, '\0');
  fill(data.data(), data.size(), 9);
  make("from", 0644, data);
  make("to", 0644, "");
  const Fd from(open("from", O_RDWR)), to(open("to", O_RDWR));
  off_t in = 10, out = 5;
  t.number("copy_file_range", copy_file_range(from.get(), &in, to.get(), &out, 50'000, 0));
  t.truth("offsets move", in == 50'010 && out == 50'005);
  const std::string copied = content_of("to");
  t.truth("bytes are copied",
          copied.size() == 50'005 && copied.substr(5) == data.substr(10, 50'000));
  in = 99'000;
  out = 0;
  t.number("short at the end", copy_file_range(from.get(), &in, to.get(), &out, 50'000, 0));
  in = 200'000;
  t.number("none behind the end", copy_file_range(from.get(), &in, to.get(), &out, 10, 0));
  in = 0;
  out = 60'000;
  t.number("within one file", copy_file_range(from.get(), &in, from.get(), &out, 1'000, 0));
  t.truth("took", content_of("from").substr(60'000, 1'000) == data.substr(0, 1'000));
  in = 0;
  out = 500;
  t.did("overlapping", copy_file_range(from.get(), &in, from.get(), &out, 1'000, 0));
  const Fd read_only(open("to", O_RDONLY)), append(open("to", O_WRONLY | O_APPEND));
  in = 0;
  t.did("to a read-only descriptor",
        copy_file_range(from.get(), &in, read_only.get(), &out, 10, 0));
  t.did("to O_APPEND", copy_file_range(from.get(), &in, append.get(), nullptr, 10, 0));
  t.did("with a flag", copy_file_range(from.get(), &in, to.get(), &out, 10, 1));
}

static void space(Table& t) {
  struct statfs before {};
  t.did("statfs", statfs(".", &before));
  t.truth("has blocks", before.f_blocks > 0 && before.f_bfree <= before.f_blocks);
  t.truth("has files", before.f_files > 0 && before.f_ffree <= before.f_files);
  t.number("longest name", before.f_namelen);
  struct statvfs vfs {};
  t.did("statvfs", statvfs(".", &vfs));
  t.truth("is not read-only", (vfs.f_flag & ST_RDONLY) == 0);
  t.truth("fragments are blocks", vfs.f_frsize == vfs.f_bsize);
  const Fd fd(open(".", O_RDONLY));
  t.did("fstatfs", fstatfs(fd.get(), &before));
}

void posix_content(Table& t) {
  appends(t);
  sizes(t);
  copies(t);
  space(t);
}

static void modes(Table& t) {
  make("a", 0644, std::string(16384, 'a'));
  const Fd fd(open("a", O_RDWR));
  const int file = fd.get();
  t.did("allocate", fallocate(file, 0, 16384, 16384));
  t.number("grows the file", stat_of("a").st_size);
  t.is("with zeros", bytes_at(file, 16382, 4));
  t.did("keep size", fallocate(file, FALLOC_FL_KEEP_SIZE, 32768, 65536));
  t.number("keeps the size", stat_of("a").st_size);
  t.truth("takes blocks", stat_of("a").st_blocks * 512 >= 65536);
  t.did("punch", fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
  t.is("edges of the hole", bytes_at(file, 4094, 4) + " " + bytes_at(file, 8190, 4));
  t.did("punch within a block",
        fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 10));
  t.is("is zero", bytes_at(file, 99, 12));
  t.did("punch behind the end",
        fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096));
  t.did("punch without keep size", fallocate(file, FALLOC_FL_PUNCH_HOLE, 0, 4096));
  t.did("zero range", fallocate(file, FALLOC_FL_ZERO_RANGE, 12000, 100));
  t.is("is zeros", bytes_at(file, 11999, 3) + " " + bytes_at(file, 12098, 4));
  t.did("zero range over the end", fallocate(file, FALLOC_FL_ZERO_RANGE, 32000, 10000));
  t.number("grows", stat_of("a").st_size);
  t.did("zero range, size kept",
        fallocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 42000, 10000));
  t.number("size stays", stat_of("a").st_size);
  t.did("length 0", fallocate(file, 0, 0, 0));
  t.did("negative offset", fallocate(file, 0, -1, 10));
  t.did("too large", fallocate(file, 0, 1LL << 62, 10));
  t.did("unknown mode", fallocate(file, 0x1000, 0, 10));
  t.did("collapse", fallocate(file, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
  t.did("insert", fallocate(file, FALLOC_FL_INSERT_RANGE, 0, 4096));
  t.did("posix_fallocate", (errno = posix_fallocate(file, 0, 100'000)) == 0 ? 0 : -1);
  t.number("size after it", stat_of("a").st_size);
  const Fd directory(open(".", O_RDONLY));
  t.did("of a directory", fallocate(directory.get(), 0, 0, 10));
}

static void holes(Table& t) {
  const Fd fd(open("h", O_CREAT | O_RDWR, 0644));
  const int file = fd.get();
  t.did("empty, SEEK_DATA", lseek(file, 0, SEEK_DATA));
  t.did("empty, SEEK_HOLE", lseek(file, 0, SEEK_HOLE));
  require(ftruncate(file, 1 << 20) == 0, "ftruncate");
  t.did("hole alone, SEEK_DATA", lseek(file, 0, SEEK_DATA));
  t.number("hole alone, SEEK_HOLE", lseek(file, 0, SEEK_HOLE));
  const std::string block(8192, 'd');
  require(pwrite(file, block.data(), block.size(), 65536) == 8192, "pwrite");
  t.number("next data", lseek(file, 0, SEEK_DATA));
  t.number("within data", lseek(file, 70000, SEEK_DATA));
  t.number("next hole", lseek(file, 65536, SEEK_HOLE));
  t.number("within a hole", lseek(file, 100, SEEK_HOLE));
  t.did("no more data", lseek(file, 80000, SEEK_DATA));
  t.did("behind the end, SEEK_HOLE", lseek(file, 1 << 21, SEEK_HOLE));
  t.did("behind the end, SEEK_DATA", lseek(file, 1 << 21, SEEK_DATA));
  t.did("negative", lseek(file, -1, SEEK_DATA));
  require(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096) == 0, "punch");
  t.number("data after a punch", lseek(file, 0, SEEK_DATA));
  require(pwrite(file, "x", 1, (1 << 20) - 1) == 1, "pwrite");
  t.number("the last hole is the end", lseek(file, (1 << 20) - 1, SEEK_HOLE));
}

void posix_allocate(Table& t) {
  modes(t);
  holes(t);
}

void posix_sync(Table& t) {
  alignas(4096) static char block[8192];
  std::memset(block, 'D', sizeof(block));
  const Fd direct(open("direct", O_CREAT | O_RDWR | O_DIRECT, 0644));
  t.did("O_DIRECT", direct.get());
  t.number("aligned write", pwrite(direct.get(), block, 4096, 0));
  t.number("aligned write of two blocks", pwrite(direct.get(), block, 8192, 4096));
  t.number("aligned read", pread(direct.get(), block, 8192, 0));
  t.number("read over the end", pread(direct.get(), block, 8192, 8192));
  t.number("size", stat_of("direct").st_size);
  const Fd cached(open("direct", O_RDWR));
  t.number("cached write", pwrite(cached.get(), "cached", 6, 4096));
  t.number("direct read after it", pread(direct.get(), block, 4096, 4096));
  t.is("sees it", std::string(block, 8));
  std::memset(block, 'E', 4096);
  t.number("direct write", pwrite(direct.get(), block, 4096, 4096));
  t.is("cached read sees it", bytes_at(cached.get(), 4094, 8));
  t.did("fsync of O_DIRECT", fsync(direct.get()));
  for (const auto& [name, flag] : {std::pair<const char*, int>{"O_DSYNC", O_DSYNC},
                                   {"O_SYNC", O_SYNC},
                                   {"O_DIRECT|O_DSYNC", O_DIRECT | O_DSYNC}}) {
    const Fd fd(open(name, O_CREAT | O_RDWR | flag, 0644));
    t.did(name, fd.get());
    t.number((std::string(name) + " write").c_str(), pwrite(fd.get(), block, 4096, 0));
    t.is((std::string(name) + " read").c_str(), bytes_at(cached.get(), 4096, 2));
    t.did((std::string(name) + " fdatasync").c_str(), fdatasync(fd.get()));
  }
  iovec part{block, 100};
  t.number("RWF_DSYNC", pwritev2(cached.get(), &part, 1, 10, RWF_DSYNC));
  t.number("RWF_SYNC", pwritev2(cached.get(), &part, 1, 10, RWF_SYNC));
  t.number("RWF_DSYNC|RWF_APPEND", pwritev2(cached.get(), &part, 1, 0, RWF_DSYNC | RWF_APPEND));
  t.number("size after it", stat_of("direct").st_size);
  t.did("unknown RWF", pwritev2(cached.get(), &part, 1, 10, 1 << 20));
  t.did("fsync", fsync(cached.get()));
  t.did("fdatasync", fdatasync(cached.get()));
  t.did("fsync again", fsync(cached.get()));
  t.did("syncfs", syncfs(cached.get()));
  t.did("sync_file_range", sync_file_range(cached.get(), 0, 4096, SYNC_FILE_RANGE_WRITE));
  t.did("posix_fadvise", posix_fadvise(cached.get(), 0, 0, POSIX_FADV_DONTNEED));
  t.is("content after DONTNEED", bytes_at(cached.get(), 0, 4));
  t.did("readahead", readahead(cached.get(), 0, 4096));
}

void posix_open_unlinked(Table& t) {
  make("gone", 0644, "content");
  const Fd fd(open("gone", O_RDWR));
  t.did("unlink while open", unlink("gone"));
  t.did("has no name", access("gone", F_OK));
  t.is("is read", bytes_at(fd.get(), 0, 100));
  t.number("is written", pwrite(fd.get(), "CON", 3, 0));
  t.is("is read again", bytes_at(fd.get(), 0, 100));
  struct stat attributes {};
  t.did("fstat", fstat(fd.get(), &attributes));
  t.number("links", static_cast<long>(attributes.st_nlink));
  t.number("size", attributes.st_size);
  t.did("ftruncate", ftruncate(fd.get(), 3));
  t.did("fchmod", fchmod(fd.get(), 0600));
  t.did("fchown", fchown(fd.get(), alice, staff));
  t.did("fallocate", fallocate(fd.get(), 0, 0, 8192));
  t.did("futimens", futimens(fd.get(), nullptr));
  t.did("fsync", fsync(fd.get()));
  require(fstat(fd.get(), &attributes) == 0, "fstat");
  t.number("size afterwards", attributes.st_size);
  t.number("owner afterwards", attributes.st_uid);
  make("gone", 0644, "new one");
  t.is("a new file of the name", content_of("gone"));
  t.is("is another", bytes_at(fd.get(), 0, 3));
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  const Fd again(open(path.c_str(), O_RDWR));
  t.did("opened again by its descriptor", again.get());
  t.is("the same content", bytes_at(again.get(), 0, 3));
  t.did("a name for what has none",
        linkat(AT_FDCWD, path.c_str(), AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
  const Fd replaced(open("gone", O_RDWR));
  make("other", 0644, "other");
  t.did("renamed over while open", rename("other", "gone"));
  t.is("the replaced is read", bytes_at(replaced.get(), 0, 100));
  t.did("the replaced is synced", fsync(replaced.get()));
  require(link("gone", "gone2") == 0, "link");
  const Fd two(open("gone2", O_RDWR));
  require(unlink("gone2") == 0, "unlink");
  t.number("written after one of two names went", pwrite(two.get(), "O", 1, 0));
  t.is("is seen at the other", content_of("gone"));
}

}  // namespace holdfast::replica_tool
