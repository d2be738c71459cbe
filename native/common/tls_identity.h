#pragma once
#include <string>

#include "common/result.h"

struct ssl_ctx_st;

namespace holdfast {

/** Paths of PEM files: this side's certificate (chain) and key, and the cluster's authority. */
struct TlsFiles {
  std::string cert;
  std::string key;
  std::string ca;
};

/**
 * What this side shows, and whom it believes: TLS 1.3 (RFC 8446) on OpenSSL 3, both sides with a
 * certificate of the authority. Serves any number of connections, both ways.
 */
class TlsIdentity {
 public:
  TlsIdentity() = default;
  ~TlsIdentity();
  TlsIdentity(const TlsIdentity&) = delete;
  TlsIdentity& operator=(const TlsIdentity&) = delete;

  /** ENOENT, EACCES …: a file cannot be read; EKEYREJECTED: it is not what it should be. `call`
   * names the file: "cert", "key" or "ca". */
  Result<bool> open(const TlsFiles& files);

  /** The identity for a server name that a client asks for (SNI, RFC 6066 §3); null: refused. */
  using Choose = const TlsIdentity* (*)(void* argument, const char* name);
  /** For a server with several identities: it has none of its own, each client hello chooses one.
   * The authority that counts for that client is the chosen identity's. ENOMEM. */
  Result<bool> open_chooser(Choose choose, void* argument);

  ssl_ctx_st* context() const { return context_; }

 private:
  friend struct TlsChooser;

  bool make_context();

  ssl_ctx_st* context_ = nullptr;
  Choose choose_ = nullptr;
  void* argument_ = nullptr;
};

}  // namespace holdfast
