#include <fcntl.h>
#include <napi.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "beat/shm.h"
#include "common/clock.h"

/**
 * beat.node: the agent's view of the memory that it shares with holdfastd. TypeScript checks
 * arguments and decodes what this fills in; here only memory is touched.
 */
namespace {

using holdfast::beat::Announcement;
using holdfast::beat::Event;
using holdfast::beat::ModuleConfig;
using holdfast::beat::Shared;
using holdfast::beat::Stats;
using holdfast::beat::StatsRow;

constexpr napi_type_tag client_tag = {0x9d5b7c6ae3f14c21, 0x8f0a6d0be5a74310};

Napi::Error system_error(Napi::Env env, const char* call) {
  const int error = errno;
  Napi::Error thrown = Napi::Error::New(env, std::string(call) + ": " + strerror(error));
  thrown.Set("errno", Napi::Number::New(env, error));
  thrown.Set("syscall", Napi::String::New(env, call));
  return thrown;
}

class BeatClient : public Napi::ObjectWrap<BeatClient> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "BeatClient",
        {InstanceMethod<&BeatClient::drain>("drain"), InstanceMethod<&BeatClient::lost>("lost"),
         InstanceMethod<&BeatClient::restart>("restart"),
         InstanceMethod<&BeatClient::confirm>("confirm"),
         InstanceMethod<&BeatClient::announce>("announce"),
         InstanceMethod<&BeatClient::is_announced>("isAnnounced"),
         InstanceMethod<&BeatClient::stats>("stats"), InstanceMethod<&BeatClient::close>("close")});
  }

  /** new BeatClient(socketFd, shmFd): maps the memory; marks both descriptors close-on-exec. */
  explicit BeatClient(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BeatClient>(info) {
    const Napi::Env env = info.Env();
    info.This().As<Napi::Object>().TypeTag(&client_tag);
    const int socket = info[0].As<Napi::Number>().Int32Value();
    const int shm = info[1].As<Napi::Number>().Int32Value();
    struct stat status {};
    // Scripts that the agent starts must not hold the heartbeat's socket open.
    if (fcntl(socket, F_SETFD, FD_CLOEXEC) != 0 || fcntl(shm, F_SETFD, FD_CLOEXEC) != 0) {
      system_error(env, "fcntl").ThrowAsJavaScriptException();
      return;
    }
    if (fstat(shm, &status) != 0 || status.st_size != sizeof(Shared)) {
      errno = EPROTO;
      system_error(env, "fstat").ThrowAsJavaScriptException();
      return;
    }
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, shm, 0);
    if (memory == MAP_FAILED) {
      system_error(env, "mmap").ThrowAsJavaScriptException();
      return;
    }
    shared_ = static_cast<Shared*>(memory);
    if (shared_->magic == holdfast::beat::shm_magic && shared_->size == sizeof(Shared)) return;
    unmap();
    errno = EPROTO;
    system_error(env, "mmap").ThrowAsJavaScriptException();
  }

  ~BeatClient() override { unmap(); }

 private:
  void unmap() {
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
    shared_ = nullptr;
  }

  /** drain(buffer): fills it with whole Event records, returns how many; 0 means none wait. */
  Napi::Value drain(const Napi::CallbackInfo& info) {
    auto buffer = info[0].As<Napi::Uint8Array>();
    if (shared_ == nullptr) return Napi::Number::New(info.Env(), 0);
    shared_->rung.store(0, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const auto room = static_cast<uint32_t>(buffer.ByteLength() / sizeof(Event));
    const uint32_t count = shared_->events.pop(reinterpret_cast<Event*>(buffer.Data()), room);
    return Napi::Number::New(info.Env(), count);
  }

  /** lost(): events that found the ring full, since holdfastd started. */
  Napi::Value lost(const Napi::CallbackInfo& info) {
    const uint64_t count =
        shared_ == nullptr ? 0 : shared_->events.lost.load(std::memory_order_relaxed);
    return Napi::Number::New(info.Env(), static_cast<double>(count));
  }

  /** restart(): drops what an earlier agent left unread. */
  Napi::Value restart(const Napi::CallbackInfo& info) {
    if (shared_ != nullptr) {
      shared_->events.clear();
      shared_->rung.store(0, std::memory_order_release);
    }
    return info.Env().Undefined();
  }

  /** confirm(): the agent lives, now. */
  Napi::Value confirm(const Napi::CallbackInfo& info) {
    if (shared_ != nullptr) {
      shared_->agent_alive_ns.store(static_cast<uint64_t>(holdfast::boot_ns()),
                                    std::memory_order_relaxed);
    }
    return info.Env().Undefined();
  }

  /**
   * announce(buffer of ModuleConfig records, at most max_modules): they replace what was announced;
   * false when their size is wrong. A heartbeat that is composed later speaks of them.
   */
  Napi::Value announce(const Napi::CallbackInfo& info) {
    auto buffer = info[0].As<Napi::Uint8Array>();
    const size_t size = buffer.ByteLength();
    const bool fits = size % sizeof(ModuleConfig) == 0 && size <= sizeof(Announcement::modules);
    if (shared_ == nullptr || !fits) return Napi::Boolean::New(info.Env(), false);
    Announcement announcement;
    // By the clock, so that it is above those of any former agent.
    number_ = std::max(number_ + 1, static_cast<uint64_t>(holdfast::boot_ns()));
    announcement.number = number_;
    announcement.count = static_cast<uint32_t>(size / sizeof(ModuleConfig));
    std::memcpy(announcement.modules, buffer.Data(), size);
    shared_->announcement.write(announcement);
    return Napi::Boolean::New(info.Env(), true);
  }

  /** isAnnounced(): the heartbeat thread acts by the newest announcement of this client, if there
   * is one. */
  Napi::Value is_announced(const Napi::CallbackInfo& info) {
    const bool acts =
        shared_ != nullptr && shared_->announced.load(std::memory_order_acquire) >= number_;
    return Napi::Boolean::New(info.Env(), acts);
  }

  /** stats(buffer of sizeof(Stats)): copies the counters; false when the writer was in the way. */
  Napi::Value stats(const Napi::CallbackInfo& info) {
    auto buffer = info[0].As<Napi::Uint8Array>();
    const bool fits = shared_ != nullptr && buffer.ByteLength() == sizeof(Stats);
    const bool read = fits && shared_->stats.read(*reinterpret_cast<Stats*>(buffer.Data()));
    return Napi::Boolean::New(info.Env(), read);
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    unmap();
    return info.Env().Undefined();
  }

  Shared* shared_ = nullptr;
  uint64_t number_ = 0;
};

/** nowMs(): CLOCK_BOOTTIME in ms with a fraction. */
Napi::Value now_ms(const Napi::CallbackInfo& info) {
  const double ns = static_cast<double>(holdfast::boot_ns());
  return Napi::Number::New(info.Env(), ns / static_cast<double>(holdfast::ns_per_ms));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("BeatClient", BeatClient::define(env));
  exports.Set("nowMs", Napi::Function::New(env, now_ms, "nowMs"));
  // What src/native/beat.ts decodes; it compares these with its own numbers when it opens.
  Napi::Object layout = Napi::Object::New(env);
  const auto number = [&](const char* name, size_t value) {
    layout.Set(name, Napi::Number::New(env, static_cast<double>(value)));
  };
  number("module", sizeof(ModuleConfig));
  number("event", sizeof(Event));
  number("eventAtNs", offsetof(Event, at_ns));
  number("stats", sizeof(Stats));
  number("statsRows", offsetof(Stats, rows));
  number("statsRow", sizeof(StatsRow));
  exports.Set("layout", layout);
  return exports;
}

}  // namespace

NODE_API_MODULE(beat, init)
