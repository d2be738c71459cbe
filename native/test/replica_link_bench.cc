#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "replica_peer.h"

using namespace holdfast::replica;
using namespace holdfast::replica::test;
using holdfast::boot_ns;
using holdfast::ns_per_s;

// Figures, not tests: run with --no-skip --test-case=figures*.

namespace {

void print(const char* what, std::vector<int64_t>& times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double part) {
    return static_cast<double>(
               times[static_cast<size_t>(part * static_cast<double>(times.size()))]) /
           1000;
  };
  std::printf("%-44s p50 %7.1f us   p99 %7.1f us\n", what, at(0.5), at(0.99));
}

}  // namespace

TEST_CASE("figures: one record, synced, to a peer that acknowledges at once" * doctest::skip()) {
  Peer peer;
  Primary primary;
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  REQUIRE(primary.events.await("peer state=connected"));
  for (const size_t size : {size_t{64}, size_t{4096}, size_t{65'536}, max_data}) {
    std::vector<int64_t> called, woken;
    for (int i = 0; i < 3000; i++) {
      const int64_t start = boot_ns();
      const Lsn lsn = primary.add(size);
      primary.link.push();
      Call call;
      std::atomic<int64_t> end{0};
      call.then = [&] { end = boot_ns(); };
      if (!primary.link.sync(lsn, call.waiter())) REQUIRE(call.await() == 0);
      woken.push_back(boot_ns() - start);
      called.push_back(end - start);
    }
    std::printf("%zu bytes:\n", size);
    print("  append to the callback", called);
    print("  append to the waiting thread", woken);
  }
}

TEST_CASE("figures: a run of buffered writes" * doctest::skip()) {
  Peer peer;
  Primary primary(64u << 20);
  REQUIRE(primary.link.start(primary.options(peer.address())).ok());
  REQUIRE(primary.events.await("peer state=connected"));
  for (const size_t size : {size_t{4096}, max_data}) {
    std::vector<int64_t> times;
    const int64_t start = boot_ns();
    const uint64_t sends = primary.link.status().sends;
    const size_t count = (1u << 30) / size / (size == 4096 ? 4 : 1);
    for (size_t i = 0; i < count; i++) {
      const int64_t before = boot_ns();
      primary.add(size);
      primary.link.push();
      times.push_back(boot_ns() - before);
    }
    REQUIRE(primary.sync(primary.link.last()) == 0);
    const double seconds = static_cast<double>(boot_ns() - start) / 1e9;
    std::printf("%zu bytes, %zu times: %.0f MB/s, %llu sends\n", size, count,
                static_cast<double>(count * size) / 1e6 / seconds,
                static_cast<unsigned long long>(primary.link.status().sends - sends));
    print("  append and push", times);
  }
}
