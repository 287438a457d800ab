// Asks a gateway for predictions and reports an outcome.
//
//	go run ./cmd/example gateway.example:8500 ca.pem token.txt
//
// Without the two files it calls without TLS and without a token.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"turnout"
	"turnout/turnoutv1"
)

func main() {
	options := turnout.Options{Timeout: 10 * time.Second}
	if len(os.Args) == 4 {
		options.CAFile, options.TokenFile = os.Args[2], os.Args[3]
	}
	pool, err := turnout.Dial(os.Args[1], options)
	check(err)
	defer pool.Close()
	ctx, client := context.Background(), turnoutv1.NewPredictorClient(pool)

	// Health: the empty name is the whole gateway; a model's name is that model.
	health, err := healthpb.NewHealthClient(pool).Check(ctx, &healthpb.HealthCheckRequest{Service: "churn"})
	check(err)
	fmt.Println("health:", health.Status)

	// By key: the gateway reads the customer's stored features.
	churn, err := client.Predict(ctx, &turnoutv1.PredictRequest{
		Model: "churn",
		Rows:  []*turnoutv1.Row{{Keys: []string{"S000042"}}},
	})
	check(err)
	fmt.Printf("churn: %.2f by version %s, %s\n", churn.Scores[0], churn.Version, churn.Role)
	if churn.Holdout {
		fmt.Println("the customer is in the control group: do not act")
	}

	// Several offers for one customer: one row for each, with inputs that only the caller knows.
	prices := map[string]float32{"O001": 10, "O002": 30, "O003": 20}
	offers := []string{"O001", "O002", "O003"}
	request := &turnoutv1.PredictRequest{Model: "nba", RequestId: "crm-17"}
	for _, offer := range offers {
		request.Rows = append(request.Rows, &turnoutv1.Row{
			Keys:      []string{"S000042", offer},
			Named:     map[string]float32{"price": prices[offer]},
			NamedText: map[string]string{"channel": "shop"},
		})
	}
	ranked, err := client.Predict(ctx, request)
	check(err)
	best := 0
	for row, score := range ranked.Scores {
		if score > ranked.Scores[best] {
			best = row
		}
	}
	fmt.Printf("offer: %s, %.2f\n", offers[best], ranked.Scores[best])

	// The outcome, reported twice: the key makes the second report harmless.
	for range 2 {
		reply, err := client.ReportOutcome(ctx, &turnoutv1.OutcomeRequest{
			PredictionId:   ranked.PredictionId,
			Row:            uint32(best),
			Name:           "accepted",
			Value:          1,
			IdempotencyKey: "order-4711",
		})
		check(err)
		fmt.Println("outcome: duplicate", reply.Duplicate)
	}

	// Errors have a code and a sentence.
	_, err = client.Predict(ctx, &turnoutv1.PredictRequest{Model: "fraud", Rows: request.Rows})
	fmt.Println("refused:", status.Code(err))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
