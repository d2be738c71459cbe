#pragma once
#include <string>

namespace holdfast::link {

/** Sends one state line to the service manager (sd_notify(3)); false when there is none. */
bool notify(const std::string& state);

}  // namespace holdfast::link
