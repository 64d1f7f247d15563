// Command agent_registry shows an agent that says what it can do; another finds it by that.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/robustmq/mq9/go"
)

type skill struct {
	ID       string   `json:"id"`
	Tags     []string `json:"tags,omitempty"`
	Examples []string `json:"examples,omitempty"`
}

type card struct {
	Name        string  `json:"name,omitempty"`
	Mailbox     string  `json:"mailbox,omitempty"`
	Description string  `json:"description"`
	Skills      []skill `json:"skills"`
}

func run(ctx context.Context) error {
	worker, err := mq9.Connect(ctx, os.Getenv("MQ9_URL"), nil)
	if err != nil {
		return err
	}
	defer worker.Close()
	client, err := mq9.Connect(ctx, os.Getenv("MQ9_URL"), nil)
	if err != nil {
		return err
	}
	defer client.Close()
	inbox, err := worker.MailboxCreate(ctx, &mq9.MailboxCreateOptions{TTL: time.Hour})
	if err != nil {
		return err
	}
	agent, err := worker.AgentKeepAlive(ctx, "word-counter-go", &mq9.AgentRegisterOptions{Mailbox: inbox, Card: card{
		Description: "Counts the words of a text.",
		Skills: []skill{{
			ID: "count-words", Tags: []string{"text", "gostatistics"}, Examples: []string{"How long is this article?"},
		}},
	}})
	if err != nil {
		return err
	}
	found, err := client.AgentDiscover(ctx, &mq9.AgentDiscoverOptions{Text: "gostatistics"})
	if err != nil {
		return err
	}
	if len(found.Agents) == 0 {
		return errors.New("nobody was found")
	}
	var first card
	if err := json.Unmarshal(found.Agents[0], &first); err != nil {
		return err
	}
	fmt.Printf("found %s: %s\n", first.Name, first.Description)
	if _, err := client.Send(ctx, first.Mailbox, []byte("to be or not to be"), nil); err != nil {
		return err
	}
	result, err := worker.Fetch(ctx, inbox, &mq9.FetchOptions{Deliver: mq9.DeliverEarliest})
	if err != nil {
		return err
	}
	for _, message := range result.Messages {
		fmt.Println(len(strings.Fields(message.Text())), "words")
	}
	if err := agent.Stop(); err != nil {
		return err
	}
	found, err = client.AgentDiscover(ctx, &mq9.AgentDiscoverOptions{Text: "gostatistics"})
	if err != nil {
		return err
	}
	fmt.Println(len(found.Agents), "agents left")
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
