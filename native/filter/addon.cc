/* The filter's N-API face; src/native/filter.ts is its only caller. Engines return sentences; here
 * they become JavaScript errors, which filter.ts gives their codes. */
#include <bpf/bpf.h>
#include <napi.h>

#include <cstddef>
#include <string>

#include "filter/filter.h"
#include "filter/hook.h"
#include "filter/rig.h"
#include "filter/sockets.h"

namespace holdfast::filter {
namespace {

Napi::Value fail(Napi::Env env, const std::string& why) {
  Napi::Error::New(env, why).ThrowAsJavaScriptException();
  return env.Undefined();
}

std::span<const uint8_t> bytes_of(const Napi::Value& value) {
  auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

Napi::Value number(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

std::string text_at(const Napi::Object& object, const char* key) {
  return object.Get(key).As<Napi::String>().Utf8Value();
}

/* walk_sockets off the JavaScript thread, on a copy of the configuration. */
class SocketWalk : public Napi::AsyncWorker {
 public:
  SocketWalk(Napi::Env env, Fd socket, std::span<const uint8_t> config)
      : Napi::AsyncWorker(env),
        promise_(Napi::Promise::Deferred::New(env)),
        socket_(std::move(socket)),
        config_(config.begin(), config.end()) {}

  Napi::Promise promise() const { return promise_.Promise(); }

 protected:
  void Execute() override {
    std::string why;
    const auto& config = *reinterpret_cast<const farm_config*>(config_.data());
    if (!walk_sockets(socket_.get(), config, &maps_, &why)) SetError(why);
  }
  void OnOK() override {
    Napi::Array maps = Napi::Array::New(Env(), maps_.size());
    for (size_t i = 0; i < maps_.size(); i++) {
      auto map = Napi::Uint8Array::New(Env(), maps_[i].size());
      memcpy(map.Data(), maps_[i].data(), maps_[i].size());
      maps.Set(static_cast<uint32_t>(i), map);
    }
    promise_.Resolve(maps);
  }
  void OnError(const Napi::Error& error) override { promise_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred promise_;
  Fd socket_;
  std::vector<uint8_t> config_;
  std::vector<BucketMap> maps_;
};

class FilterHandle : public Napi::ObjectWrap<FilterHandle> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeFilter",
                       {InstanceMethod<&FilterHandle::info>("info"),
                        InstanceMethod<&FilterHandle::commit>("commit"),
                        InstanceMethod<&FilterHandle::counters>("counters"),
                        InstanceMethod<&FilterHandle::claim>("claim"),
                        InstanceMethod<&FilterHandle::sockets>("sockets"),
                        InstanceMethod<&FilterHandle::detach>("detach"),
                        InstanceMethod<&FilterHandle::test_run>("testRun"),
                        InstanceMethod<&FilterHandle::set_lease>("setLease")});
  }

  explicit FilterHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FilterHandle>(info) {
    Napi::Object given = info[0].As<Napi::Object>();
    OpenOptions options{.device = text_at(given, "device"),
                        .pin_dir = text_at(given, "pinDir"),
                        .hook = text_at(given, "hook"),
                        .object_path = text_at(given, "objectPath")};
    std::string why;
    filter_ = Filter::open(options, &why);
    if (!filter_) fail(info.Env(), why);
  }

 private:
  Napi::Value info(const Napi::CallbackInfo& call) {
    Napi::Env env = call.Env();
    Napi::Object result = Napi::Object::New(env);
    result.Set("device", filter_->device().name);
    result.Set("hook", hook_name(filter_->hook()));
    result.Set("adopted", filter_->adopted());
    Napi::Array reasons = Napi::Array::New(env);
    for (const std::string& reason : filter_->reasons()) {
      reasons.Set(reasons.Length(), Napi::String::New(env, reason));
    }
    result.Set("reasons", reasons);
    return result;
  }

  /* (config: Uint8Array) => ns that copying and flipping took. */
  Napi::Value commit(const Napi::CallbackInfo& call) {
    std::string why;
    if (!filter_->commit(bytes_of(call[0]), &why)) return fail(call.Env(), why);
    return number(call.Env(), static_cast<uint64_t>(filter_->last_copy_ns()));
  }

  /* () => Float64Array: the reasons in order, then accepted and dropped of each rule. */
  Napi::Value counters(const Napi::CallbackInfo& call) {
    farm_counters sum;
    std::string why;
    if (!filter_->counters(&sum, &why)) return fail(call.Env(), why);
    auto flat = Napi::Float64Array::New(call.Env(), FARM_REASON_COUNT + 2 * FARM_RULES);
    for (unsigned i = 0; i < FARM_REASON_COUNT; i++) flat[i] = static_cast<double>(sum.reasons[i]);
    for (unsigned i = 0; i < FARM_RULES; i++) {
      flat[FARM_REASON_COUNT + 2 * i] = static_cast<double>(sum.rules[i].accepted);
      flat[FARM_REASON_COUNT + 2 * i + 1] = static_cast<double>(sum.rules[i].dropped);
    }
    return flat;
  }

  /* (vip: number) => { atMs: number, mac: number[] } or null; @see Filter::claim */
  Napi::Value claim(const Napi::CallbackInfo& call) {
    const farm_claim found = filter_->claim(call[0].As<Napi::Number>().Uint32Value());
    if (found.at_ns == 0) return call.Env().Null();
    Napi::Array mac = Napi::Array::New(call.Env(), sizeof found.mac);
    for (uint32_t i = 0; i < sizeof found.mac; i++) {
      mac.Set(i, static_cast<double>(found.mac[i]));
    }
    Napi::Object result = Napi::Object::New(call.Env());
    result.Set("atMs", static_cast<double>(found.at_ns) / 1e6);
    result.Set("mac", mac);
    return result;
  }

  /* (config: Uint8Array) => Promise<Uint8Array[]>, one bucket map per table. */
  Napi::Value sockets(const Napi::CallbackInfo& call) {
    auto config = bytes_of(call[0]);
    if (config.size() != sizeof(farm_config)) return fail(call.Env(), "wrong size");
    std::string why;
    Fd socket = open_sock_diag(&why);
    if (!socket.valid()) return fail(call.Env(), why);
    auto* walk = new SocketWalk(call.Env(), std::move(socket), config);
    Napi::Promise promise = walk->promise();
    walk->Queue(); /* deletes itself when done */
    return promise;
  }

  Napi::Value detach(const Napi::CallbackInfo& call) {
    filter_->detach();
    return call.Env().Undefined();
  }

  /* (program: 'xdp'|'tc'|'host'|'egress', packet, repeat) => { verdict, ns, packet } */
  Napi::Value test_run(const Napi::CallbackInfo& call) {
    Napi::Env env = call.Env();
    std::string name = call[0].As<Napi::String>().Utf8Value();
    const FarmObject& object = filter_->object();
    const Fd& program = name == "xdp"    ? object.xdp
                        : name == "tc"   ? object.tc
                        : name == "host" ? object.host
                                         : object.egress;
    TestRun run;
    std::string why;
    if (!filter::test_run(program.get(), bytes_of(call[1]), call[2].As<Napi::Number>(), &run,
                          &why)) {
      return fail(env, why);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("verdict", number(env, run.verdict));
    result.Set("ns", number(env, run.ns));
    auto packet = Napi::Uint8Array::New(env, run.packet.size());
    memcpy(packet.Data(), run.packet.data(), run.packet.size());
    result.Set("packet", packet);
    return result;
  }

  /* (slot, until: bigint): boot time in ns. The agent's leases are written by the heartbeat thread.
   */
  Napi::Value set_lease(const Napi::CallbackInfo& call) {
    __u32 slot = call[0].As<Napi::Number>();
    bool lossless = false;
    __u64 until = call[1].As<Napi::BigInt>().Uint64Value(&lossless);
    if (bpf_map_update_elem(filter_->leases(), &slot, &until, BPF_ANY) != 0) {
      return fail(call.Env(), "no such lease");
    }
    return call.Env().Undefined();
  }

  std::unique_ptr<Filter> filter_;
};

/* An open program or attachment; gone with close() or when collected. */
class FdHandle : public Napi::ObjectWrap<FdHandle> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeFd", {InstanceMethod<&FdHandle::close>("close")});
  }
  explicit FdHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FdHandle>(info) {
    fd_ = std::move(*info[0].As<Napi::External<Fd>>().Data());
  }
  const Fd& fd() const { return fd_; }

 private:
  Napi::Value close(const Napi::CallbackInfo& call) {
    fd_.reset();
    return call.Env().Undefined();
  }
  Fd fd_;
};

struct Instance {
  Napi::FunctionReference fd_class;
};

Napi::Value wrap(Napi::Env env, Fd fd) {
  auto* instance = env.GetInstanceData<Instance>();
  return instance->fd_class.New({Napi::External<Fd>::New(env, &fd)});
}

/* (device) => handle; an XDP program on it that passes everything. */
Napi::Value attach_pass_js(const Napi::CallbackInfo& call) {
  std::string why;
  Fd link = attach_pass(call[0].As<Napi::String>().Utf8Value(), &why);
  if (!link.valid()) return fail(call.Env(), why);
  return wrap(call.Env(), std::move(link));
}

Napi::Value sandbox_js(const Napi::CallbackInfo& call) {
  std::string why;
  return enter_sandbox(&why) ? call.Env().Undefined() : fail(call.Env(), why);
}

Napi::Value set_gro_js(const Napi::CallbackInfo& call) {
  std::string why;
  bool done = set_gro(call[0].As<Napi::String>().Utf8Value(), call[1].As<Napi::Boolean>(), &why);
  return done ? call.Env().Undefined() : fail(call.Env(), why);
}

/* (objectPath, name) => handle of a program. */
Napi::Value load_program_js(const Napi::CallbackInfo& call) {
  std::string why;
  Fd program = load_program(call[0].As<Napi::String>().Utf8Value(),
                            call[1].As<Napi::String>().Utf8Value(), &why);
  if (!program.valid()) return fail(call.Env(), why);
  return wrap(call.Env(), std::move(program));
}

/* (program handle, device, native: boolean) => handle of the link. */
Napi::Value attach_program_js(const Napi::CallbackInfo& call) {
  std::string why;
  Device device;
  Fd link;
  if (read_device(call[1].As<Napi::String>().Utf8Value(), &device, &why)) {
    const Fd& program = FdHandle::Unwrap(call[0].As<Napi::Object>())->fd();
    link = attach_xdp(device, program.get(),
                      call[2].As<Napi::Boolean>() ? Hook::xdp_native : Hook::xdp_generic, &why);
  }
  if (!link.valid()) return fail(call.Env(), why);
  return wrap(call.Env(), std::move(link));
}

/* (program handle, device, frame, count) => ns per frame. */
Napi::Value send_live_js(const Napi::CallbackInfo& call) {
  std::string why;
  Device device;
  int64_t took = -1;
  if (read_device(call[1].As<Napi::String>().Utf8Value(), &device, &why)) {
    took = send_live(FdHandle::Unwrap(call[0].As<Napi::Object>())->fd().get(), device.index,
                     bytes_of(call[2]), call[3].As<Napi::Number>(), &why);
  }
  if (took < 0) return fail(call.Env(), why);
  return Napi::Number::New(call.Env(), static_cast<double>(took));
}

/* Sizes, offsets and limits of farm_abi.h, for the test that compares filter-abi.ts with them. */
Napi::Value layout(const Napi::CallbackInfo& call) {
  Napi::Env env = call.Env();
  Napi::Object o = Napi::Object::New(env);
#define FIELD(key, value) o.Set(key, number(env, value))
  FIELD("configSize", sizeof(farm_config));
  FIELD("hashKey", offsetof(farm_config, hash_key));
  FIELD("mac", offsetof(farm_config, mac));
  FIELD("me", offsetof(farm_config, me));
  FIELD("vipCount", offsetof(farm_config, vip_count));
  FIELD("ruleCount", offsetof(farm_config, rule_count));
  FIELD("tableCount", offsetof(farm_config, table_count));
  FIELD("vip4", offsetof(farm_config, vip4));
  FIELD("vip6", offsetof(farm_config, vip6));
  FIELD("vips", offsetof(farm_config, vips));
  FIELD("vipSize", sizeof(farm_vip));
  FIELD("rules", offsetof(farm_config, rules));
  FIELD("ruleSize", sizeof(farm_rule));
  FIELD("macs", offsetof(farm_config, macs));
  FIELD("macSize", sizeof(farm_mac));
  FIELD("flags", offsetof(farm_config, flags));
  FIELD("owner", offsetof(farm_config, owner));
  FIELD("holder", offsetof(farm_config, holder));
  FIELD("buckets", FARM_BUCKETS);
  FIELD("tables", FARM_TABLES);
  FIELD("maxRules", FARM_RULES);
  FIELD("maxVips", FARM_VIPS);
  FIELD("nodes", FARM_NODES);
  FIELD("leases", FARM_LEASES);
#undef FIELD
  Napi::Array reasons = Napi::Array::New(env);
#define REASON(name, text) reasons.Set(reasons.Length(), Napi::String::New(env, #name));
  FARM_REASONS(REASON)
#undef REASON
  o.Set("reasons", reasons);
  return o;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  silence_libbpf();
  auto* instance = new Instance();
  instance->fd_class = Napi::Persistent(FdHandle::define(env));
  env.SetInstanceData(instance);
  exports.Set("NativeFilter", FilterHandle::define(env));
  exports.Set("layout", Napi::Function::New(env, layout));
  exports.Set("attachPass", Napi::Function::New(env, attach_pass_js));
  exports.Set("sandbox", Napi::Function::New(env, sandbox_js));
  exports.Set("setGro", Napi::Function::New(env, set_gro_js));
  exports.Set("loadProgram", Napi::Function::New(env, load_program_js));
  exports.Set("attachProgram", Napi::Function::New(env, attach_program_js));
  exports.Set("sendLive", Napi::Function::New(env, send_live_js));
  return exports;
}

}  // namespace
}  // namespace holdfast::filter

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return holdfast::filter::init(env, exports);
}

NODE_API_MODULE(filter, Init)
