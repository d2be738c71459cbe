// Shared and private mappings beside read and write.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "posix_util.h"

namespace holdfast::replica_tool {

static constexpr size_t page = 4096;

static void shared(Table& t) {
  make("m", 0644, std::string(3 * page, 'm'));
  const Fd fd(open("m", O_RDWR));
  void* memory = mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  t.did("shared mapping", memory == MAP_FAILED ? -1 : 0);
  if (memory == MAP_FAILED) return;
  char* bytes = static_cast<char*>(memory);
  std::memcpy(bytes + 10, "stored", 6);
  t.is("a store is read", bytes_at(fd.get(), 8, 10));
  t.is("by another descriptor", bytes_at(Fd(open("m", O_RDONLY)).get(), 8, 10));
  t.number("write", pwrite(fd.get(), "written", 7, page));
  t.is("is loaded", std::string(bytes + page, 8));
  t.did("msync", msync(memory, 3 * page, MS_SYNC));
  t.did("msync, later", msync(memory, page, MS_ASYNC));
  t.number("a child stores", in_child([&] {
             bytes[2 * page] = 'C';
             return 0;
           }));
  t.is("its store is read", bytes_at(fd.get(), 2 * page, 2));
  t.number("a child writes", in_child([&] {
             const Fd own(open("m", O_WRONLY));
             return pwrite(own.get(), "W", 1, 2 * page + 1) == 1 ? 0 : 1;
           }));
  t.is("its write is loaded", std::string(bytes + 2 * page, 3));
  require(ftruncate(fd.get(), page + 100) == 0, "ftruncate");
  t.is("zero behind the new end",
       std::string(bytes + page + 100, 2) == std::string(2, '\0') ? "zero" : "not zero");
  t.number("SIGBUS behind the last page", in_child([&] {
             signal(SIGBUS, [](int) { _exit(7); });
             return *const_cast<volatile char*>(bytes + 2 * page) == 'C' ? 1 : 2;
           }));
  require(ftruncate(fd.get(), 3 * page) == 0, "ftruncate");
  t.truth("zeros when it grows again", bytes[2 * page] == '\0' && bytes[page + 200] == '\0');
  std::memset(bytes, 'Z', 10);
  t.did("unmapped without msync", munmap(memory, 3 * page));
  t.is("the store stays", bytes_at(fd.get(), 0, 4));
  t.did("fsync afterwards", fsync(fd.get()));
}

static void others(Table& t) {
  make("p", 0644, std::string(page, 'p'));
  const Fd fd(open("p", O_RDWR)), read_only(open("p", O_RDONLY)), write_only(open("p", O_WRONLY));
  void* memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, read_only.get(), 0);
  t.did("private mapping", memory == MAP_FAILED ? -1 : 0);
  std::memcpy(memory, "private", 7);
  t.is("is not seen by others", bytes_at(fd.get(), 0, 7));
  munmap(memory, page);
  const auto tries = [](int protection, int flags, int file, off_t offset) -> long {
    void* at = mmap(nullptr, page, protection, flags, file, offset);
    if (at == MAP_FAILED) return -1;
    munmap(at, page);
    return 0;
  };
  t.did("shared, writable, of O_RDONLY",
        tries(PROT_READ | PROT_WRITE, MAP_SHARED, read_only.get(), 0));
  t.did("of O_WRONLY", tries(PROT_READ, MAP_SHARED, write_only.get(), 0));
  t.did("at no page", tries(PROT_READ, MAP_SHARED, fd.get(), 100));
  t.did("to run", tries(PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.get(), 0));
  memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  require(memory != MAP_FAILED, "mmap");
  require(unlink("p") == 0, "unlink");
  static_cast<char*>(memory)[0] = 'U';
  t.is("of a file without a name", bytes_at(fd.get(), 0, 2));
  t.did("msync of it", msync(memory, page, MS_SYNC));
  munmap(memory, page);
  const Fd direct(open("x", O_CREAT | O_RDWR | O_DIRECT, 0644));
  require(ftruncate(direct.get(), page) == 0, "ftruncate");
  memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, direct.get(), 0);
  t.did("of an O_DIRECT file", memory == MAP_FAILED ? -1 : 0);
  if (memory == MAP_FAILED) return;
  alignas(4096) static char block[page];
  std::memset(block, 'D', page);
  t.number("direct write under a mapping", pwrite(direct.get(), block, page, 0));
  t.is("direct write is loaded", std::string(static_cast<char*>(memory), 2));
  static_cast<char*>(memory)[1] = 'S';
  t.number("direct read after a store", pread(direct.get(), block, page, 0));
  t.is("sees it", std::string(block, 3));
  munmap(memory, page);
  const Fd sparse(open("sparse", O_CREAT | O_RDWR, 0644));
  require(ftruncate(sparse.get(), 100 * page) == 0, "ftruncate");
  memory = mmap(nullptr, 100 * page, PROT_READ | PROT_WRITE, MAP_SHARED, sparse.get(), 0);
  require(memory != MAP_FAILED, "mmap");
  static_cast<char*>(memory)[50 * page] = 'h';
  t.did("a store into a hole", msync(memory, 100 * page, MS_SYNC));
  munmap(memory, 100 * page);
  t.number("is data", lseek(sparse.get(), 0, SEEK_DATA));
  t.truth("of few blocks", stat_of("sparse").st_blocks <= 16);
}

// Times that a mapping moves: at the latest at msync.
static void times(Table& t) {
  make("t", 0644, std::string(page, 't'));
  const Fd fd(open("t", O_RDWR));
  void* memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  require(memory != MAP_FAILED, "mmap");
  t.is("a store and msync", moved("t", [&] {
         static_cast<char*>(memory)[0] = 'T';
         msync(memory, page, MS_SYNC);
       }));
  t.is("msync of nothing", moved("t", [&] { msync(memory, page, MS_SYNC); }));
  munmap(memory, page);
}

void posix_map(Table& t) {
  shared(t);
  others(t);
  times(t);
}

}  // namespace holdfast::replica_tool
