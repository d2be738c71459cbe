#include <napi.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <optional>

#include "link/announce.h"
#include "link/engine.h"
#include "link/monitor.h"
#include "link/notify.h"
#include "link/sockets.h"

/**
 * link.node: one class, Link. TypeScript has checked the types and the range of every argument;
 * addresses and MACs are parsed here. Failures are Errors with `errno` and `syscall`.
 */
namespace {

using namespace holdfast;
using link::Address;
using link::Mac;

constexpr napi_type_tag link_tag = {0x3b5e0a9f6e2d4b71, 0x9c0fd2a8471b6e55};
/** Events handed over per turn, so that a storm of them does not hold up the event loop. */
constexpr uint32_t events_per_turn = 64;

Napi::Error error_of(Napi::Env env, int error, const char* call) {
  Napi::Error thrown = Napi::Error::New(env, std::string(call) + ": " + strerror(error));
  thrown.Set("errno", Napi::Number::New(env, error));
  thrown.Set("syscall", Napi::String::New(env, call));
  return thrown;
}

/** Throws when the result is a failure; true when it is a success. */
template <typename T>
bool check(Napi::Env env, const Result<T>& result) {
  if (!result.ok()) error_of(env, result.error, result.call).ThrowAsJavaScriptException();
  return result.ok();
}

std::string text_of(const Napi::Value& value) {
  return value.As<Napi::String>().Utf8Value();
}

/** Runs `work` on a libuv thread, then settles a promise with what `convert` makes of its value. */
template <typename T>
class Task : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result<T>()>;
  using Convert = std::function<Napi::Value(Napi::Env, const T&)>;

  Task(Napi::Env env, Work work, Convert convert)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        work_(std::move(work)),
        convert_(std::move(convert)) {}

  static Napi::Value run(Napi::Env env, Work work, Convert convert) {
    auto* task = new Task(env, std::move(work), std::move(convert));
    const Napi::Promise promise = task->deferred_.Promise();
    task->Queue();  // Deletes itself when done.
    return promise;
  }

  void Execute() override { result_ = work_(); }
  void OnOK() override {
    const Napi::Env env = Env();
    if (result_.ok()) {
      deferred_.Resolve(convert_(env, result_.value));
    } else {
      deferred_.Reject(error_of(env, result_.error, result_.call).Value());
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  Work work_;
  Convert convert_;
  Result<T> result_;
};

class Link : public Napi::ObjectWrap<Link> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Link",
        {InstanceMethod<&Link::devices>("devices"), InstanceMethod<&Link::addresses>("addresses"),
         InstanceMethod<&Link::add_address>("addAddress"),
         InstanceMethod<&Link::remove_address>("removeAddress"),
         InstanceMethod<&Link::allow_mac>("allowMac"),
         InstanceMethod<&Link::disallow_mac>("disallowMac"),
         InstanceMethod<&Link::announce>("announce"), InstanceMethod<&Link::probe>("probe"),
         InstanceMethod<&Link::ask>("ask"),
         InstanceMethod<&Link::reset_connections>("resetConnections"),
         InstanceMethod<&Link::watch>("watch"), InstanceMethod<&Link::close>("close")});
  }

  explicit Link(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Link>(info) {
    info.This().As<Napi::Object>().TypeTag(&link_tag);
  }
  ~Link() override { shut_down(); }

 private:
  /** The address in argument `index`; throws and returns none when it is not one. */
  static std::optional<Address> address_in(const Napi::CallbackInfo& info, size_t index) {
    const Address address = link::parse_address(text_of(info[index]));
    if (address.family != 0) return address;
    error_of(info.Env(), EINVAL, "inet_pton").ThrowAsJavaScriptException();
    return {};
  }

  static std::optional<Mac> mac_in(const Napi::CallbackInfo& info, size_t index) {
    Mac mac;
    if (link::parse_mac(text_of(info[index]), mac)) return mac;
    error_of(info.Env(), EINVAL, "mac").ThrowAsJavaScriptException();
    return {};
  }

  /** devices(): [{index, name, mac, up, mtu}] */
  Napi::Value devices(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const auto result = engine_.devices();
    if (!check(env, result)) return env.Undefined();
    Napi::Array list = Napi::Array::New(env, result.value.size());
    for (uint32_t i = 0; i < result.value.size(); i++) {
      const link::Device& device = result.value[i];
      Napi::Object each = Napi::Object::New(env);
      each.Set("index", device.index);
      each.Set("name", device.name);
      each.Set("mac", link::to_text(device.mac));
      each.Set("up", device.up);
      each.Set("mtu", device.mtu);
      list.Set(i, each);
    }
    return list;
  }

  /** addresses(): [{index (of the device), addr, prefix}] */
  Napi::Value addresses(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const auto result = engine_.addresses();
    if (!check(env, result)) return env.Undefined();
    Napi::Array list = Napi::Array::New(env, result.value.size());
    for (uint32_t i = 0; i < result.value.size(); i++) {
      const link::DeviceAddress& found = result.value[i];
      Napi::Object each = Napi::Object::New(env);
      each.Set("index", found.index);
      each.Set("addr", link::to_text(found.address));
      each.Set("prefix", static_cast<uint32_t>(found.prefix));
      list.Set(i, each);
    }
    return list;
  }

  /** addAddress(device, addr, prefix) */
  Napi::Value add_address(const Napi::CallbackInfo& info) {
    const auto address = address_in(info, 1);
    if (!address) return info.Env().Undefined();
    const auto prefix = static_cast<uint8_t>(info[2].As<Napi::Number>().Uint32Value());
    check(info.Env(), engine_.add_address(text_of(info[0]), *address, prefix));
    return info.Env().Undefined();
  }

  /** removeAddress(device, addr, prefix) */
  Napi::Value remove_address(const Napi::CallbackInfo& info) {
    const auto address = address_in(info, 1);
    if (!address) return info.Env().Undefined();
    const auto prefix = static_cast<uint8_t>(info[2].As<Napi::Number>().Uint32Value());
    check(info.Env(), engine_.remove_address(text_of(info[0]), *address, prefix));
    return info.Env().Undefined();
  }

  /** allowMac(device, mac): true when an fdb entry did it, false for promiscuous mode. */
  Napi::Value allow_mac(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const auto mac = mac_in(info, 1);
    if (!mac) return env.Undefined();
    const auto result = engine_.allow_mac(text_of(info[0]), *mac);
    if (!check(env, result)) return env.Undefined();
    return Napi::Boolean::New(env, result.value == link::Allowed::fdb);
  }

  /** disallowMac(device, mac) */
  Napi::Value disallow_mac(const Napi::CallbackInfo& info) {
    const auto mac = mac_in(info, 1);
    if (mac) check(info.Env(), engine_.disallow_mac(text_of(info[0]), *mac));
    return info.Env().Undefined();
  }

  /** announce(device, addr, mac) */
  Napi::Value announce(const Napi::CallbackInfo& info) {
    const auto address = address_in(info, 1);
    if (!address) return info.Env().Undefined();
    const auto mac = mac_in(info, 2);
    if (mac) check(info.Env(), link::announce(text_of(info[0]), *address, *mac));
    return info.Env().Undefined();
  }

  /** probe(device, addr, timeoutMs): promise of a MAC or null */
  Napi::Value probe(const Napi::CallbackInfo& info) {
    const auto address = address_in(info, 1);
    if (!address) return info.Env().Undefined();
    const std::string device = text_of(info[0]);
    const int timeout_ms = info[2].As<Napi::Number>().Int32Value();
    return Task<std::optional<Mac>>::run(
        info.Env(), [=, at = *address] { return link::probe(device, at, timeout_ms); },
        mac_or_null);
  }

  static Napi::Value mac_or_null(Napi::Env env, const std::optional<Mac>& mac) {
    if (!mac) return env.Null();
    return Napi::String::New(env, link::to_text(*mac));
  }

  /** ask(device, from, target, timeoutMs): promise of a MAC or null */
  Napi::Value ask(const Napi::CallbackInfo& info) {
    const auto from = address_in(info, 1);
    if (!from) return info.Env().Undefined();
    const auto target = address_in(info, 2);
    if (!target) return info.Env().Undefined();
    const std::string device = text_of(info[0]);
    const int timeout_ms = info[3].As<Napi::Number>().Int32Value();
    return Task<std::optional<Mac>>::run(
        info.Env(),
        [=, own = *from, at = *target] { return link::ask(device, own, at, timeout_ms); },
        mac_or_null);
  }

  /** resetConnections(addr): promise of a number */
  Napi::Value reset_connections(const Napi::CallbackInfo& info) {
    const auto address = address_in(info, 0);
    if (!address) return info.Env().Undefined();
    return Task<int>::run(
        info.Env(), [at = *address] { return link::reset_connections(at); },
        [](Napi::Env env, const int& count) -> Napi::Value {
          return Napi::Number::New(env, count);
        });
  }

  /** watch(listener): calls listener(events) from now on; see hand_over for the events. */
  Napi::Value watch(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (monitor_) return env.Undefined();
    monitor_ = std::make_unique<link::Monitor>();
    // A queue of two: one call in flight, one that covers what came after it began.
    doorbell_ = Napi::ThreadSafeFunction::New(env, info[0].As<Napi::Function>(), "hf-link", 2, 1);
    doorbell_.Unref(env);
    // After the doorbell: hooks run last in, first out, and the thread must end before it goes.
    napi_add_env_cleanup_hook(env, on_teardown, this);
    hooked_ = true;
    env_ = env;
    const Result<int> started = monitor_->start([this] {
      doorbell_.NonBlockingCall([this](Napi::Env at, Napi::Function listener) {
        if (static_cast<napi_env>(at) != nullptr) hand_over(at, listener);
      });
    });
    if (!check(env, started)) shut_down();
    return env.Undefined();
  }

  /** Events: {kind: 'link'|'addr'|'overrun', on, index, device, addr} */
  void hand_over(Napi::Env env, Napi::Function listener) {
    if (!monitor_) return;
    link::MonitorEvent events[events_per_turn];
    const uint32_t count = monitor_->drain(events, events_per_turn);
    if (count == 0) return;
    static constexpr const char* kinds[] = {"link", "addr", "overrun"};
    Napi::Array list = Napi::Array::New(env, count);
    for (uint32_t i = 0; i < count; i++) {
      Napi::Object each = Napi::Object::New(env);
      each.Set("kind", kinds[static_cast<size_t>(events[i].kind)]);
      each.Set("on", events[i].on);
      each.Set("index", events[i].index);
      each.Set("device", events[i].name);
      each.Set("addr", link::to_text(events[i].address));
      list.Set(i, each);
    }
    // A full batch may have left some behind: come again, after whatever else waits.
    if (count == events_per_turn) {
      doorbell_.NonBlockingCall([this](Napi::Env at, Napi::Function again) {
        if (static_cast<napi_env>(at) != nullptr) hand_over(at, again);
      });
    }
    listener.Call({list});
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    shut_down();
    return info.Env().Undefined();
  }

  static void on_teardown(void* self) {
    auto* link = static_cast<Link*>(self);
    link->hooked_ = false;
    link->shut_down();
  }

  /** Joins the thread first: nobody can then ring a doorbell that is being taken down. */
  void shut_down() {
    if (!monitor_) return;
    monitor_->stop();
    monitor_.reset();
    doorbell_.Abort();
    if (hooked_) napi_remove_env_cleanup_hook(env_, on_teardown, this);
    hooked_ = false;
  }

  link::Engine engine_;
  std::unique_ptr<link::Monitor> monitor_;
  Napi::ThreadSafeFunction doorbell_;
  napi_env env_ = nullptr;
  bool hooked_ = false;
};

/** notify(state): boolean */
Napi::Value notify(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), link::notify(text_of(info[0])));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("Link", Link::define(env));
  exports.Set("notify", Napi::Function::New(env, notify, "notify"));
  return exports;
}

}  // namespace

NODE_API_MODULE(link, init)
