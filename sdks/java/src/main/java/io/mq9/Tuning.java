package io.mq9;

/**
 * How retries, renewals and the like go; tests have other numbers.
 *
 * @param attempts how often a request is sent at most
 * @param retryPauseMs the first pause between attempts
 * @param reportEveryMs how often the keep-alive reports
 * @param fetchPauseMs the first pause after a failed FETCH
 * @param retriesAll whether every failure is followed by another attempt; only to show that the
 *     suite notices
 */
record Tuning(
    int attempts,
    double retryPauseMs,
    long reportEveryMs,
    double fetchPauseMs,
    boolean retriesAll) {
  static final Tuning DEFAULT =
      new Tuning(
          (int) Constants.RETRY_ATTEMPTS,
          Constants.RETRY_PAUSE_MS,
          Constants.AGENT_KEEP_ALIVE_REPORT_EVERY_MS,
          Constants.CONSUME_FETCH_PAUSE_MS,
          false);

  boolean retriesOn(Operation operation, Mq9Exception error) {
    return retriesAll || operation.retriesOn(error);
  }
}
