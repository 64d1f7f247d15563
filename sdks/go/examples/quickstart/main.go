// Command quickstart is the smallest conversation: a mailbox, a message, its receiver.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/robustmq/mq9/go"
)

func run(ctx context.Context) error {
	client, err := mq9.Connect(ctx, os.Getenv("MQ9_URL"), nil)
	if err != nil {
		return err
	}
	defer client.Close()
	address, err := client.MailboxCreate(ctx, &mq9.MailboxCreateOptions{TTL: time.Hour})
	if err != nil {
		return err
	}
	task, err := mq9.JSON(map[string]string{"task": "greet", "who": "world"})
	if err != nil {
		return err
	}
	if _, err := client.Send(ctx, address, task, &mq9.SendOptions{Priority: mq9.PriorityUrgent}); err != nil {
		return err
	}
	result, err := client.Fetch(ctx, address, &mq9.FetchOptions{
		GroupName: "workers", Deliver: mq9.DeliverEarliest, Lease: 30 * time.Second,
	})
	if err != nil {
		return err
	}
	for _, message := range result.Messages {
		fmt.Printf("message %d (%s): %s\n", message.MsgID, message.Priority, message.Text())
		if err := client.Ack(ctx, address, "workers", &mq9.AckOptions{MsgID: &message.MsgID}); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
