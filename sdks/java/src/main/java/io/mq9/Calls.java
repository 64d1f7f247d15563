package io.mq9;

import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import org.jspecify.annotations.Nullable;

/** Waiting for calls. */
final class Calls {
  private Calls() {}

  /** Waits for a call; an interrupted thread cancels it, and stays interrupted. */
  static <T> T await(CompletableFuture<T> call) {
    try {
      return call.get();
    } catch (InterruptedException error) {
      call.cancel(true);
      Thread.currentThread().interrupt();
      throw Mq9Exception.of(ErrorKind.CANCELLED, "the thread was interrupted", error);
    } catch (CancellationException error) {
      throw Mq9Exception.of(ErrorKind.CANCELLED, "the call was cancelled", error);
    } catch (ExecutionException error) {
      throw thrown(error.getCause());
    }
  }

  private static RuntimeException thrown(@Nullable Throwable cause) {
    if (cause instanceof Mq9Exception failure) {
      return failure.here();
    }
    if (cause instanceof Error error) {
      throw error;
    }
    return cause instanceof RuntimeException failure ? failure : new IllegalStateException(cause);
  }

  /** The failure inside of what futures wrap around it. */
  static Throwable unwrapped(Throwable error) {
    Throwable result = error;
    while (result instanceof java.util.concurrent.CompletionException
        && result.getCause() != null) {
      result = result.getCause();
    }
    return result;
  }

  static boolean isCode(Throwable error, String code) {
    return unwrapped(error) instanceof Mq9Exception failure && code.equals(failure.code());
  }
}
