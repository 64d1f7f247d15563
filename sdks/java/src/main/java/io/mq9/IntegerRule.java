package io.mq9;

import org.jspecify.annotations.Nullable;

/**
 * The bounds of a whole number.
 *
 * @param low the smallest
 * @param high the largest
 */
record IntegerRule(long low, long high) {
  /** Gives a number within the bounds back. */
  long check(String field, @Nullable Long value) {
    if (value == null) {
      throw Mq9Exception.invalid(field, "must not be null");
    }
    if (value < low || value > high) {
      throw Mq9Exception.invalid(field, "must be " + low + " to " + high + ", not " + value);
    }
    return value;
  }
}
