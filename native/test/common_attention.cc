#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include "common/attention.h"
#include "common/fd.h"

using namespace holdfast;

namespace {

/** An Attention that saw `count` arrivals, each `gap` after the one before. */
Attention seen(int count, int64_t gap) {
  Attention attention;
  int64_t now = boot_ns();
  for (int i = 0; i < count; i++) attention.came(now += gap);
  return attention;
}

}  // namespace

TEST_CASE("attention: awake while things come often, asleep before and after") {
  CHECK_FALSE(Attention().awake());
  CHECK_FALSE(seen(100, 2 * Attention::often).awake());
  Attention attention = seen(100, Attention::often / 4);
  CHECK(attention.awake());
  int64_t now = boot_ns() + ns_per_s;
  for (int i = 0; i < 20; i++) attention.came(now += ns_per_s);
  CHECK_FALSE(attention.awake());
}

TEST_CASE("attention: sees what is ready, and gives up when nothing comes") {
  const Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  pollfd wait{event.get(), POLLIN, 0};
  const Attention attention = seen(100, Attention::often / 4);
  CHECK(attention.watch(&wait, 1) == 0);
  eventfd_write(event.get(), 1);
  CHECK(attention.watch(&wait, 1) == 1);
  CHECK(wait.revents == POLLIN);
  // Not awake: it leaves the waiting to poll(2).
  CHECK(Attention().watch(&wait, 1) == 0);
}
