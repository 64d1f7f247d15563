package io.mq9.adapter;

import java.util.Map;
import java.util.concurrent.ExecutorService;

/** What goes on between requests. */
interface Background {
  /** Begins; an argument that is not as it should be fails here. */
  void start(ExecutorService threads) throws Exception;

  /** Carries out a request about it. */
  Object command(Map<String, Object> request) throws Exception;

  /** Cancels it as the language does, and waits for its end. */
  void cancel();
}
