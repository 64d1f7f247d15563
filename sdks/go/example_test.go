package mq9_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/robustmq/mq9/go"
)

// dial connects to a broker that is there for the tests; yours is at nats://127.0.0.1:4222 by default.
func dial() *mq9.Client {
	broker, err := shared()
	must(err)
	client, err := mq9.Connect(context.Background(), broker.url, nil)
	must(err)
	return client
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Send a message, fetch it under a lease, and confirm it.
func Example() {
	ctx := context.Background()
	client := dial()
	defer client.Close()

	inbox, err := client.MailboxCreate(ctx, &mq9.MailboxCreateOptions{TTL: time.Hour})
	must(err)
	_, err = client.Send(ctx, inbox, []byte("hello"), &mq9.SendOptions{Priority: mq9.PriorityUrgent})
	must(err)

	result, err := client.Fetch(ctx, inbox, &mq9.FetchOptions{
		GroupName: "workers", Deliver: mq9.DeliverEarliest, Lease: 30 * time.Second,
	})
	must(err)
	for _, message := range result.Messages {
		fmt.Println(message.Priority, message.Text())
		must(client.Ack(ctx, inbox, "workers", &mq9.AckOptions{MsgID: &message.MsgID}))
	}
	// Output: urgent hello
}

// A handler: what it returns nil for is acknowledged, the rest comes again.
func ExampleClient_Consume() {
	ctx := context.Background()
	client := dial()
	defer client.Close()
	jobs, err := client.MailboxCreate(ctx, nil)
	must(err)
	_, err = client.Send(ctx, jobs, []byte("sum"), nil)
	must(err)

	done := make(chan string)
	consumer, err := client.Consume(ctx, jobs, "workers", func(_ context.Context, message *mq9.Message) error {
		done <- message.Text()
		return nil
	}, &mq9.ConsumeOptions{Deliver: mq9.DeliverEarliest})
	must(err)
	fmt.Println(<-done)
	consumer.Stop()
	fmt.Println(consumer.Stats().Acknowledged, "acknowledged")
	// Output:
	// sum
	// 1 acknowledged
}

// A loop: a message is acknowledged when the loop asks for the next one.
func ExampleClient_Messages() {
	ctx := context.Background()
	client := dial()
	defer client.Close()
	jobs, err := client.MailboxCreate(ctx, nil)
	must(err)
	for _, job := range []string{"one", "two"} {
		_, err := client.Send(ctx, jobs, []byte(job), nil)
		must(err)
	}

	messages, err := client.Messages(ctx, jobs, "workers", &mq9.ConsumeOptions{Deliver: mq9.DeliverEarliest})
	must(err)
	for message, err := range messages {
		must(err)
		fmt.Println(message.Text())
		if message.Text() == "two" {
			break
		}
	}
	// Output:
	// one
	// two
}

// The errors of the specification are there to be compared with.
func ExampleError() {
	client := dial()
	defer client.Close()
	_, err := client.MailboxInfo(context.Background(), "nobody.here", nil)
	fmt.Println(errors.Is(err, mq9.ErrMailboxNotFound), errors.Is(err, mq9.ErrTimeout))
	var failure *mq9.Error
	if errors.As(err, &failure) {
		fmt.Println(failure.Kind, failure.Code)
	}
	// Output:
	// true false
	// server mailbox_not_found
}
