#include "witness/connection.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>

namespace holdfast::witness {

void FreeSsl::operator()(ssl_st* ssl) const {
  SSL_free(ssl);
}

Answer answer_to(Store& store, const Question& question) {
  Answer answer;
  answer.id = question.id;
  Reply reply;
  const size_t size = std::min<size_t>(question.module_size, module_size_max);
  const std::string_view module(question.module, size);
  const bool is_whole = question.module_size <= module_size_max && question.has_from <= 1 &&
                        std::all_of(question.module + size, question.module + module_size_max,
                                    [](char c) { return c == 0; });
  if (is_whole && question.ask == static_cast<uint8_t>(Ask::read)) {
    reply = store.read(module);
  } else if (is_whole && question.ask == static_cast<uint8_t>(Ask::swap)) {
    std::optional<Record> from;
    if (question.has_from == 1) from = question.from;
    reply = store.swap(module, from, question.to);
  } else {
    reply.text = "no valid question";
  }
  answer.outcome = static_cast<uint8_t>(reply.outcome);
  if (reply.record) {
    answer.has_record = 1;
    answer.record = *reply.record;
  }
  answer.text_size = static_cast<uint8_t>(std::min(reply.text.size(), sizeof answer.text));
  std::memcpy(answer.text, reply.text.data(), answer.text_size);
  return answer;
}

Connection::Connection(Fd socket, const TlsIdentity& chooser, int64_t deadline_ns)
    : socket_(std::move(socket)), ssl_(SSL_new(chooser.context())), deadline_ns_(deadline_ns) {
  if (!ssl_) return;
  // A connection sleeps nearly always: its buffers are given back meanwhile.
  SSL_set_mode(ssl_.get(), SSL_MODE_RELEASE_BUFFERS);
  SSL_set_accept_state(ssl_.get());
  if (SSL_set_fd(ssl_.get(), socket_.get()) != 1) ssl_.reset();
}

Connection::~Connection() {
  if (cluster_ != nullptr) cluster_->clients--;
}

Connection::Next Connection::wait_or_close(int result) {
  const int error = SSL_get_error(ssl_.get(), result);
  ERR_clear_error();
  if (error == SSL_ERROR_WANT_READ) return Next::read;
  return error == SSL_ERROR_WANT_WRITE ? Next::write : Next::close;
}

Connection::Next Connection::shake_hands(Clusters& clusters, const char*& why) {
  ERR_clear_error();
  const int done = SSL_do_handshake(ssl_.get());
  if (done != 1) {
    const unsigned long error = ERR_peek_error();
    const Next next = wait_or_close(done);
    if (next == Next::close) {
      const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
      why = reason == nullptr ? "the connection was closed" : reason;
    }
    return next;
  }
  const char* id = SSL_get_servername(ssl_.get(), TLSEXT_NAMETYPE_host_name);
  Cluster* cluster = id == nullptr ? nullptr : clusters.find(id);
  if (cluster == nullptr) return Next::close;
  if (cluster->clients >= clients_max) {
    why = "too many of its cluster";
    return Next::close;
  }
  cluster_ = cluster;
  cluster_->clients++;
  return Next::read;
}

Connection::Next Connection::go_on(Clusters& clusters, const char*& why) {
  if (!ssl_) return Next::close;
  if (cluster_ == nullptr) {
    const Next next = shake_hands(clusters, why);
    if (cluster_ == nullptr) return next;
  }
  for (;;) {
    ERR_clear_error();
    if (sent_ < sizeof answer_) {
      size_t done = 0;
      const auto* bytes = reinterpret_cast<const uint8_t*>(&answer_) + sent_;
      const int result = SSL_write_ex(ssl_.get(), bytes, sizeof answer_ - sent_, &done);
      if (result != 1) return wait_or_close(result);
      sent_ += done;
      continue;
    }
    size_t got = 0;
    auto* bytes = reinterpret_cast<uint8_t*>(&question_) + got_;
    const int result = SSL_read_ex(ssl_.get(), bytes, sizeof question_ - got_, &got);
    if (result != 1) return wait_or_close(result);
    got_ += got;
    if (got_ < sizeof question_) continue;
    got_ = 0;
    if (question_.magic != question_magic) return Next::close;
    answer_ = answer_to(cluster_->store, question_);
    sent_ = 0;
  }
}

}  // namespace holdfast::witness
