// replica_tool pull DIR: ends the file system of DIR as a loss of power does: nothing that is not
// on its disk gets there any more, its journal included. Afterwards it can only be unmounted;
// mounting it again recovers it. ext4 and xfs only (ext4(5), the ioctl that xfstests calls godown).
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdint>

#include "tool.h"

namespace holdfast::replica_tool {

int run_pull(const Args& args) {
  // linux/fs.h has neither before 6.12: FS_IOC_SHUTDOWN and FS_SHUTDOWN_FLAGS_NOLOGFLUSH.
  constexpr unsigned long shut_down = _IOR('X', 125, uint32_t);
  uint32_t without_flushing_the_log = 2;
  const Options options = parse_options(args, {}, 1);
  const Fd fd(open(options.words[0].c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  require(fd.valid(), options.words[0]);
  require(ioctl(fd.get(), shut_down, &without_flushing_the_log) == 0, "FS_IOC_SHUTDOWN");
  return 0;
}

}  // namespace holdfast::replica_tool
