#include "replica/front.h"
#include "replica/null_log.h"

/** role=mount: the directories are mounted and served, and replicated nowhere. */
namespace holdfast::replica {

namespace {

class MountRole final : public Role {
 public:
  MountRole(RoleContext context, const OpenLine& line)
      : context_(context), line_(line), front_(context_, line_) {}

  Failure open() override {
    if (Failure failure = front_.open_files(); failure.failed()) return failure;
    return front_.serve(log_);
  }

  Failure close() override {
    const Failure failure = front_.stop();
    front_.volumes().forget();
    return failure;
  }

  void status(Line& line) const override {
    line.add("role", "mount").add("last", log_.last()).add("local_failures", log_.failures());
    front_.status(line);
  }

 private:
  RoleContext context_;
  const OpenLine line_;
  NullLog log_;
  Front front_;
};

}  // namespace

std::unique_ptr<Role> make_mount_role(RoleContext context, const OpenLine& line) {
  return std::make_unique<MountRole>(context, line);
}

}  // namespace holdfast::replica
