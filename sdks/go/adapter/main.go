// Command adapter is the conformance adapter of the Go SDK: JSON lines in, JSON lines out; see conformance/ADAPTERS.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/robustmq/mq9/go"
	"github.com/robustmq/mq9/go/internal/conformance"
	"github.com/robustmq/mq9/go/internal/wire"
)

// request is one line of the runner.
type request struct {
	ID            int64              `json:"id"`
	Op            string             `json:"op"`
	Client        string             `json:"client"`
	Args          json.RawMessage    `json:"args"`
	Decode        conformance.Decode `json:"decode"`
	Target        int64              `json:"target"`
	Of            string             `json:"of"`
	As            string             `json:"as"`
	FailErrorHook bool               `json:"fail_error_hook"`
	Delivery      int                `json:"delivery"`
	Outcome       string             `json:"outcome"`
	MsgID         string             `json:"msg_id"`
	DelayMS       int64              `json:"delay_ms"`
	LeaseMS       int64              `json:"lease_ms"`
}

type object = map[string]any

// call is a request under way.
type call struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// background is what goes on between requests.
type background interface {
	command(ctx context.Context, request *request) (any, error)
	cancel()
}

type adapter struct {
	writing     sync.Mutex
	out         io.Writer
	mutant      *mutant
	mu          sync.Mutex
	clients     map[string]*mq9.Client
	connections map[string]*nats.Conn
	backgrounds map[string]background
	calls       map[int64]*call
}

func main() {
	a := &adapter{
		out: os.Stdout, mutant: newMutant(os.Getenv("MQ9_ADAPTER_MUTANT")), clients: map[string]*mq9.Client{},
		connections: map[string]*nats.Conn{}, backgrounds: map[string]background{}, calls: map[int64]*call{},
	}
	wire.Wrap = func(next wire.Requester) wire.Requester { return inOrder(a.mutant.wrap(next)) }
	if err := a.run(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// begun is what a request's context carries: closed as soon as its first NATS request goes out.
type begun struct {
	once sync.Once
	done chan struct{}
}

type begunKey struct{}

// inOrder tells when a request has begun: the next one is started then, so that they begin in the order they came in.
func inOrder(next wire.Requester) wire.Requester {
	return wire.RequesterFunc(func(ctx context.Context, request *wire.Request) ([]byte, error) {
		if b, ok := ctx.Value(begunKey{}).(*begun); ok {
			b.once.Do(func() { time.AfterFunc(time.Millisecond, func() { close(b.done) }) })
		}
		return next.Request(ctx, request)
	})
}

func (a *adapter) write(line object) {
	data, err := mq9.JSON(line)
	if err != nil {
		panic(err)
	}
	a.writing.Lock()
	defer a.writing.Unlock()
	if _, err := a.out.Write(append(data, '\n')); err != nil {
		os.Exit(1) // nobody reads any more
	}
}

func (a *adapter) run(in io.Reader) error {
	reader := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := reader.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			r := &request{}
			if err := json.Unmarshal(line, r); err != nil {
				return fmt.Errorf("a line that is no request: %w", err)
			}
			a.start(r)
		}
		if err != nil {
			break
		}
	}
	a.finish()
	return nil
}

func (a *adapter) start(r *request) {
	b := &begun{done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), begunKey{}, b))
	c := &call{cancel: cancel, ended: make(chan struct{})}
	a.mu.Lock()
	a.calls[r.ID] = c
	a.mu.Unlock()
	go func() {
		defer close(c.ended)
		defer cancel()
		a.serve(ctx, r)
		a.mu.Lock()
		delete(a.calls, r.ID)
		a.mu.Unlock()
	}()
	select {
	case <-b.done:
	case <-c.ended:
	case <-time.After(20 * time.Millisecond): // it waits for something else
	}
}

func (a *adapter) finish() {
	a.mu.Lock()
	var calls []*call
	for _, c := range a.calls {
		calls = append(calls, c)
	}
	a.mu.Unlock()
	for _, c := range calls {
		c.cancel()
		<-c.ended
	}
	var ending sync.WaitGroup
	for _, b := range a.backgrounds {
		ending.Go(b.cancel)
	}
	ending.Wait()
	for _, client := range a.clients {
		ending.Go(func() { _ = client.Close() })
	}
	ending.Wait()
}

func (a *adapter) serve(ctx context.Context, r *request) {
	answer := object{"id": r.ID}
	value, err := a.carryOut(ctx, r)
	var failure *mq9.Error
	switch {
	case err == nil:
		answer["ok"] = a.mutant.result(value)
	case errors.As(err, &failure):
		answer["error"] = a.errorFields(err)
	default:
		answer["harness_error"] = err.Error()
	}
	a.write(answer)
}

// errorFields gives an error in the protocol's form.
func (a *adapter) errorFields(err error) object {
	var failure *mq9.Error
	if !errors.As(err, &failure) {
		return object{"kind": "handler", "message": err.Error()}
	}
	fields := object{"kind": string(failure.Kind), "message": failure.Error()}
	if failure.Code != "" {
		fields["code"] = failure.Code
	}
	if failure.Field != "" {
		fields["field"] = failure.Field
	}
	return a.mutant.errorFields(fields)
}

func notUnderstood(format string, values ...any) error {
	return &conformance.NotUnderstood{Why: fmt.Sprintf(format, values...)}
}

func (a *adapter) carryOut(ctx context.Context, r *request) (any, error) {
	if operation, ok := conformance.Operations[r.Op]; ok {
		client, err := a.client(r)
		if err != nil {
			return nil, err
		}
		arguments, err := conformance.NewArguments(a.mutant.args(r.Args))
		if err != nil {
			return nil, err
		}
		return operation(ctx, client, arguments, r.Decode)
	}
	if r.Of != "" && r.Op != "cancel" {
		a.mu.Lock()
		b, ok := a.backgrounds[r.Of]
		a.mu.Unlock()
		if !ok {
			return nil, notUnderstood("nothing runs as %q", r.Of)
		}
		return b.command(ctx, r)
	}
	switch r.Op {
	case "hello":
		features := []string{"consume", "iterate", "keep_alive", "existing_connection"}
		return object{"sdk": "go", "sdk_version": mq9.Version, "spec": mq9.SpecVersion, "features": features}, nil
	case "connect":
		return object{}, a.connect(ctx, r)
	case "close":
		client, err := a.client(r)
		if err != nil {
			return nil, err
		}
		return object{}, client.Close()
	case "connection_open":
		return a.connectionOpen(r)
	case "cancel":
		a.cancel(r)
		return object{"ended": "cancelled"}, nil
	case "consume", "iterate", "agent_keep_alive":
		return object{}, a.begin(r)
	}
	return nil, notUnderstood("there is no operation %q", r.Op)
}

func (a *adapter) client(r *request) (*mq9.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	client, ok := a.clients[r.Client]
	if !ok {
		return nil, notUnderstood("client %q was never connected", r.Client)
	}
	return client, nil
}

func (a *adapter) connect(ctx context.Context, r *request) error {
	arguments, err := conformance.NewArguments(r.Args)
	if err != nil {
		return err
	}
	var one string
	var more []string
	if raw, ok := arguments.Take("servers"); ok && json.Unmarshal(raw, &one) != nil {
		if err := json.Unmarshal(raw, &more); err != nil {
			return notUnderstood("servers: %v", err)
		}
	}
	existing, _ := arguments.Take("existing")
	options := conformance.ConnectArguments(arguments)
	options.Servers = more
	if err := arguments.Finish(); err != nil {
		return err
	}
	var client *mq9.Client
	if string(existing) == "true" {
		connection, err := nats.Connect(one)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.connections[r.Client] = connection
		a.mu.Unlock()
		client, err = mq9.NewClient(connection, options)
		if err != nil {
			return err
		}
	} else if client, err = mq9.Connect(ctx, one, options); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clients[r.Client] = client
	return nil
}

func (a *adapter) connectionOpen(r *request) (any, error) {
	a.mu.Lock()
	connection, ok := a.connections[r.Client]
	a.mu.Unlock()
	if !ok {
		return nil, notUnderstood("client %q has no existing connection", r.Client)
	}
	open := connection.IsConnected() && connection.Flush() == nil
	connection.Close()
	return open, nil
}

func (a *adapter) cancel(r *request) {
	a.mu.Lock()
	b, running := a.backgrounds[r.Of]
	c, waits := a.calls[r.Target]
	a.mu.Unlock()
	switch {
	case r.Of != "" && running:
		b.cancel()
	case r.Of == "" && waits:
		c.cancel()
		<-c.ended
	}
}

// begin starts something that goes on between requests.
func (a *adapter) begin(r *request) error {
	client, err := a.client(r)
	if err != nil {
		return err
	}
	arguments, err := conformance.NewArguments(a.mutant.args(r.Args))
	if err != nil {
		return err
	}
	var b background
	switch r.Op {
	case "consume":
		b, err = startConsumer(a, client, arguments, r)
	case "iterate":
		b, err = newIteration(client, arguments)
	default:
		b, err = startKeepAlive(client, arguments)
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.backgrounds[r.As] = b
	return nil
}
