package main

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/robustmq/mq9/go"
	"github.com/robustmq/mq9/go/internal/conformance"
)

// consumerRun is a consumer with a handler. Every handler waits for the runner to say how it ends.
type consumerRun struct {
	adapter       *adapter
	label         string
	failErrorHook bool
	end           context.CancelFunc
	consumer      *mq9.Consumer
	reported      chan struct{} // closed when its end has been reported

	mu         sync.Mutex
	ready      sync.WaitGroup // the handler may be called before Consume returns
	deliveries int
	outcomes   map[int]chan string
}

func startConsumer(a *adapter, client *mq9.Client, arguments *conformance.Arguments, r *request) (background, error) {
	mailAddress, groupName, options := conformance.ConsumeArguments(arguments)
	if err := arguments.Finish(); err != nil {
		return nil, err
	}
	c := &consumerRun{
		adapter: a, label: r.As, failErrorHook: r.FailErrorHook, outcomes: map[int]chan string{},
		reported: make(chan struct{}),
	}
	options.OnError = c.failed
	ctx, cancel := context.WithCancel(context.Background())
	c.end = cancel
	c.ready.Add(1)
	consumer, err := client.Consume(ctx, mailAddress, groupName, c.handle, options)
	c.consumer = consumer
	c.ready.Done()
	if err != nil {
		cancel()
		return nil, err
	}
	go c.report()
	return c, nil
}

func (c *consumerRun) handle(ctx context.Context, message *mq9.Message) error {
	c.ready.Wait()
	c.mu.Lock()
	c.deliveries++
	number := c.deliveries
	outcome := make(chan string, 1)
	c.outcomes[number] = outcome
	c.mu.Unlock()
	c.adapter.write(object{
		"event": "message", "of": c.label, "delivery": number,
		"message": c.adapter.mutant.result(conformance.EncodeMessage(message)),
	})
	select {
	case how := <-outcome:
		switch c.adapter.mutant.outcome(how) {
		case "fail":
			return errors.New("the runner said that this handler fails")
		case "stop":
			c.consumer.Stop()
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *consumerRun) failed(err error, message *mq9.Message) {
	fields := c.adapter.errorFields(err)
	if message != nil {
		fields["msg_id"] = strconv.FormatInt(message.MsgID, 10)
	}
	c.adapter.write(object{"event": "error", "of": c.label, "error": fields})
	if c.failErrorHook {
		panic("the runner said that the error hook fails")
	}
}

func (c *consumerRun) report() {
	defer close(c.reported)
	<-c.consumer.Done()
	line := object{"event": "ended", "of": c.label, "how": "stopped"}
	if err := c.consumer.Err(); errors.Is(err, context.Canceled) {
		line["how"] = "cancelled"
	} else if err != nil {
		line["how"], line["error"] = "failed", c.adapter.errorFields(err)
	}
	c.adapter.write(line)
}

func (c *consumerRun) command(_ context.Context, r *request) (any, error) {
	switch r.Op {
	case "finish":
		c.mu.Lock()
		outcome, ok := c.outcomes[r.Delivery]
		delete(c.outcomes, r.Delivery)
		c.mu.Unlock()
		if ok {
			outcome <- r.Outcome
		}
		return object{}, nil
	case "stop":
		c.adapter.mutant.stop(c.consumer)
		return object{}, nil
	}
	return nil, notUnderstood("a consumer has no %q", r.Op)
}

func (c *consumerRun) cancel() {
	c.end()
	<-c.reported
}

// iteration is a range loop whose body asks the runner after each message whether to go on.
type iteration struct {
	messages iter.Seq2[*mq9.Message, error]
	end      context.CancelFunc
	wanted   chan chan answer // one for each next; closed to leave the loop
	ended    chan struct{}

	mu       sync.Mutex
	started  bool
	left     bool
	received map[string]*mq9.Message
	err      error // the loop's last
}

type answer struct{ message *mq9.Message }

func newIteration(client *mq9.Client, arguments *conformance.Arguments) (background, error) {
	mailAddress, groupName, options := conformance.ConsumeArguments(arguments)
	if err := arguments.Finish(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := client.Messages(ctx, mailAddress, groupName, options)
	if err != nil {
		cancel()
		return nil, err
	}
	return &iteration{
		messages: messages, end: cancel, wanted: make(chan chan answer, 16), ended: make(chan struct{}),
		received: map[string]*mq9.Message{},
	}, nil
}

func (i *iteration) loop() {
	defer close(i.ended)
	asked, ok := <-i.wanted
	if !ok {
		return
	}
	for message, err := range i.messages {
		if err != nil {
			i.mu.Lock()
			i.err = err
			i.mu.Unlock()
			return
		}
		i.mu.Lock()
		i.received[strconv.FormatInt(message.MsgID, 10)] = message
		i.mu.Unlock()
		asked <- answer{message}
		if asked, ok = <-i.wanted; !ok {
			break
		}
	}
}

func (i *iteration) command(ctx context.Context, r *request) (any, error) {
	switch r.Op {
	case "next":
		return i.next(ctx)
	case "leave", "stop":
		i.leave()
		return object{}, nil
	}
	i.mu.Lock()
	message, ok := i.received[r.MsgID]
	i.mu.Unlock()
	if !ok {
		return nil, notUnderstood("next has not given message %s", r.MsgID)
	}
	switch r.Op {
	case "message_ack":
		return object{}, message.Ack(ctx)
	case "message_nack":
		return object{}, message.Nack(ctx, time.Duration(r.DelayMS)*time.Millisecond)
	case "message_renew":
		return message.Renew(ctx, time.Duration(r.LeaseMS)*time.Millisecond)
	}
	return nil, notUnderstood("an iteration has no %q", r.Op)
}

func (i *iteration) next(ctx context.Context) (any, error) {
	asked := make(chan answer, 1)
	i.mu.Lock()
	if !i.left {
		i.wanted <- asked
	}
	if !i.started {
		i.started = true
		go i.loop()
	}
	i.mu.Unlock()
	select {
	case got := <-asked:
		return conformance.EncodeMessage(got.message), nil
	case <-i.ended:
		i.mu.Lock()
		defer i.mu.Unlock()
		return nil, i.err
	case <-ctx.Done():
		return nil, &mq9.Error{Kind: mq9.KindCancelled, Message: "cancelled"}
	}
}

func (i *iteration) leave() {
	i.mu.Lock()
	started := i.started
	if !i.left {
		i.left = true
		close(i.wanted)
	}
	i.mu.Unlock()
	if started {
		<-i.ended
	}
	i.end()
}

func (i *iteration) cancel() {
	i.end()
	i.leave()
}

// keepAlive is an agent that stays registered until it is stopped.
type keepAlive struct{ agent *mq9.AgentKeepAlive }

func startKeepAlive(client *mq9.Client, arguments *conformance.Arguments) (background, error) {
	var name string
	arguments.Set("name", &name, 0)
	options := conformance.AgentRegisterOptions(arguments)
	if err := arguments.Finish(); err != nil {
		return nil, err
	}
	agent, err := client.AgentKeepAlive(context.Background(), name, options)
	if err != nil {
		return nil, err
	}
	return &keepAlive{agent}, nil
}

func (k *keepAlive) command(_ context.Context, r *request) (any, error) {
	if r.Op != "stop" {
		return nil, notUnderstood("a keep-alive has no %q", r.Op)
	}
	return object{}, k.agent.Stop()
}

func (k *keepAlive) cancel() { _ = k.agent.Stop() }
