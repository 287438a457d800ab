// The first call of docs/calling.md: asks a gateway on this machine for the score of one customer.
//
//	go run ./cmd/first
package main

import (
	"context"
	"fmt"
	"log"

	"turnout"
	"turnout/turnoutv1"
)

func main() {
	pool, err := turnout.Dial("localhost:8500", turnout.Options{})
	if err != nil {
		log.Fatal(err)
	}
	reply, err := turnoutv1.NewPredictorClient(pool).Predict(context.Background(), &turnoutv1.PredictRequest{
		Model: "churn", Rows: []*turnoutv1.Row{{Keys: []string{"S0000042"}}},
	})
	fmt.Println(reply.GetScores(), err)
}
