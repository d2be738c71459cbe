#pragma once
#include <optional>
#include <string>

#include "common/result.h"
#include "link/address.h"

namespace holdfast::link {

/**
 * Says once, to the whole network, that `address` is at `mac`: a gratuitous ARP request and reply,
 * or an unsolicited neighbour advertisement with Override.
 */
Result<int> announce(const std::string& device, const Address& address, const Mac& mac);

/**
 * Asks the network who has `address` and waits for the first claim by another MAC than the
 * device's own; asks three times within `timeout_ms`. Blocks: not for the JavaScript thread.
 */
Result<std::optional<Mac>> probe(const std::string& device, const Address& address, int timeout_ms);

/**
 * Asks for `target` as `from`, which is at the device's own MAC: whoever has the target learns
 * that, and is returned when it answers. Asks three times within `timeout_ms`. Blocks, as probe
 * does.
 */
Result<std::optional<Mac>> ask(const std::string& device, const Address& from,
                               const Address& target, int timeout_ms);

}  // namespace holdfast::link
