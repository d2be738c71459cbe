#pragma once
#include "common/result.h"
#include "link/address.h"

namespace holdfast::link {

/**
 * Ends every TCP connection whose local address is `address`: the peer gets an RST, the
 * application ECONNABORTED (sock_diag(7), SOCK_DESTROY, CONFIG_INET_DIAG_DESTROY). Listening
 * sockets stay. Returns how many there were. Blocks while it walks the socket table.
 */
Result<int> reset_connections(const Address& address);

}  // namespace holdfast::link
