#include <doctest/doctest.h>

#include <string>

#include "replica/faults.h"
#include "replica/lineage.h"

using namespace holdfast::replica;

namespace {

constexpr uint32_t a = 1, b = 2;

Lineage copy_of(uint32_t node, Tail at, std::vector<EpochStart> history) {
  Lineage out;
  out.node = node;
  out.state = DiskState::in_sync;
  out.at = at;
  out.history = std::move(history);
  return out;
}

/** A primary whose ring has everything after `first` and whose dirty set everything after `since`.
 */
SourceMeans means_of(Lsn first, Lsn since) {
  SourceMeans out;
  out.ring_first.lsn = first;
  out.dirty_since = since;
  out.dirty_whole = true;
  return out;
}

std::string what(const Lineage& source, const SourceMeans& means, const Lineage& target) {
  return name_of(decide(source, means, target).what);
}

/** A is alone since LSN 100, in epoch 2, and has come to 300. */
Lineage alone_source() {
  return copy_of(a, {300, 2, 0}, {{1, 0, a, 0}, {2, 100, a, 1}});
}

}  // namespace

TEST_CASE("lineage: catch_up when the ring has what is missing") {
  const Lineage target = copy_of(b, {100, 1, 0}, {{1, 0, a, 0}});
  const Decision found = decide(alone_source(), means_of(100, 100), target);
  CHECK(found.what == Rejoin::catch_up);
  CHECK(found.common == 100);
  CHECK(found.epoch == 1);
  CHECK(found.source_more == 200);
  CHECK(found.target_more == 0);
  // In the middle of what the ring has, too.
  CHECK(what(alone_source(), means_of(40, 40), target) == "catch_up");
  // Nothing is missing at all.
  CHECK(what(alone_source(), means_of(300, 100),
             copy_of(b, {300, 2, 0}, {{1, 0, a, 0}, {2, 100, a, 1}})) == "catch_up");
}

TEST_CASE("lineage: resume goes on in the same resync, and only in that one") {
  Lineage target = copy_of(b, {250, 2, 0}, {{1, 0, a, 0}});
  target.state = DiskState::inconsistent;
  target.base = {100, 1, 0};
  target.resync = 7;
  SourceMeans means = means_of(220, 100);
  means.resync = 7;
  CHECK(what(alone_source(), means, target) == "resume");
  // The ring has gone on: another round of the same.
  means.ring_first.lsn = 260;
  CHECK(what(alone_source(), means, target) == "dirty");
  // Another resync, of a source that was started again: from where the target was before.
  means.resync = 8;
  means.ring_first.lsn = 220;
  Decision found = decide(alone_source(), means, target);
  CHECK(found.what == Rejoin::dirty);
  CHECK(found.common == 100);
  means.resync = 0;
  CHECK(what(alone_source(), means, target) == "dirty");
  means.dirty_since = 101;
  CHECK(what(alone_source(), means, target) == "compare");
}

TEST_CASE("lineage: dirty when the dirty set reaches back so far") {
  const Lineage target = copy_of(b, {100, 1, 0}, {{1, 0, a, 0}});
  CHECK(what(alone_source(), means_of(250, 100), target) == "dirty");
  CHECK(what(alone_source(), means_of(250, 60), target) == "dirty");
  // The older copy that one went back to.
  Lineage outdated = target;
  outdated.state = DiskState::outdated;
  CHECK(what(alone_source(), means_of(250, 100), outdated) == "dirty");
}

TEST_CASE("lineage: roll_back of what a primary that died had sent to nobody") {
  // B was made primary after 1000; A had begun at 0 and knows no more than that.
  const Lineage source = copy_of(b, {1500, 2, 0}, {{1, 0, a, 0}, {2, 1000, b, 0}});
  Lineage target = copy_of(a, {0, 0, 0}, {{1, 0, a, 0}});
  target.was_primary = true;
  const Decision found = decide(source, means_of(1200, 1000), target);
  CHECK(found.what == Rejoin::roll_back);
  CHECK(found.common == 1000);
  CHECK(found.epoch == 1);
  CHECK(found.source_more == 500);
  // Also before B has written anything, and when the ring has it all.
  const Lineage quiet = copy_of(b, {1000, 1, 0}, {{1, 0, a, 0}, {2, 1000, b, 0}});
  CHECK(what(quiet, means_of(1000, 1000), target) == "roll_back");
  // A was stopped in order, with ten records that B never got.
  const Lineage stopped = copy_of(a, {1010, 1, 0}, {{1, 0, a, 0}});
  const Decision ten = decide(source, means_of(1200, 1000), stopped);
  CHECK(ten.what == Rejoin::roll_back);
  CHECK(ten.common == 1000);
  CHECK(ten.target_more == 10);
}

TEST_CASE("lineage: compare when it is not known what changed") {
  const Lineage target = copy_of(b, {100, 1, 0}, {{1, 0, a, 0}});
  SourceMeans means = means_of(250, 101);
  CHECK(what(alone_source(), means, target) == "compare");
  means.dirty_since = 0;
  means.dirty_whole = false;
  CHECK(what(alone_source(), means, target) == "compare");
  Lineage failed = target;
  failed.state = DiskState::failed;
  CHECK(what(alone_source(), means_of(100, 100), failed) == "compare");
  const Lineage source = copy_of(b, {1500, 2, 0}, {{1, 0, a, 0}, {2, 1000, b, 0}});
  Lineage lost = copy_of(a, {0, 0, 0}, {{1, 0, a, 0}});
  lost.was_primary = lost.marks_lost = true;
  CHECK(what(source, means_of(1000, 1000), lost) == "compare");
}

TEST_CASE("lineage: first_copy of a target that has no history") {
  Lineage target;
  target.node = b;
  CHECK(what(alone_source(), means_of(100, 100), target) == "first_copy");
  // Two new copies, both empty, begin as they are; with content on the source they do not.
  const Lineage fresh = copy_of(a, {0, 0, 0}, {{1, 0, a, 0}});
  CHECK(what(fresh, means_of(0, 0), target) == "catch_up");
  SourceMeans content = means_of(0, 0);
  content.ring_first.chain = 99;
  CHECK(what(copy_of(a, {0, 0, 99}, {{1, 0, a, 0}}), content, target) == "first_copy");
  // Cut short: what has come so far is compared.
  target.state = DiskState::inconsistent;
  target.at = {290, 2, 0};
  target.resync = 5;
  CHECK(what(alone_source(), means_of(100, 100), target) == "compare");
}

TEST_CASE("lineage: fork when both acknowledged alone, and only then") {
  const Lineage other = copy_of(b, {180, 3, 0}, {{1, 0, a, 0}, {3, 100, b, 1}});
  const Decision found = decide(alone_source(), means_of(0, 0), other);
  CHECK(found.what == Rejoin::fork);
  CHECK(found.common == 100);
  CHECK(found.source_more == 200);
  CHECK(found.target_more == 80);
  // Only this side did: the other's tail was acknowledged by nobody.
  Lineage calm = other;
  calm.history[1].alone = 0;
  CHECK(what(alone_source(), means_of(100, 100), calm) == "roll_back");
  // Only the other did.
  Lineage waiting = alone_source();
  waiting.history[1].alone = 0;
  CHECK(what(waiting, means_of(100, 100), other) == "behind");
  // Alone before the common end is no matter.
  const Lineage long_ago =
      copy_of(b, {180, 3, 0}, {{1, 0, a, 0}, {1, 40, a, 1}, {1, 90, a, 0}, {3, 100, b, 0}});
  CHECK(what(alone_source(), means_of(100, 100), long_ago) == "roll_back");
  // A primary that was pulled while it was alone may have acknowledged more than it knows.
  Lineage pulled = copy_of(b, {100, 1, 0}, {{1, 0, a, 0}, {3, 100, b, 1}});
  CHECK(what(alone_source(), means_of(100, 100), pulled) == "catch_up");
  pulled.was_primary = true;
  CHECK(what(alone_source(), means_of(100, 100), pulled) == "fork");
}

TEST_CASE("lineage: behind when only the target went on") {
  const Lineage source = copy_of(a, {100, 1, 0}, {{1, 0, a, 0}});
  const Lineage ahead = copy_of(b, {140, 1, 0}, {{1, 0, a, 0}});
  const Decision found = decide(source, means_of(100, 100), ahead);
  CHECK(found.what == Rejoin::behind);
  CHECK(found.common == 100);
  CHECK(found.target_more == 40);
  const Lineage later = copy_of(b, {140, 2, 0}, {{1, 0, a, 0}, {2, 100, b, 0}});
  CHECK(what(source, means_of(100, 100), later) == "behind");
}

TEST_CASE("lineage: unrelated without a common epoch") {
  const Lineage other = copy_of(b, {50, 9, 0}, {{9, 0, b, 0}});
  CHECK(what(alone_source(), means_of(0, 0), other) == "unrelated");
  // The same number, but of another primary, or begun elsewhere.
  CHECK(what(alone_source(), means_of(0, 0), copy_of(b, {50, 1, 0}, {{1, 0, b, 0}})) ==
        "unrelated");
  CHECK(what(alone_source(), means_of(0, 0), copy_of(b, {50, 1, 0}, {{1, 7, a, 0}})) ==
        "unrelated");
  // An older copy of an epoch that neither was told of.
  CHECK(what(alone_source(), means_of(0, 0), copy_of(b, {50, 5, 0}, {{1, 0, a, 0}})) ==
        "unrelated");
}

TEST_CASE("lineage: one epoch may go alone and come back any number of times") {
  const Lineage source =
      copy_of(a, {900, 1, 0}, {{1, 0, a, 0}, {1, 100, a, 1}, {1, 300, a, 0}, {1, 500, a, 1}});
  CHECK(what(source, means_of(500, 500), copy_of(b, {500, 1, 0}, {{1, 0, a, 0}})) == "catch_up");
  CHECK(what(source, means_of(700, 500), copy_of(b, {500, 1, 0}, {{1, 0, a, 0}})) == "dirty");
  CHECK(went_alone_after(source, 600));
  CHECK(went_alone_after(source, 899));
  CHECK_FALSE(went_alone_after(source, 900));
  Lineage back = source;
  back.history.push_back({1, 800, a, 0});
  CHECK(went_alone_after(back, 799));
  CHECK_FALSE(went_alone_after(back, 800));
}

TEST_CASE("lineage: a secondary stopped in order is the target, whoever wrote meanwhile") {
  // The secondary left at 100; the primary went on alone, in the same epoch or in a new one.
  const Lineage left = copy_of(b, {100, 1, 0}, {{1, 0, a, 0}});
  const Lineage same = copy_of(a, {200, 1, 0}, {{1, 0, a, 0}, {1, 100, a, 1}});
  CHECK(what(same, means_of(100, 100), left) == "catch_up");
  CHECK(what(same, means_of(180, 100), left) == "dirty");
  CHECK(what(alone_source(), means_of(180, 100), left) == "dirty");
  // And if it is made the primary instead, it does not take the other's writes away.
  const Lineage wrong = copy_of(b, {100, 1, 0}, {{1, 0, a, 0}, {3, 100, b, 0}});
  CHECK(what(wrong, means_of(100, 100), same) == "behind");
  Lineage pulled = same;
  pulled.was_primary = true;
  CHECK(what(wrong, means_of(100, 100), pulled) == "behind");
}

TEST_CASE("lineage: a source that was not stopped in order goes on further on") {
  // It began at 200 and had come to somewhere; the target has 260 of it.
  const Lsn jump = 200 + unclean_jump;
  const Lineage source = copy_of(a, {jump, 1, 77}, {{1, 0, a, 0}, {2, jump, a, 0}});
  const Lineage target = copy_of(b, {260, 1, 0}, {{1, 0, a, 0}});
  const Decision found = decide(source, means_of(jump, 250), target);
  CHECK(found.what == Rejoin::dirty);
  CHECK(found.common == 260);
  CHECK(found.source_more == 0);
  CHECK(what(source, means_of(jump, 261), target) == "compare");
  Lineage later = source;
  later.at.lsn += 5;
  CHECK(decide(later, means_of(jump, 250), target).source_more == 5);
  // Both pulled; the other one had been primary after it.
  Lineage both = copy_of(b, {260, 1, 0}, {{1, 0, a, 0}, {3, 260, b, 0}});
  both.was_primary = true;
  CHECK(what(source, means_of(jump, 250), both) == "roll_back");
}

TEST_CASE("lineage: a history that lost its oldest epochs") {
  SuperState state;
  for (uint64_t epoch = 1; epoch <= max_history + 10; epoch++) {
    add_epoch(state, {epoch, epoch * 10, a, 0});
  }
  const Lineage source = lineage_of(state, {5000, max_history + 10, 0});
  CHECK(source.history.size() == max_history);
  CHECK(what(source, means_of(0, 0), copy_of(b, {105, 10, 0}, {{9, 90, a, 0}, {10, 100, a, 0}})) ==
        "unrelated");
  const Lineage known = copy_of(b, {115, 11, 0}, {{10, 100, a, 0}, {11, 110, a, 0}});
  const Decision found = decide(source, means_of(200, 100), known);
  CHECK(found.what == Rejoin::dirty);
  CHECK(found.common == 115);
}

TEST_CASE("lineage: flapping costs no epochs") {
  SuperState state;
  add_epoch(state, {1, 0, a, 0});
  for (Lsn i = 1; i < 500; i++) {
    add_epoch(state, {2, 100 * i, a, 1});
    add_epoch(state, {2, 100 * i + 50, a, 0});
  }
  CHECK(state.history_size == max_history);
  CHECK(state.history[0].epoch == 1);
  CHECK(state.history[1].epoch == 2);
  CHECK(state.history[1].first == 100);
  CHECK(state.history[1].alone == 1);
  CHECK(state.history[max_history - 1].first == 100 * 499 + 50);
  const Lineage source = lineage_of(state, {60000, 2, 0});
  CHECK_FALSE(went_alone_after(source, 100 * 499 + 50));
  CHECK(went_alone_after(source, 100 * 499));
  const Lineage target = copy_of(b, {130, 2, 0}, {{1, 0, a, 0}, {2, 100, a, 1}});
  CHECK(what(source, means_of(40000, 130), target) == "dirty");
}

TEST_CASE("lineage: what a copy was told of and has nothing of does not count") {
  // B took the history of the primary's hello, and lost the connection before any record came.
  const Lineage target = copy_of(b, {90, 1, 0}, {{1, 0, a, 0}, {2, 100, a, 1}});
  const Decision found = decide(alone_source(), means_of(150, 80), target);
  CHECK(found.what == Rejoin::dirty);
  CHECK(found.common == 90);
  // It goes on from there as the primary: epoch 2 is none of its own.
  SuperState state;
  for (const EpochStart& start : target.history) add_epoch(state, start);
  add_epoch(state, {3, 90, b, 0});
  REQUIRE(state.history_size == 2);
  const Lineage promoted = lineage_of(state, {120, 3, 0});
  CHECK(decide(promoted, means_of(90, 90), copy_of(a, {90, 1, 0}, {{1, 0, a, 0}})).common == 90);
}

TEST_CASE("lineage: a planted bug that believes the primary is seen as one") {
  const Lineage other = copy_of(b, {180, 3, 0}, {{1, 0, a, 0}, {3, 100, b, 1}});
  Faults faults;
  CHECK(decide(alone_source(), means_of(0, 0), other, &faults).what == Rejoin::fork);
  faults.source_by_mtime = true;
  CHECK(decide(alone_source(), means_of(0, 0), other, &faults).what == Rejoin::dirty);
}

namespace {

constexpr uint32_t c = 3;
constexpr Lsn first = Lsn{1} << 41;

/** A's stream to a distant copy: the ring and the dirty set have all after `since`. */
Decision distant(const Lineage& target, Lsn since = first, Lsn ring = first) {
  return decide_distant(copy_of(a, {first + 500, 2, 9}, {{1, first, a, 0}, {2, first + 300, a, 0}}),
                        means_of(ring, since), target);
}

std::string distant_what(const Lineage& target, Lsn since = first, Lsn ring = first) {
  return name_of(distant(target, since, ring).what);
}

}  // namespace

TEST_CASE("lineage: a distant copy of this stream comes back as the peer does") {
  const Lineage target = copy_of(c, {first + 200, 1, 5}, {{1, first, a, 0}});
  CHECK(distant_what(target) == "catch_up");
  CHECK(distant_what(target, first, first + 400) == "dirty");
  CHECK(distant_what(target, first + 400, first + 400) == "compare");
  CHECK(distant_what(copy_of(c, {}, {})) == "first_copy");
}

TEST_CASE("lineage: a distant copy of another server's stream is compared, not refused") {
  // B was the primary.
  CHECK(distant_what(copy_of(c, {700, 7, 5}, {{7, 100, b, 0}})) == "compare");
  // A's, from before it began anew: the same epoch and primary, another beginning.
  CHECK(distant_what(copy_of(c, {first + 200, 1, 5}, {{1, first + 7, a, 0}})) == "compare");
  // A copy of the main stream, that the operator made a distant one.
  Lineage main = copy_of(c, {200, 1, 5}, {{1, 0, a, 0}});
  CHECK(distant_what(main) == "compare");
  // One that A acknowledged alone, in its main stream.
  main.history = {{1, 0, a, 0}, {2, 100, a, 1}};
  main.at.epoch = 2;
  CHECK(distant_what(main) == "compare");
  // It has more of this stream than the source.
  CHECK(distant_what(copy_of(c, {first + 900, 2, 5}, {{1, first, a, 0}, {2, first + 300, a, 0}})) ==
        "compare");
  // Records of an epoch that nobody told it of.
  CHECK(distant_what(copy_of(c, {first + 400, 2, 5}, {{1, first, a, 0}}), first, first + 450) ==
        "compare");
}

TEST_CASE("lineage: a distant copy that went on by itself is not touched") {
  const Tail at{first + 250, 3, 5};
  Lineage target = copy_of(c, at, {{1, first, a, 0}, {3, first + 200, c, 1}});
  CHECK(distant_what(target) == "fork");
  target.history[1].alone = 0;
  CHECK(distant_what(target) == "fork");
  // Not stopped in order, before it knew an epoch of its own.
  target = copy_of(c, {first + 200, 1, 5}, {{1, first, a, 0}});
  target.was_primary = true;
  CHECK(distant_what(target) == "fork");
  // Given up: it says that it acknowledged nothing alone, and is outdated.
  target = copy_of(c, at, {{1, first, a, 0}, {3, first + 200, c, 0}});
  target.was_primary = true;
  target.state = DiskState::outdated;
  CHECK(distant_what(target) == "roll_back");
  // Then in the middle of that, also by another source.
  target.state = DiskState::inconsistent;
  target.base = at;
  target.resync = 8;
  CHECK(distant_what(target) == "roll_back");
  // Its own word that it did counts in any state.
  target.history[1].alone = 1;
  CHECK(distant_what(target) == "fork");
}

TEST_CASE("lineage: a distant copy that became the primary has nothing in common with the others") {
  // C was a target of A's stream to it, and then the primary; A and B have the main stream.
  const Lineage here = copy_of(c, {first + 600, 3, 5}, {{1, first, a, 0}, {3, first + 500, c, 1}});
  const Lineage peer = copy_of(b, {5000, 1, 6}, {{1, 0, a, 0}});
  CHECK(what(here, means_of(first + 500, first + 500), peer) == "unrelated");
  CHECK(random_beginning() != random_beginning());
  for (int i = 0; i < 100; i++) {
    const Lsn one = random_beginning();
    CHECK(one >= Lsn{1} << 40);
    CHECK(one < Lsn{1} << 44);
  }
}
