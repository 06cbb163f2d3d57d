// A worker of Temporal's Go SDK that does what an interpreter of documents on that SDK does at least: one side effect
// for each task that computes, one activity for each call. It takes address, namespace and the URL that is called.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

var url string

func call(ctx context.Context) (map[string]any, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var value map[string]any
	return value, json.Unmarshal(body, &value)
}

func sets(ctx workflow.Context, count int) (map[string]any, error) {
	var value map[string]any
	for number := 0; number < count; number++ {
		kept := workflow.SideEffect(ctx, func(workflow.Context) any {
			return map[string]any{"number": number}
		})
		if err := kept.Get(&value); err != nil {
			return nil, err
		}
	}
	return value, nil
}

func calls(ctx workflow.Context, count int) (map[string]any, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	var value map[string]any
	for number := 0; number < count; number++ {
		if err := workflow.ExecuteActivity(ctx, call).Get(ctx, &value); err != nil {
			return nil, err
		}
	}
	return value, nil
}

func main() {
	url = os.Args[3]
	temporal, err := client.Dial(client.Options{HostPort: os.Args[1], Namespace: os.Args[2]})
	if err != nil {
		log.Fatal(err)
	}
	defer temporal.Close()
	peer := worker.New(temporal, "peer", worker.Options{})
	peer.RegisterWorkflowWithOptions(sets, workflow.RegisterOptions{Name: "sets"})
	peer.RegisterWorkflowWithOptions(calls, workflow.RegisterOptions{Name: "calls"})
	peer.RegisterActivity(call)
	if err := peer.Run(worker.InterruptCh()); err != nil {
		log.Fatal(err)
	}
}
