// Command worker_pool lets three workers share a mailbox; one job fails at first and comes again.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/robustmq/mq9/go"
)

const jobs = 12

// work handles jobs until the client is closed.
func work(ctx context.Context, name, address string, done chan<- int) (*mq9.Client, error) {
	client, err := mq9.Connect(ctx, os.Getenv("MQ9_URL"), &mq9.ConnectOptions{Name: name})
	if err != nil {
		return nil, err
	}
	handle := func(_ context.Context, message *mq9.Message) error {
		number, err := strconv.Atoi(message.Text())
		if err != nil {
			return err
		}
		if number == 5 && *message.DeliveryCount == 1 {
			return errors.New("job 5 does not like to be first")
		}
		time.Sleep(10 * time.Millisecond)
		done <- number
		return nil
	}
	_, err = client.Consume(ctx, address, "workers", handle, &mq9.ConsumeOptions{
		Deliver:     mq9.DeliverEarliest,
		Concurrency: mq9.Ptr(2),
		OnError:     func(err error, _ *mq9.Message) { fmt.Printf("%s: %v\n", name, err) },
	})
	return client, err
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
	for number := range jobs {
		text := strconv.Itoa(number)
		if _, err := client.Send(ctx, address, []byte(text), &mq9.SendOptions{Retry: true}); err != nil {
			return err
		}
	}
	done := make(chan int, jobs)
	for number := range 3 {
		worker, err := work(ctx, fmt.Sprintf("worker-%d", number), address, done)
		if err != nil {
			return err
		}
		defer worker.Close()
	}
	var finished []int
	for range jobs {
		finished = append(finished, <-done)
	}
	slices.Sort(finished)
	fmt.Println("jobs done:", finished)
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
