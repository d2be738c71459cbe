#include "common/tls_identity.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace holdfast {

TlsIdentity::~TlsIdentity() {
  SSL_CTX_free(context_);
}

bool TlsIdentity::make_context() {
  ERR_clear_error();
  SSL_CTX_free(context_);
  context_ = SSL_CTX_new(TLS_method());
  if (context_ == nullptr) return false;
  SSL_CTX_set_min_proto_version(context_, TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(context_, TLS1_3_VERSION);
  SSL_CTX_set_options(context_, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_num_tickets(context_, 0);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context_, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  // 128 bits are ample, and AES-128 is the fastest where the processor has AES.
  SSL_CTX_set_ciphersuites(context_, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256");
#if defined(__x86_64__)
  if (__builtin_cpu_supports("aes") == 0) {
    SSL_CTX_set_ciphersuites(context_, "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256");
  }
#endif
  return true;
}

Result<bool> TlsIdentity::open(const TlsFiles& files) {
  const std::pair<const std::string&, const char*> all[] = {
      {files.cert, "cert"}, {files.key, "key"}, {files.ca, "ca"}};
  for (const auto& [path, what] : all) {
    if (access(path.c_str(), R_OK) != 0) return Result<bool>::failure(errno, what);
  }
  if (!make_context()) return Result<bool>::failure(ENOMEM, "SSL_CTX_new");
  const char* wrong = nullptr;
  if (SSL_CTX_use_certificate_chain_file(context_, files.cert.c_str()) != 1) {
    wrong = "cert";
  } else if (SSL_CTX_use_PrivateKey_file(context_, files.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
             SSL_CTX_check_private_key(context_) != 1) {
    wrong = "key";
  } else if (SSL_CTX_load_verify_file(context_, files.ca.c_str()) != 1) {
    wrong = "ca";
  }
  ERR_clear_error();
  if (wrong != nullptr) return Result<bool>::failure(EKEYREJECTED, wrong);
  return Result<bool>::success(true);
}

struct TlsChooser {
  /** Called once for each client hello, also for one without a name. */
  static int on_name(SSL* ssl, int* alert, void* self) {
    const auto* identity = static_cast<const TlsIdentity*>(self);
    const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const TlsIdentity* chosen =
        name == nullptr ? nullptr : identity->choose_(identity->argument_, name);
    // From here on its certificate is shown, and its authority verifies the client's.
    if (chosen != nullptr && SSL_set_SSL_CTX(ssl, chosen->context()) == chosen->context()) {
      return SSL_TLSEXT_ERR_OK;
    }
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
};

Result<bool> TlsIdentity::open_chooser(Choose choose, void* argument) {
  if (!make_context()) return Result<bool>::failure(ENOMEM, "SSL_CTX_new");
  choose_ = choose;
  argument_ = argument;
  SSL_CTX_set_tlsext_servername_callback(context_, TlsChooser::on_name);
  SSL_CTX_set_tlsext_servername_arg(context_, this);
  return Result<bool>::success(true);
}

}  // namespace holdfast
