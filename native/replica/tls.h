#pragma once
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "common/tls_identity.h"

struct ssl_st;

/**
 * TLS 1.3 (RFC 8446) between the two servers of a mirror, on OpenSSL 3. OpenSSL sees memory only:
 * ciphertext is received and sent by this code, outside the lock around the SSL object, so one
 * thread may read while another writes and neither waits for the other's system call.
 */
namespace holdfast::replica {

enum class Io {
  done,
  blocked,  // poll for it, then call again
  closed,   // the connection is over; error() says why
};

using holdfast::TlsFiles;
using holdfast::TlsIdentity;

/** How the socket below is set up. */
struct SocketOptions {
  int64_t send_timeout_ms = 30000;  // unacknowledged data and keepalive (TCP_USER_TIMEOUT)
  int send_buffer = 0;              // SO_SNDBUF, bytes; 0: 2 MiB
};

/**
 * One TLS connection on a non-blocking socket. One thread may call `read` while one other calls
 * `write` or `flush`.
 */
class TlsStream {
 public:
  enum class Side { client, server };

  TlsStream();
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  /**
   * Takes a connected socket and completes the handshake, until `deadline_ns` (boot_ns). Both sides
   * must show a certificate of the authority. ETIMEDOUT; ECANCELED: `cancel` (a descriptor, -1:
   * none) became readable; EKEYREJECTED: no good certificate; EPROTO: not TLS 1.3.
   */
  Result<bool> start(const TlsIdentity& identity, Fd socket, Side side,
                     const SocketOptions& options, int64_t deadline_ns, int cancel);

  /** For poll(2); its owner stays this object. */
  int fd() const { return socket_.get(); }

  /**
   * Encrypts the parts and sends them; `taken` says how many bytes are done with (their memory may
   * be used again). Small neighbours share a TLS record; runs of 16 KiB are encrypted where they
   * lie. blocked: wait for POLLOUT, then go on with the rest, or `flush` when all is taken.
   */
  Io write(const iovec* parts, size_t count, size_t& taken);
  /** Sends what was taken and not yet sent. */
  Io flush() {
    size_t taken = 0;
    return write(nullptr, 0, taken);
  }

  /** Reads at least one byte, at most `size`. blocked: wait for POLLIN. */
  Io read(uint8_t* to, size_t size, size_t& got);

  /** A new key for what is sent after so many records (RFC 8446 §4.6.3); before `write` is used. */
  void renew_key_after(uint64_t records) { records_per_key_ = records; }

  /** Ends the connection for both threads at once: their calls say closed. Any thread. */
  void shut(int error);
  /** Why it is closed: errno; EPROTO and EBADMSG: what came was not TLS, or was tampered with. */
  int error() const { return error_.load(std::memory_order_acquire); }

 private:
  friend struct TlsBio;

  Io fail(int error);
  Io send_pending();
  int receive();
  bool encrypt(const uint8_t* bytes, size_t size);
  bool encrypt_some(const iovec* parts, size_t count, size_t& taken);
  Result<bool> handshake(int64_t deadline_ns, int cancel);

  Fd socket_;
  std::atomic<int> error_{0};

  std::mutex mutex_;  // ssl_, out_
  ssl_st* ssl_ = nullptr;
  std::vector<uint8_t> out_;  // ciphertext that OpenSSL made
  /** RFC 8446 §5.5 allows 2^24.5 records under one AES-GCM key; renewed well before. */
  uint64_t records_per_key_ = 1u << 22;
  uint64_t key_records_ = 0;    // records written under the present key
  std::vector<uint8_t> stage_;  // small parts, put together into one record

  std::vector<uint8_t> sending_;  // the writing thread's
  size_t sent_ = 0;

  std::vector<uint8_t> in_;  // ciphertext that came, the reading thread's
  size_t in_at_ = 0;
  size_t in_end_ = 0;
  bool drained_ = false;  // the last recv took all that was there
};

/** Connects to "ADDR:PORT" or "[ADDR6]:PORT" (numbers only) until `deadline_ns`. */
Result<Fd> connect_to(const std::string& address, int64_t deadline_ns, int cancel);
/** Listens on such an address, non-blocking; port 0: any. */
Result<Fd> listen_on(const std::string& address);

}  // namespace holdfast::replica
