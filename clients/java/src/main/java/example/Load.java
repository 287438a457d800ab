package example;

import com.google.gson.Gson;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import turnout.v1.PredictReply;
import turnout.v1.PredictRequest;
import turnout.v1.PredictorGrpc;
import turnout.v1.PredictorGrpc.PredictorStub;
import turnout.v1.Row;

/**
 * Keeps calls open for some seconds and prints as JSON how they ended, with gRPC's words for a failure.
 *
 * <p>{@code java -cp target/turnout-example.jar example.Load ADDRESS SECONDS CALLS_OPEN CONNECTIONS}
 */
public final class Load {
  private static final PredictRequest REQUEST =
      PredictRequest.newBuilder()
          .setModel("churn")
          .addRows(Row.newBuilder().addKeys("S000042"))
          .build();

  private final Map<String, Integer> counts = new TreeMap<>();
  private final PredictorStub predictor;
  private final long until;
  private final CountDownLatch running;

  private Load(PredictorStub predictor, int seconds, int open) {
    this.predictor = predictor;
    this.until = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
    this.running = new CountDownLatch(open);
  }

  public static void main(String[] args) throws Exception {
    int seconds = Integer.parseInt(args[1]);
    int open = Integer.parseInt(args[2]);
    int connections = Integer.parseInt(args[3]);
    Duration timeout = Duration.ofSeconds(60);
    try (TurnoutChannel channel =
        new TurnoutChannel(args[0], null, null, connections, timeout)) {
      Load load = new Load(PredictorGrpc.newStub(channel), seconds, open);
      for (int call = 0; call < open; call++) {
        load.callAgain();
      }
      load.running.await();
      System.out.println(new Gson().toJson(load.counts));
    }
  }

  /** Makes a call whose end begins the next one, until the time is over. */
  private void callAgain() {
    if (System.nanoTime() >= until) {
      running.countDown();
      return;
    }
    predictor.predict(
        REQUEST,
        new StreamObserver<>() {
          @Override
          public void onNext(PredictReply reply) {}

          @Override
          public void onError(Throwable error) {
            Status status = Status.fromThrowable(error);
            count(status.getCode() + ": " + status.getDescription());
          }

          @Override
          public void onCompleted() {
            count("OK");
          }
        });
  }

  private void count(String end) {
    synchronized (counts) {
      counts.merge(end, 1, Integer::sum);
    }
    callAgain();
  }
}
