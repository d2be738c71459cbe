#pragma once
#include <cstdint>
#include <memory>

#include "common/fd.h"
#include "witness/clusters.h"

struct ssl_st;

namespace holdfast::witness {

struct FreeSsl {
  void operator()(ssl_st* ssl) const;
};

/** The answer to one question of a client of that cluster. */
Answer answer_to(Store& store, const Question& question);

/** A client: a TLS connection and the question or the answer that is under way on it. */
class Connection {
 public:
  /** What to wait for next. */
  enum class Next { read, write, close };

  /** A connected, non-blocking socket. `chooser` finds the cluster that the client asks for. */
  Connection(Fd socket, const TlsIdentity& chooser, int64_t deadline_ns);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /** Goes on as far as it gets without waiting. Answers questions in their order. `why` says, where
   * the handshake failed, what was wrong. */
  Next go_on(Clusters& clusters, const char*& why);

  int fd() const { return socket_.get(); }
  /** The handshake is done: the client has a certificate of the cluster. */
  bool is_known() const { return cluster_ != nullptr; }
  /** Until when the handshake must be done. */
  int64_t deadline_ns() const { return deadline_ns_; }

 private:
  Next shake_hands(Clusters& clusters, const char*& why);
  Next wait_or_close(int result);

  Fd socket_;
  std::unique_ptr<ssl_st, FreeSsl> ssl_;
  Cluster* cluster_ = nullptr;
  int64_t deadline_ns_;
  Question question_;
  size_t got_ = 0;
  Answer answer_;
  size_t sent_ = sizeof(Answer);
};

}  // namespace holdfast::witness
