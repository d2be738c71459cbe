#pragma once
#include <linux/fuse.h>

#include <cstdint>

/**
 * The FUSE protocol, as linux/fuse.h has it, and what is newer than the header of the oldest
 * system that this is built on (7.38). Source: include/uapi/linux/fuse.h of Linux 6.18.
 */
namespace holdfast::replica {

inline constexpr uint64_t fuse_has_resend = 1ULL << 39;     // 7.40
inline constexpr uint64_t fuse_unique_resend = 1ULL << 63;  // 7.40: of a request sent again
inline constexpr int32_t fuse_notify_resend = 7;
inline constexpr uint32_t fuse_op_tmpfile = 51;             // 7.37
inline constexpr uint32_t fuse_op_statx = 52;               // 7.39
inline constexpr uint32_t fuse_op_copy_file_range_64 = 53;  // 7.45
inline constexpr uint32_t fopen_no_flush = 1u << 5;         // 7.35

/** FUSE_STATX (7.39). */
struct FuseStatxIn {
  uint32_t getattr_flags;
  uint32_t reserved;
  uint64_t fh;
  uint32_t sx_flags;
  uint32_t sx_mask;
};

struct FuseStatxTime {
  int64_t tv_sec;
  uint32_t tv_nsec;
  int32_t reserved;
};

struct FuseStatx {
  uint32_t mask;
  uint32_t blksize;
  uint64_t attributes;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint16_t spare0;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t attributes_mask;
  FuseStatxTime atime;
  FuseStatxTime btime;
  FuseStatxTime ctime;
  FuseStatxTime mtime;
  uint32_t rdev_major;
  uint32_t rdev_minor;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint64_t spare2[14];
};
static_assert(sizeof(FuseStatx) == 256);

struct FuseStatxOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t flags;
  uint64_t spare[2];
  FuseStatx stat;
};

/** FUSE_COPY_FILE_RANGE_64's answer (7.45). */
struct FuseCopyFileRangeOut {
  uint64_t bytes_copied;
};

}  // namespace holdfast::replica
