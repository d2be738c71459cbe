#pragma once
#include <cstddef>

namespace holdfast::beat {

// Node ids are 0 to 63, so that a member mask is one word.
inline constexpr size_t max_nodes = 64;
inline constexpr size_t max_lans = 8;
inline constexpr size_t max_modules = 32;
// Entries of the lease map; a mask of slots is one word.
inline constexpr size_t max_slots = 64;

}  // namespace holdfast::beat
