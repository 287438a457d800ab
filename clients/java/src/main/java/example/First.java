package example;

import java.time.Duration;
import turnout.v1.PredictRequest;
import turnout.v1.PredictorGrpc;
import turnout.v1.Row;

/**
 * The first call of docs/calling.md: asks a gateway on this machine for the score of one customer.
 *
 * <p>{@code java -cp target/turnout-example.jar example.First}
 */
public final class First {
  public static void main(String[] args) throws Exception {
    try (var channel = new TurnoutChannel("localhost:8500", null, null, 4, Duration.ofSeconds(5))) {
      var row = Row.newBuilder().addKeys("S0000042");
      var request = PredictRequest.newBuilder().setModel("churn").addRows(row).build();
      System.out.println(PredictorGrpc.newBlockingStub(channel).predict(request).getScores(0));
    }
  }
}
