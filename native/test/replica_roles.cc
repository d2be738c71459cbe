#include "replica/role.h"

/** The roles' makers for tests of what stands around the roles. */
namespace holdfast::replica {

std::unique_ptr<Role> make_mount_role(RoleContext, const OpenLine&) {
  return nullptr;
}
std::unique_ptr<Role> make_prim_role(RoleContext, const OpenLine&) {
  return nullptr;
}
std::unique_ptr<Role> make_second_role(RoleContext, const OpenLine&) {
  return nullptr;
}

}  // namespace holdfast::replica
