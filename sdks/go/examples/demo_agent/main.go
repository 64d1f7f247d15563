// Command demo_agent is the Go agent of the demo: it counts words. See demo/README.md.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/robustmq/mq9/go"
)

type task struct {
	Document string `json:"document"`
	Text     string `json:"text"`
	N        int    `json:"n"`
}

type outcome struct {
	Agent    string   `json:"agent"`
	Language string   `json:"language"`
	Document string   `json:"document"`
	Words    int      `json:"words"`
	Top      [][2]any `json:"top"`
}

var longWord = regexp.MustCompile(`[A-Za-z]{4,}`)

// count counts the words between blanks, and the most frequent runs of four or more ASCII letters.
func count(text string, most int) (words int, top [][2]any) {
	words = len(strings.FieldsFunc(text, func(char rune) bool { return strings.ContainsRune(" \t\r\n\v\f", char) }))
	counts := map[string]int{}
	for _, word := range longWord.FindAllString(text, -1) {
		counts[strings.ToLower(word)]++
	}
	type entry struct {
		word  string
		count int
	}
	var entries []entry
	for word, count := range counts {
		entries = append(entries, entry{word, count})
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.word, b.word)) })
	top = [][2]any{}
	for _, entry := range entries[:min(max(most, 0), len(entries))] {
		top = append(top, [2]any{entry.word, entry.count})
	}
	return words, top
}

type agent struct {
	client *mq9.Client
	name   string
	think  time.Duration
}

func (a *agent) handle(ctx context.Context, message *mq9.Message) error {
	var job task
	if err := message.JSON(&job); err != nil {
		return err
	}
	delivery := int64(0)
	if message.DeliveryCount != nil {
		delivery = *message.DeliveryCount
	}
	fmt.Printf("began %s priority=%s delivery=%d\n", job.Document, message.Priority, delivery)
	select {
	case <-time.After(a.think):
	case <-ctx.Done():
		return ctx.Err()
	}
	words, top := count(job.Text, job.N)
	payload, err := mq9.JSON(outcome{a.name, "Go", job.Document, words, top})
	if err != nil {
		return err
	}
	options := &mq9.SendOptions{CorrelationID: message.CorrelationID(), Priority: message.Priority}
	if _, err := a.client.Send(ctx, message.ReplyTo(), payload, options); err != nil {
		return err
	}
	fmt.Printf("did %s words=%d\n", job.Document, words)
	return nil
}

func run(ctx context.Context) error {
	name, mailbox := os.Getenv("MQ9_NAME"), os.Getenv("MQ9_MAILBOX")
	think, err := strconv.Atoi(cmp.Or(os.Getenv("MQ9_THINK_MS"), "0"))
	if err != nil {
		return fmt.Errorf("MQ9_THINK_MS must be milliseconds: %w", err)
	}
	client, err := mq9.Connect(ctx, os.Getenv("MQ9_URL"), &mq9.ConnectOptions{Name: name})
	if err != nil {
		return err
	}
	defer client.Close() // stops the consumer and unregisters the agent
	_, err = client.MailboxCreate(ctx, &mq9.MailboxCreateOptions{Name: mailbox, TTL: 10 * time.Minute})
	if err != nil && !errors.Is(err, mq9.ErrMailboxExists) {
		return err
	}
	card := map[string]any{
		"description": "counts the words of a text, in Go", "skills": []any{map[string]any{"id": "count-words"}}, "language": "Go",
	}
	// Its own end unregisters it, not that of ctx: the consumer finishes first.
	registered := context.WithoutCancel(ctx)
	if _, err := client.AgentKeepAlive(registered, name, &mq9.AgentRegisterOptions{Mailbox: mailbox, Card: card}); err != nil {
		return err
	}
	fmt.Println("ready")
	begin := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if strings.TrimSpace(lines.Text()) == "work" {
				close(begin)
				return
			}
		}
	}()
	select {
	case <-begin:
	case <-ctx.Done():
		return nil
	}
	a := &agent{client, name, time.Duration(think) * time.Millisecond}
	consumer, err := client.Consume(context.WithoutCancel(ctx), mailbox, "workers", a.handle, &mq9.ConsumeOptions{
		Deliver: mq9.DeliverEarliest, NumMsgs: mq9.Ptr(1), Lease: mq9.Ptr(2 * time.Second), MaxWait: mq9.Ptr(time.Second),
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	consumer.Stop()
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}
