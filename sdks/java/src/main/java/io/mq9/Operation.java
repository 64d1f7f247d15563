package io.mq9;

import java.util.Set;

/**
 * What the runtime has to know of an operation.
 *
 * @param name its name, such as {@code msg.send}
 * @param retriesOn the kinds of failure, and codes, after which it may be tried again
 * @param giveUpMs when retries end, in milliseconds after the first attempt; 0 = only the number of
 *     attempts counts
 */
record Operation(String name, Set<String> retriesOn, long giveUpMs) {
  boolean retriesOn(Mq9Exception error) {
    String code = error.code();
    return retriesOn.contains(error.kind().text())
        || (error.kind() == ErrorKind.SERVER && code != null && retriesOn.contains(code));
  }
}
