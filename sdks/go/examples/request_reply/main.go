// Command request_reply puts a question and its answer each in a mailbox: nobody has to be online.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/robustmq/mq9/go"
)

// serve answers each question in the mailbox that it names.
func serve(ctx context.Context, client *mq9.Client, address string) (*mq9.Consumer, error) {
	answer := func(ctx context.Context, question *mq9.Message) error {
		if question.ReplyTo() == "" {
			return nil
		}
		text := strings.ToUpper(question.Text())
		_, err := client.Send(ctx, question.ReplyTo(), []byte(text), &mq9.SendOptions{CorrelationID: question.CorrelationID()})
		return err
	}
	return client.Consume(ctx, address, "servers", answer, &mq9.ConsumeOptions{Deliver: mq9.DeliverEarliest})
}

// ask sends a question and waits for the answer that belongs to it.
func ask(ctx context.Context, client *mq9.Client, address, text string) (string, error) {
	inbox, err := client.MailboxCreate(ctx, &mq9.MailboxCreateOptions{TTL: 10 * time.Minute})
	if err != nil {
		return "", err
	}
	options := &mq9.SendOptions{ReplyTo: inbox, CorrelationID: rand.Text(), Retry: true}
	if _, err := client.Send(ctx, address, []byte(text), options); err != nil {
		return "", err
	}
	answers, err := client.Messages(ctx, inbox, "me", &mq9.ConsumeOptions{Deliver: mq9.DeliverEarliest})
	if err != nil {
		return "", err
	}
	for answer, err := range answers {
		if err != nil {
			return "", err
		}
		if answer.CorrelationID() == options.CorrelationID {
			return answer.Text(), answer.Ack(ctx)
		}
	}
	return "", errors.New("the client was closed")
}

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
	// The server comes a moment after the question.
	served := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() {
		_, err := serve(ctx, client, address)
		served <- err
	})
	answer, err := ask(ctx, client, address, "how are you?")
	if err != nil {
		return err
	}
	fmt.Println("answer:", answer)
	return <-served
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
