#include "filter/object.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "filter/pins.h"

namespace holdfast::filter {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the ABI and the hash are little endian");

MappedState& MappedState::operator=(MappedState&& other) noexcept {
  if (this != &other) {
    unmap();
    state_ = other.state_;
    other.state_ = nullptr;
  }
  return *this;
}

bool MappedState::map(int fd) {
  unmap();
  void* at = mmap(nullptr, sizeof(farm_state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return false;
  state_ = static_cast<farm_state*>(at);
  return true;
}

void MappedState::unmap() {
  if (state_ != nullptr) munmap(state_, sizeof(farm_state));
  state_ = nullptr;
}

uint64_t hash_file(const std::string& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "re"), fclose);
  if (!file) return 0;
  uint64_t hash = 0xcbf29ce484222325u;
  unsigned char block[4096];
  for (size_t n; (n = fread(block, 1, sizeof(block), file.get())) > 0;) {
    for (size_t i = 0; i < n; i++) hash = (hash ^ block[i]) * 0x100000001b3u;
  }
  return hash;
}

namespace {

/* The last warning of libbpf on this thread: what the verifier or the loader had to say. */
thread_local std::string last_warning;

int keep_warning(libbpf_print_level level, const char* format, va_list args) {
  if (level != LIBBPF_WARN) return 0;
  char line[512];
  vsnprintf(line, sizeof(line), format, args);
  std::string text = line;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  /* The verifier's log comes as one long warning that begins so; its end is what matters. */
  if (text.find("BEGIN PROG LOAD LOG") != std::string::npos) {
    size_t unknown = text.find("unknown func");
    if (unknown != std::string::npos) {
      last_warning = text.substr(unknown, text.find('\n', unknown) - unknown);
    }
  } else if (last_warning.rfind("unknown func", 0) != 0) {
    last_warning = text;
  }
  return 0;
}

struct Closer {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
using Loaded = std::unique_ptr<bpf_object, Closer>;

Loaded load(const std::string& path, int leases, bool with_xdp, std::string* why) {
  last_warning.clear();
  LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "farm");
  Loaded object(bpf_object__open_file(path.c_str(), &options));
  if (!object) {
    *why = sentence("cannot read the filter program " + path, errno);
    return nullptr;
  }
  bpf_program* xdp = bpf_object__find_program_by_name(object.get(), "farm_xdp");
  bpf_map* map = bpf_object__find_map_by_name(object.get(), "leases");
  if (xdp == nullptr || map == nullptr) {
    *why = path + " is not the farm's filter program";
    return nullptr;
  }
  bpf_program__set_autoload(xdp, with_xdp);
  int error = bpf_map__reuse_fd(map, leases);
  if (error == 0) error = bpf_object__load(object.get());
  if (error != 0) {
    *why = sentence("the kernel refuses the filter program", -error);
    if (!last_warning.empty()) *why += " (" + last_warning + ")";
    return nullptr;
  }
  return object;
}

Fd program_fd(const bpf_object* object, const char* name) {
  const bpf_program* program = bpf_object__find_program_by_name(object, name);
  int fd = program == nullptr ? -1 : bpf_program__fd(program);
  return Fd(fd < 0 ? -1 : dup(fd));
}

Fd map_fd(const bpf_object* object, const char* name) {
  int fd = bpf_object__find_map_fd_by_name(object, name);
  return Fd(fd < 0 ? -1 : dup(fd));
}

/* The map of the global variables; its name depends on the object's. */
Fd state_fd(const bpf_object* object) {
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    const char* dot = strrchr(bpf_map__name(map), '.');
    if (bpf_map__is_internal(map) && dot != nullptr && strcmp(dot, ".bss") == 0 &&
        bpf_map__value_size(map) >= sizeof(farm_state)) {
      return Fd(dup(bpf_map__fd(map)));
    }
  }
  return {};
}

struct Pin {
  const char* name;
  Fd FarmObject::*fd;
};
constexpr Pin pins[] = {
    {"state", &FarmObject::state_map},     {"counters", &FarmObject::counters},
    {"fragments", &FarmObject::fragments}, {"farm_xdp", &FarmObject::xdp},
    {"farm_tc", &FarmObject::tc},          {"farm_host", &FarmObject::host},
    {"farm_egress", &FarmObject::egress},
};

}  // namespace

void silence_libbpf() {
  libbpf_set_print(keep_warning);
}

bool load_object(const std::string& path, int leases, FarmObject* object, std::string* why) {
  uint64_t hash = hash_file(path);
  Loaded loaded = load(path, leases, true, why);
  if (!loaded) {
    object->xdp_refused = *why;
    loaded = load(path, leases, false, why);
    if (!loaded) return false;
  }
  object->xdp = program_fd(loaded.get(), "farm_xdp");
  object->tc = program_fd(loaded.get(), "farm_tc");
  object->host = program_fd(loaded.get(), "farm_host");
  object->egress = program_fd(loaded.get(), "farm_egress");
  object->counters = map_fd(loaded.get(), "counters");
  object->fragments = map_fd(loaded.get(), "fragments");
  object->state_map = state_fd(loaded.get());
  if (!object->tc.valid() || !object->host.valid() || !object->egress.valid() ||
      !object->counters.valid() || !object->fragments.valid() || !object->state_map.valid()) {
    *why = path + " lacks a program or map of this version";
    return false;
  }
  if (!object->state.map(object->state_map.get())) {
    *why = sentence("the kernel does not map the filter's configuration", errno);
    return false;
  }
  farm_state* state = object->state.get();
  state->magic = FARM_MAGIC;
  state->abi = FARM_ABI;
  state->object_hash = hash;
  return true;
}

bool pin_object(const FarmObject& object, const std::string& dir, std::string* why) {
  for (const Pin& pin : pins) {
    const Fd& fd = object.*pin.fd;
    std::string path = dir + "/" + pin.name;
    if (!fd.valid()) {
      unlink(path.c_str());
    } else if (!replace_pin(fd.get(), path, why)) {
      return false;
    }
  }
  return true;
}

bool adopt_object(const std::string& dir, uint64_t hash, FarmObject* object) {
  for (const Pin& pin : pins) {
    object->*pin.fd = open_pin(dir + "/" + pin.name);
    if (!(object->*pin.fd).valid() && pin.fd != &FarmObject::xdp) return false;
  }
  bpf_map_info info{};
  __u32 size = sizeof(info);
  if (bpf_obj_get_info_by_fd(object->state_map.get(), &info, &size) != 0) return false;
  if (info.value_size < sizeof(farm_state) || !object->state.map(object->state_map.get())) {
    return false;
  }
  const farm_state* state = object->state.get();
  return hash != 0 && state->magic == FARM_MAGIC && state->abi == FARM_ABI &&
         state->object_hash == hash;
}

void unpin_object(const std::string& dir) {
  for (const Pin& pin : pins) unlink((dir + "/" + pin.name).c_str());
}

}  // namespace holdfast::filter
