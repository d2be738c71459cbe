#pragma once

/**
 * Bugs that a test plants, to see that the tests would find them. The product has none: the pointer
 * to it is null there.
 */
namespace holdfast::replica {

struct Faults {
  bool ack_without_peer = false;    // the primary acknowledges before the peer has
  bool ack_before_durable = false;  // the secondary acknowledges before its journal is written
  bool skip_journal_check = false;  // recovery takes each well-formed record, whether it follows
};

}  // namespace holdfast::replica
