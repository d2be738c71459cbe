#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "witness/connection.h"
#include "witness/store.h"

using namespace holdfast::witness;
namespace fs = std::filesystem;

namespace {

/** A folder that is gone after the test. */
struct Scratch {
  std::string path;
  Scratch() {
    char name[] = "/tmp/holdfast-store-XXXXXX";
    path = mkdtemp(name);
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  std::string records() const { return path + "/records"; }
};

Record at(uint64_t epoch, uint8_t primary = 0) {
  Record record;
  record.incarnation = 1;
  record.epoch = epoch;
  record.primary = primary;
  record.in_sync = 1ull << primary;
  record.lease_ms = 1500;
  return record;
}

/** What the calls of a swap were, and which one is to fail. */
struct Calls {
  std::vector<std::string> seen;
  std::string failing;
  int error = EIO;
} calls;

bool is_folder(int fd) {
  struct stat about {};
  return fstat(fd, &about) == 0 && S_ISDIR(about.st_mode);
}

int call(const std::string& name) {
  calls.seen.push_back(name);
  if (name != calls.failing) return 0;
  errno = calls.error;
  return -1;
}

int watched_fsync(int fd) {
  const int failed = call(is_folder(fd) ? "fsync folder" : "fsync file");
  return failed != 0 ? failed : fsync(fd);
}

int watched_rename(int folder, const char* from, const char* to) {
  const int failed = call("rename");
  return failed != 0 ? failed : renameat(folder, from, folder, to);
}

constexpr StoreCalls watched{watched_fsync, watched_rename};

void open_watched(Store& store, const Scratch& scratch) {
  calls = {};
  REQUIRE(store.open(scratch.records(), watched).ok());
  calls = {};
}

}  // namespace

TEST_CASE("witness store: a swap is durable, in this order, before it is won") {
  const Scratch scratch;
  Store store;
  open_watched(store, scratch);
  CHECK(store.swap("db", std::nullopt, at(1)).outcome == Outcome::won);
  CHECK(calls.seen == std::vector<std::string>{"fsync file", "rename", "fsync folder"});
  calls = {};
  CHECK(store.swap("db", std::nullopt, at(1)).outcome == Outcome::won);
  CHECK(store.swap("db", at(2), at(3)).outcome == Outcome::lost);
  CHECK(store.read("db").record == at(1));
  CHECK(calls.seen.empty());
}

TEST_CASE("witness store: what fails before the rename was never done") {
  for (const auto& [failing, error] :
       std::vector<std::pair<std::string, int>>{{"fsync file", EIO}, {"rename", ENOSPC}}) {
    const Scratch scratch;
    Store store;
    open_watched(store, scratch);
    REQUIRE(store.swap("db", std::nullopt, at(1)).outcome == Outcome::won);
    calls.failing = failing;
    calls.error = error;
    CHECK(store.swap("db", at(1), at(2)).outcome == Outcome::unreachable);
    CHECK_FALSE(store.is_broken());
    CHECK(store.read("db").record == at(1));
    calls.failing.clear();
    CHECK(store.swap("db", at(1), at(2, 1)).outcome == Outcome::won);
    Store again;
    REQUIRE(again.open(scratch.records()).ok());
    CHECK(again.read("db").record == at(2, 1));
  }
}

TEST_CASE("witness store: what fails after it is unknown, and nothing is told any more") {
  for (const std::string failing : {"rename", "fsync folder"}) {
    const Scratch scratch;
    Store store;
    open_watched(store, scratch);
    REQUIRE(store.swap("db", std::nullopt, at(1)).outcome == Outcome::won);
    calls.failing = failing;
    CHECK(store.swap("db", at(1), at(2)).outcome == Outcome::unknown);
    CHECK(store.is_broken());
    CHECK(store.read("db").outcome == Outcome::unreachable);
    CHECK(store.swap("other", std::nullopt, at(1)).outcome == Outcome::unreachable);
    // The next process: the folder is durable before it is believed.
    Store again;
    calls = {};
    REQUIRE(again.open(scratch.records(), watched).ok());
    CHECK(calls.seen.back() == "fsync folder");
    const uint64_t held = again.read("db").record->epoch;
    CHECK(held == (failing == "rename" ? 1u : 2u));
  }
}

TEST_CASE("witness store: a folder that cannot be made durable is not believed") {
  const Scratch scratch;
  {
    Store store;
    open_watched(store, scratch);
    REQUIRE(store.swap("db", std::nullopt, at(1)).outcome == Outcome::won);
  }
  for (const std::string failing : {"fsync file", "fsync folder"}) {
    calls = {};
    calls.failing = failing;
    Store store;
    const auto opened = store.open(scratch.records(), watched);
    CHECK(opened.error == EIO);
    CHECK(std::string(opened.call) == "fsync");
  }
}

TEST_CASE("witness store: a copy of a record is set aside, and the register is empty") {
  const Scratch scratch;
  const std::string file = scratch.records() + "/db";
  const std::string backup = scratch.path + "/backup";
  {
    Store store;
    open_watched(store, scratch);
    REQUIRE(store.swap("db", std::nullopt, at(1)).outcome == Outcome::won);
    REQUIRE(store.swap("kept", std::nullopt, at(7)).outcome == Outcome::won);
    fs::copy_file(file, backup);
    REQUIRE(store.swap("db", at(1), at(2)).outcome == Outcome::won);
  }
  SUBCASE("as a new file") {
    fs::remove(file);
    fs::copy_file(backup, file);
  }
  SUBCASE("into the file that is there") {
    std::ofstream(file, std::ios::binary | std::ios::in | std::ios::out)
        << std::ifstream(backup, std::ios::binary).rdbuf();
  }
  Store store;
  REQUIRE(store.open(scratch.records()).ok());
  CHECK(store.restored() == 1);
  CHECK(store.read("db").outcome == Outcome::record);
  CHECK_FALSE(store.read("db").record);
  CHECK(store.read("kept").record == at(7));
  CHECK(fs::exists(scratch.records() + "/.restored-db"));
  CHECK(store.swap("db", std::nullopt, at(9)).outcome == Outcome::won);
}

TEST_CASE("witness store: a damaged record is never guessed, and never empty") {
  const Scratch scratch;
  const std::string file = scratch.records() + "/db";
  {
    Store store;
    open_watched(store, scratch);
    REQUIRE(store.swap("db", std::nullopt, at(1)).outcome == Outcome::won);
  }
  std::string bytes(fs::file_size(file), 0);
  std::ifstream(file, std::ios::binary).read(bytes.data(), static_cast<int>(bytes.size()));
  REQUIRE(bytes.size() == 128);
  for (size_t bit = 0; bit < bytes.size() * 8; bit += 5) {
    std::string wrong = bytes;
    wrong[bit / 8] = static_cast<char>(wrong[bit / 8] ^ (1 << bit % 8));
    std::ofstream(file, std::ios::binary | std::ios::in | std::ios::out) << wrong;
    Store store;
    REQUIRE(store.open(scratch.records()).ok());
    REQUIRE(store.damaged() == 1);
    REQUIRE(store.read("db").outcome == Outcome::unreachable);
    REQUIRE(store.swap("db", std::nullopt, at(5)).outcome == Outcome::unreachable);
    REQUIRE(store.swap("db", at(1), at(5)).outcome == Outcome::unreachable);
  }
  for (const size_t size : {size_t{0}, size_t{127}, size_t{129}}) {
    std::ofstream(file, std::ios::binary | std::ios::in | std::ios::out) << bytes;
    fs::resize_file(file, size);
    Store store;
    REQUIRE(store.open(scratch.records()).ok());
    CHECK(store.read("db").outcome == Outcome::unreachable);
  }
}

TEST_CASE("witness store: bounded, and forward only") {
  const Scratch scratch;
  Store store;
  open_watched(store, scratch);
  for (size_t n = 0; n < modules_max; n++) {
    const std::string module = "m" + std::to_string(n);
    REQUIRE(store.swap(module, std::nullopt, at(1)).outcome == Outcome::won);
  }
  CHECK(store.swap("more", std::nullopt, at(1)).outcome == Outcome::unreachable);
  CHECK(store.swap("m0", at(1), at(2)).outcome == Outcome::won);
  CHECK(store.swap("m0", at(2), at(1)).outcome == Outcome::unreachable);
  CHECK(store.swap("m0", at(2), at(2, 1)).outcome == Outcome::unreachable);
  Store again;
  REQUIRE(again.open(scratch.records()).ok());
  CHECK(again.size() == modules_max);
  std::ofstream(scratch.records() + "/one-more") << "x";
  Store full;
  CHECK(full.open(scratch.records()).error == EOVERFLOW);
}

TEST_CASE("witness answers: what is no question changes nothing") {
  const Scratch scratch;
  Store store;
  open_watched(store, scratch);
  Question good;
  good.id = 7;
  good.ask = static_cast<uint8_t>(Ask::swap);
  good.module_size = 2;
  std::memcpy(good.module, "db", 2);
  good.to = at(1);
  const auto is_refused = [&](const Question& question) {
    const Answer answer = answer_to(store, question);
    CHECK(answer.id == 7);
    CHECK(answer.text_size > 0);
    return answer.outcome == static_cast<uint8_t>(Outcome::unreachable);
  };
  std::vector<Question> wrongs(9, good);
  wrongs[0].ask = 0;
  wrongs[1].ask = 3;
  wrongs[2].module_size = 0;
  wrongs[3].module_size = 255;
  wrongs[4].module_size = 1;  // and a letter behind it
  wrongs[5].has_from = 2;
  wrongs[6].to.in_sync = 0;
  wrongs[7].to.primary = 64;
  std::memcpy(wrongs[8].module, "..", 2);
  for (const Question& wrong : wrongs) CHECK(is_refused(wrong));
  CHECK(store.size() == 0);
  // Any bytes at all: an answer, and no crash.
  uint64_t state = 1;
  for (int round = 0; round < 20'000; round++) {
    Question any = good;
    auto* bytes = reinterpret_cast<uint8_t*>(&any);
    for (int n = 0; n < 3; n++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[8 + (state >> 33) % (sizeof any - 8)] = static_cast<uint8_t>(state >> 25);
    }
    const Answer answer = answer_to(store, any);
    REQUIRE(answer.outcome >= 1);
    REQUIRE(answer.text_size <= sizeof answer.text);
    if (store.size() >= modules_max / 2) break;
  }
}
