// Keeps calls open for some seconds and prints as JSON how they ended, with gRPC's words for a failure.
//
//	go run ./cmd/load ADDRESS SECONDS CALLS_OPEN CONNECTIONS
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"turnout"
	"turnout/turnoutv1"
)

func main() {
	seconds, open, connections := number(2), number(3), number(4)
	pool, err := turnout.Dial(os.Args[1], turnout.Options{Connections: connections, Timeout: 60 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	client := turnoutv1.NewPredictorClient(pool)
	request := &turnoutv1.PredictRequest{
		Model: "churn",
		Rows:  []*turnoutv1.Row{{Keys: []string{"S000042"}}},
	}
	until := time.Now().Add(time.Duration(seconds) * time.Second)
	counts, lock, running := map[string]int{}, sync.Mutex{}, sync.WaitGroup{}
	for range open {
		running.Go(func() {
			for time.Now().Before(until) {
				_, err := client.Predict(context.Background(), request)
				end := "OK"
				if err != nil {
					end = status.Code(err).String() + ": " + status.Convert(err).Message()
				}
				lock.Lock()
				counts[end]++
				lock.Unlock()
			}
		})
	}
	running.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(counts); err != nil {
		log.Fatal(err)
	}
}

func number(position int) int {
	value, err := strconv.Atoi(os.Args[position])
	if err != nil {
		log.Fatal(err)
	}
	return value
}
