#include "replica/tls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "common/clock.h"

namespace holdfast::replica {
namespace {

/** Plaintext of a full TLS record (RFC 8446 §5.1). */
constexpr size_t full_record = 16384;
/** Encrypted before it is sent: the peer works on it while the next is encrypted. */
constexpr size_t chunk = 8 * full_record;
constexpr size_t in_size = 128 * 1024;

/** Of the kernel, each way: two batches. Grown from the kernel's own first sizes, a run of large
 * writes took twice as long. */
constexpr int socket_buffer = 2 << 20;

bool would_block(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/** poll(2) of one descriptor and of `cancel`, until `deadline_ns`. 0, ETIMEDOUT, ECANCELED. */
int wait_for(int fd, short events, int64_t deadline_ns, int cancel) {
  for (;;) {
    const int64_t left = deadline_ns - boot_ns();
    if (left <= 0) return ETIMEDOUT;
    const int64_t ms = std::min<int64_t>((left + ns_per_ms - 1) / ns_per_ms, INT_MAX);
    pollfd wait[2] = {{fd, events, 0}, {cancel, POLLIN, 0}};
    const int ready = poll(wait, cancel >= 0 ? 2 : 1, static_cast<int>(ms));
    if (ready < 0 && errno != EINTR) return errno;
    if (ready <= 0) continue;
    return wait[1].revents != 0 ? ECANCELED : 0;
  }
}

/** None of the options is needed for what is promised: where one is refused (false), the kernel's
 * own way must do. */
bool set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

void set_up(int fd, const SocketOptions& options) {
  const int64_t timeout = std::clamp<int64_t>(options.send_timeout_ms, 100, INT_MAX);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(timeout));
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(std::max<int64_t>(timeout / 3000, 1)));
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  const int send = options.send_buffer > 0 ? options.send_buffer : socket_buffer;
  // FORCE goes beyond the system's limits; it wants CAP_NET_ADMIN.
  if (!set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, send))
    set_option(fd, SOL_SOCKET, SO_SNDBUF, send);
  if (!set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, socket_buffer)) {
    set_option(fd, SOL_SOCKET, SO_RCVBUF, socket_buffer);
  }
}

}  // namespace

/** What OpenSSL reads from and writes to: the two buffers of a TlsStream. */
struct TlsBio {
  static int write(BIO* bio, const char* data, size_t size, size_t* written) {
    auto* stream = static_cast<TlsStream*>(BIO_get_data(bio));
    const auto* bytes = reinterpret_cast<const uint8_t*>(data);
    stream->out_.insert(stream->out_.end(), bytes, bytes + size);
    *written = size;
    return 1;
  }

  static int read(BIO* bio, char* data, size_t size, size_t* got) {
    auto* stream = static_cast<TlsStream*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const size_t there = stream->in_end_ - stream->in_at_;
    if (there == 0) {
      BIO_set_retry_read(bio);
      *got = 0;
      return 0;
    }
    *got = std::min(size, there);
    std::memcpy(data, stream->in_.data() + stream->in_at_, *got);
    stream->in_at_ += *got;
    return 1;
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO_METHOD* method() {
    static BIO_METHOD* const made = [] {
      BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "holdfast memory");
      BIO_meth_set_write_ex(m, write);
      BIO_meth_set_read_ex(m, read);
      BIO_meth_set_ctrl(m, control);
      return m;
    }();
    return made;
  }
};

TlsStream::TlsStream() : in_(in_size) {
  out_.reserve(chunk + chunk / 16);
  sending_.reserve(chunk + chunk / 16);
  stage_.resize(full_record);
}

TlsStream::~TlsStream() {
  SSL_free(ssl_);
}

Io TlsStream::fail(int error) {
  int none = 0;
  error_.compare_exchange_strong(none, error == 0 ? ECONNRESET : error);
  return Io::closed;
}

void TlsStream::shut(int error) {
  fail(error);
  if (socket_.valid()) shutdown(socket_.get(), SHUT_RDWR);
}

Result<bool> TlsStream::start(const TlsIdentity& identity, Fd socket, Side side,
                              const SocketOptions& options, int64_t deadline_ns, int cancel) {
  ERR_clear_error();
  socket_ = std::move(socket);
  set_up(socket_.get(), options);
  ssl_ = SSL_new(identity.context());
  BIO* bio = BIO_new(TlsBio::method());
  if (ssl_ == nullptr || bio == nullptr) {
    BIO_free(bio);
    return Result<bool>::failure(ENOMEM, "SSL_new");
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  if (side == Side::client) {
    SSL_set_connect_state(ssl_);
  } else {
    SSL_set_accept_state(ssl_);
  }
  return handshake(deadline_ns, cancel);
}

Result<bool> TlsStream::handshake(int64_t deadline_ns, int cancel) {
  for (;;) {
    const int done = SSL_do_handshake(ssl_);
    const int why = done == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_, done);
    const bool verified = SSL_get_verify_result(ssl_) == X509_V_OK;
    ERR_clear_error();
    // Also after a failure: the alert says to the other side what was wrong.
    Io io;
    while ((io = flush()) == Io::blocked) {
      const int error = wait_for(fd(), POLLOUT, deadline_ns, cancel);
      if (error != 0) return Result<bool>::failure(error, "poll");
    }
    if (done == 1) break;
    if (why != SSL_ERROR_WANT_READ) {
      fail(verified ? EPROTO : EKEYREJECTED);
      return Result<bool>::failure(error(), "SSL_do_handshake");
    }
    if (io == Io::closed) return Result<bool>::failure(error(), "send");
    int error = receive();
    if (error == EAGAIN) {
      error = wait_for(fd(), POLLIN, deadline_ns, cancel);
      if (error != 0) return Result<bool>::failure(error, "poll");
    } else if (error != 0) {
      fail(error);
      return Result<bool>::failure(error, "recv");
    }
  }
  return Result<bool>::success(true);
}

/** Fills the empty buffer of ciphertext. 0, EAGAIN: nothing there, or why no more will come. */
int TlsStream::receive() {
  in_at_ = in_end_ = 0;
  // What filled the buffer only in part took all there was: no second call to hear it.
  if (drained_) {
    drained_ = false;
    return EAGAIN;
  }
  const ssize_t got = recv(fd(), in_.data(), in_.size(), MSG_DONTWAIT);
  if (got == 0) return ECONNRESET;
  if (got < 0) return would_block(errno) ? EAGAIN : errno;
  in_end_ = static_cast<size_t>(got);
  drained_ = in_end_ < in_.size();
  return 0;
}

Io TlsStream::read(uint8_t* to, size_t size, size_t& got) {
  got = 0;
  for (;;) {
    if (error() != 0) return Io::closed;
    {
      const std::lock_guard lock(mutex_);
      ERR_clear_error();
      if (SSL_read_ex(ssl_, to, size, &got) == 1) return Io::done;
      const int why = SSL_get_error(ssl_, 0);
      if (why == SSL_ERROR_ZERO_RETURN) return fail(ECONNRESET);
      if (why != SSL_ERROR_WANT_READ) {
        ERR_clear_error();
        return fail(EBADMSG);
      }
    }
    const int error = receive();
    if (error == EAGAIN) return Io::blocked;
    if (error != 0) return fail(error);
  }
}

/** One or more TLS records into out_. */
bool TlsStream::encrypt(const uint8_t* bytes, size_t size) {
  key_records_ += (size + full_record - 1) / full_record;
  if (key_records_ >= records_per_key_) {
    if (SSL_key_update(ssl_, SSL_KEY_UPDATE_NOT_REQUESTED) != 1) return false;
    key_records_ = 0;
  }
  size_t written = 0;
  return SSL_write_ex(ssl_, bytes, size, &written) == 1 && written == size;
}

/** Encrypts up to a chunk of the parts from `taken` on, and adds to it what it encrypted. */
bool TlsStream::encrypt_some(const iovec* parts, size_t count, size_t& taken) {
  size_t part = 0;
  size_t at = taken;
  while (part < count && at >= parts[part].iov_len) at -= parts[part++].iov_len;
  for (size_t made = 0; part < count && made < chunk;) {
    const auto* here = static_cast<const uint8_t*>(parts[part].iov_base) + at;
    const size_t there = parts[part].iov_len - at;
    size_t size = 0;
    if (there >= full_record) {
      size = std::min(there, chunk - made) / full_record * full_record;
      if (size == 0) return true;
      if (!encrypt(here, size)) return false;
      at += size;
    } else {
      while (part < count && size < full_record) {
        const size_t fits = std::min(parts[part].iov_len - at, full_record - size);
        if (fits > 0) {
          std::memcpy(stage_.data() + size, static_cast<const uint8_t*>(parts[part].iov_base) + at,
                      fits);
        }
        size += fits;
        at += fits;
        if (at == parts[part].iov_len) {
          part++;
          at = 0;
        }
      }
      if (!encrypt(stage_.data(), size)) return false;
    }
    made += size;
    taken += size;
    while (part < count && at >= parts[part].iov_len) at -= parts[part++].iov_len;
  }
  return true;
}

Io TlsStream::send_pending() {
  while (sent_ < sending_.size()) {
    const ssize_t went =
        send(fd(), sending_.data() + sent_, sending_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (went < 0) return would_block(errno) ? Io::blocked : fail(errno);
    sent_ += static_cast<size_t>(went);
  }
  sending_.clear();
  sent_ = 0;
  return Io::done;
}

Io TlsStream::write(const iovec* parts, size_t count, size_t& taken) {
  taken = 0;
  size_t all = 0;
  for (size_t i = 0; i < count; i++) all += parts[i].iov_len;
  bool first = true;
  for (;;) {
    if (error() != 0) return Io::closed;
    const Io io = send_pending();
    if (io != Io::done) return io;
    if (taken == all && !first) return Io::done;
    first = false;
    const std::lock_guard lock(mutex_);
    ERR_clear_error();
    if (taken < all && !encrypt_some(parts, count, taken)) {
      ERR_clear_error();
      return fail(EPROTO);
    }
    std::swap(sending_, out_);
  }
}

namespace {

/** The address of "ADDR:PORT" or "[ADDR6]:PORT"; 0 or EINVAL. */
int parse_address(const std::string& text, bool listen, sockaddr_storage& out, socklen_t& size) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return EINVAL;
  std::string host = text.substr(0, colon);
  const std::string port = text.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (listen ? AI_PASSIVE : 0);
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return EINVAL;
  std::memcpy(&out, found->ai_addr, found->ai_addrlen);
  size = found->ai_addrlen;
  freeaddrinfo(found);
  return 0;
}

}  // namespace

Result<Fd> connect_to(const std::string& address, int64_t deadline_ns, int cancel) {
  sockaddr_storage to{};
  socklen_t size = 0;
  if (parse_address(address, false, to, size) != 0) return Result<Fd>::failure(EINVAL, "address");
  Fd fd(socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Result<Fd>::failure(errno, "socket");
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), size) != 0) {
    if (errno != EINPROGRESS) return Result<Fd>::failure(errno, "connect");
    int error = wait_for(fd.get(), POLLOUT, deadline_ns, cancel);
    if (error != 0) return Result<Fd>::failure(error, "poll");
    socklen_t length = sizeof error;
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return Result<Fd>::failure(error, "connect");
  }
  return Result<Fd>::success(std::move(fd));
}

Result<Fd> listen_on(const std::string& address) {
  sockaddr_storage at{};
  socklen_t size = 0;
  if (parse_address(address, true, at, size) != 0) return Result<Fd>::failure(EINVAL, "address");
  Fd fd(socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Result<Fd>::failure(errno, "socket");
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&at), size) != 0) {
    return Result<Fd>::failure(errno, "bind");
  }
  if (listen(fd.get(), 8) != 0) return Result<Fd>::failure(errno, "listen");
  return Result<Fd>::success(std::move(fd));
}

}  // namespace holdfast::replica
