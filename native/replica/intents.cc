#include "replica/intents.h"

#include <algorithm>
#include <cstring>

namespace holdfast::replica {

void Intents::inherit() {
  for (size_t i = 0; i < intent_slots; i++) {
    Intent& intent = shared_->intents[i];
    // A slot that was only being filled: its change had not begun.
    if (intent.phase.load() == claimed) intent.phase.store(0);
    inherited_[i] = intent.phase.load() != 0;
    any_inherited_ = any_inherited_ || inherited_[i];
  }
}

Intent* Intents::begin(uint32_t opcode, uint8_t volume, uint64_t unique) {
  static thread_local size_t hint = 0;
  for (;;) {
    for (size_t n = 0; n < intent_slots; n++) {
      const size_t at = (hint + n) % intent_slots;
      Intent& intent = shared_->intents[at];
      uint32_t expected = 0;
      if (intent.phase.load(std::memory_order_relaxed) != 0 ||
          !intent.phase.compare_exchange_strong(expected, claimed)) {
        continue;
      }
      hint = at;
      intent.opcode = opcode | uint32_t{volume} << 24;
      intent.unique = unique;
      intent.lsn = 0;
      intent.made = 0;
      std::memset(intent.before, 0, sizeof intent.before);
      return &intent;
    }
    std::unique_lock lock(mutex_);
    // What an earlier process had finished, and nobody asked for again, was answered.
    bool found = false;
    for (size_t i = 0; i < intent_slots; i++) {
      if (!inherited_[i] || shared_->intents[i].phase.load() != 2) continue;
      inherited_[i] = false;
      shared_->intents[i].phase.store(0);
      found = true;
    }
    if (found) continue;
    waiting_ = true;
    freed_.wait_for(lock, std::chrono::milliseconds(10));
  }
}

void Intents::plan(Intent* intent, IntentPlan plan, std::string_view name,
                   std::string_view new_name) {
  static_assert(sizeof(IntentPlan) + 2 * 256 <= sizeof Intent::bytes);
  plan.name_size = static_cast<uint16_t>(std::min<size_t>(name.size(), 255));
  plan.new_name_size = static_cast<uint16_t>(std::min<size_t>(new_name.size(), 255));
  std::memcpy(intent->bytes, &plan, sizeof plan);
  uint8_t* at = intent->bytes + sizeof plan;
  at = std::copy_n(name.begin(), plan.name_size, at);
  std::copy_n(new_name.begin(), plan.new_name_size, at);
  intent->phase.store(1, std::memory_order_release);
}

void Intents::read_plan(const Intent& intent, IntentPlan& plan, std::string_view& name,
                        std::string_view& new_name) {
  std::memcpy(&plan, intent.bytes, sizeof plan);
  const auto* at = reinterpret_cast<const char*>(intent.bytes + sizeof plan);
  name = {at, std::min<size_t>(plan.name_size, 255)};
  new_name = {at + name.size(), std::min<size_t>(plan.new_name_size, 255)};
}

void Intents::done(Intent* intent, Lsn lsn) {
  intent->lsn = lsn;
  intent->phase.store(2, std::memory_order_release);
}

void Intents::end(Intent* intent) {
  if (intent == nullptr) return;
  intent->phase.store(0, std::memory_order_release);
  if (waiting_) {
    const std::lock_guard lock(mutex_);
    freed_.notify_all();
  }
}

Intent* Intents::left(uint8_t volume, uint64_t unique) {
  const std::lock_guard lock(mutex_);
  if (!any_inherited_) return nullptr;
  for (size_t i = 0; i < intent_slots; i++) {
    Intent& intent = shared_->intents[i];
    if (inherited_[i] && intent.phase.load() != 0 && intent.unique == unique &&
        volume_of(intent) == volume) {
      inherited_[i] = false;
      return &intent;
    }
  }
  return nullptr;
}

}  // namespace holdfast::replica
