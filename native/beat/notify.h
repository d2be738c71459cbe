#pragma once
#include <cstdint>

namespace holdfast::beat {

/**
 * Sends one state line to the service manager (sd_notify(3)): a datagram to $NOTIFY_SOCKET, `@`
 * for an abstract address. False when there is none or it does not take it; never blocks.
 */
bool notify_service_manager(const char* state);

/** Interval of the service manager's watchdog ($WATCHDOG_USEC), ns; 0: none for this process. */
int64_t watchdog_interval_ns();

}  // namespace holdfast::beat
