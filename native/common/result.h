#pragma once
#include <utility>

namespace holdfast {

/** A value, or the errno of the call that failed and that call's name (a string literal). */
template <typename T>
struct Result {
  T value{};
  int error = 0;
  const char* call = "";

  bool ok() const { return error == 0; }

  static Result success(T value) {
    Result result;
    result.value = std::move(value);
    return result;
  }
  static Result failure(int error, const char* call) {
    Result result;
    result.error = error;
    result.call = call;
    return result;
  }
};

}  // namespace holdfast
