package example;

import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import turnout.v1.OutcomeReply;
import turnout.v1.OutcomeRequest;
import turnout.v1.PredictReply;
import turnout.v1.PredictRequest;
import turnout.v1.PredictorGrpc;
import turnout.v1.Row;

/**
 * Asks a gateway for predictions and reports an outcome.
 *
 * <p>{@code java -jar target/turnout-example.jar gateway.example:8500 ca.pem token.txt}. Without the
 * two files it calls without TLS and without a token.
 */
public final class Main {
  public static void main(String[] args) throws Exception {
    Path authority = args.length == 3 ? Path.of(args[1]) : null;
    Path tokenFile = args.length == 3 ? Path.of(args[2]) : null;
    Duration timeout = Duration.ofSeconds(10);
    try (TurnoutChannel channel = new TurnoutChannel(args[0], authority, tokenFile, 4, timeout)) {
      call(channel);
    }
  }

  private static void call(TurnoutChannel channel) {
    var predictor = PredictorGrpc.newBlockingStub(channel);

    // Health: the empty name is the whole gateway; a model's name is that model. As the other calls
    // do by the service config, it waits for the first connection.
    var question = HealthCheckRequest.newBuilder().setService("churn").build();
    var health = HealthGrpc.newBlockingStub(channel).withWaitForReady().check(question);
    System.out.println("health: " + health.getStatus());

    // By key: the gateway reads the customer's stored features.
    PredictReply churn =
        predictor.predict(
            PredictRequest.newBuilder()
                .setModel("churn")
                .addRows(Row.newBuilder().addKeys("S000042"))
                .build());
    System.out.printf(
        "churn: %.2f by version %s, %s%n",
        churn.getScores(0), churn.getVersion(), churn.getRole());
    if (churn.getHoldout()) {
      System.out.println("the customer is in the control group: do not act");
    }

    // Several offers for one customer: one row for each, with inputs that only the caller knows.
    Map<String, Float> prices = Map.of("O001", 10f, "O002", 30f, "O003", 20f);
    List<String> offers = prices.keySet().stream().sorted().toList();
    var request = PredictRequest.newBuilder().setModel("nba").setRequestId("crm-17");
    for (String offer : offers) {
      request
          .addRowsBuilder()
          .addKeys("S000042")
          .addKeys(offer)
          .putNamed("price", prices.get(offer))
          .putNamedText("channel", "shop");
    }
    PredictReply ranked = predictor.predict(request.build());
    int best = ranked.getScoresList().indexOf(Collections.max(ranked.getScoresList()));
    System.out.printf("offer: %s, %.2f%n", offers.get(best), ranked.getScores(best));

    // The outcome, reported twice: the key makes the second report harmless.
    OutcomeRequest outcome =
        OutcomeRequest.newBuilder()
            .setPredictionId(ranked.getPredictionId())
            .setRow(best)
            .setName("accepted")
            .setValue(1)
            .setIdempotencyKey("order-4711")
            .build();
    for (int report = 0; report < 2; report++) {
      OutcomeReply reply = predictor.reportOutcome(outcome);
      System.out.println("outcome: duplicate " + reply.getDuplicate());
    }

    // Errors have a code and a sentence.
    try {
      predictor.predict(request.setModel("fraud").build());
    } catch (StatusRuntimeException error) {
      System.out.println("refused: " + error.getStatus().getCode());
    }
  }
}
