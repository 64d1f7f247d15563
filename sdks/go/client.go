package mq9

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/robustmq/mq9/go/internal/wire"
)

// Client is a connection to mq9, made by [Connect] or [NewClient]. It is safe for use by many goroutines at once.
//
// While the connection is down a call waits for it as long as its timeout allows, and then fails with kind timeout;
// nothing was sent then. A call that was waiting for its reply when the connection broke fails with kind
// connection_closed at once, unless it may be tried again.
type Client struct {
	link       link
	requester  wire.Requester
	log        logger
	timeout    time.Duration
	retryPause time.Duration
	calls      tracker // calls under way
	closeOnce  sync.Once

	mu    sync.Mutex
	parts map[part]struct{} // consumers and keep-alives that run
}

// part is what ends before its client does.
type part interface{ end() }

// link is the connection, besides that it carries requests.
type link interface {
	isClosed() bool
	isConnected() bool
	url() string
	settle(timeout time.Duration)
	close(timeout time.Duration)
}

type internalKey struct{}

// internal makes a context for requests of the client's own, which go on when the user's context has ended or the
// client is closing.
func internal(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), internalKey{}, true)
}

// Connect connects to a server and reconnects for ever. servers is a URL, or several with commas between; empty is
// the default, nats://127.0.0.1:4222. Each is tried once, in this order. ctx bounds the connecting only.
//
// Fails with kind connection_closed if no server could be reached, then with code unauthorized if one refused the
// credentials.
func Connect(ctx context.Context, servers string, options *ConnectOptions) (*Client, error) {
	o := valueOf(options).withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	conn, err := dial(ctx, servers, o)
	if err != nil {
		return nil, err
	}
	return newClient(conn, conn, o), nil
}

// NewClient makes a client on top of an existing NATS connection, which stays open when the client is closed. Of the
// options only Timeout and Logger have a meaning.
func NewClient(conn *nats.Conn, options *ConnectOptions) (*Client, error) {
	o := valueOf(options).withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	if conn == nil {
		return nil, invalid("conn", "must not be nil")
	}
	attached, err := attach(conn, true, o.Logger)
	if err != nil {
		return nil, err
	}
	return newClient(attached, attached, o), nil
}

func newClient(link link, requester wire.Requester, o ConnectOptions) *Client {
	if wire.Wrap != nil {
		requester = wire.Wrap(requester)
	}
	return &Client{
		link: link, requester: requester, log: o.Logger, timeout: o.Timeout, retryPause: retryPause,
		parts: map[part]struct{}{},
	}
}

// IsClosed tells whether the client was closed; calls fail then.
func (c *Client) IsClosed() bool { return c.calls.isShut() || c.link.isClosed() }

// IsConnected tells whether there is a connection to a server right now.
func (c *Client) IsConnected() bool { return c.link.isConnected() }

// ConnectedURL is the server that the client is connected to, without credentials; empty while there is none.
func (c *Client) ConnectedURL() string { return c.link.url() }

// Close ends consumers and keep-alives, waits for calls in flight and closes the connection.
//
// It waits for handlers that run, and for at most the client's timeout for calls; what takes longer fails with kind
// connection_closed. A NATS connection that was given to [NewClient] stays open. Closing twice is fine. The error is
// always nil: it is there so that a Client is an io.Closer.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		c.mu.Lock()
		parts := make([]part, 0, len(c.parts))
		for running := range c.parts {
			parts = append(parts, running)
		}
		c.mu.Unlock()
		var ending sync.WaitGroup
		for _, running := range parts {
			ending.Go(running.end)
		}
		ending.Wait()
		c.calls.shutOut()
		c.calls.wait(c.timeout)
		c.link.settle(c.timeout)
		c.link.close(c.timeout)
	})
	return nil
}

// add counts a consumer or keep-alive as running.
func (c *Client) add(running part) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls.isShut() {
		return closed("", "the client is closed", nil)
	}
	c.parts[running] = struct{}{}
	return nil
}

func (c *Client) remove(running part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parts, running)
}

// do carries a call out: sends it, and again where that is allowed, and gives the reply's fields.
func (c *Client) do(ctx context.Context, r *request) (map[string]json.RawMessage, error) {
	payload := r.encodedBody()
	if r.err != nil {
		return nil, r.err
	}
	if ctx.Value(internalKey{}) != nil {
		c.calls.addAlways()
	} else if !c.calls.add() {
		return nil, closed(r.operation.name, "the client is closed", nil)
	}
	defer c.calls.finish()
	attempt := r.attempt
	if attempt == 0 {
		attempt = c.timeout
	}
	attempt += r.wait
	send := &wire.Request{
		Operation: r.operation.name, Subject: r.subject, Header: r.sentHeaders, Payload: payload, Timeout: attempt,
	}
	if r.lease != nil {
		send.Abandoned = c.giveBackLate(ctx, r.lease)
	}
	return c.attempts(ctx, r, send)
}

func (c *Client) attempts(ctx context.Context, r *request, send *wire.Request) (map[string]json.RawMessage, error) {
	giveUp := time.Time{}
	if r.operation.giveUp > 0 {
		giveUp = time.Now().Add(r.operation.giveUp)
	}
	pause := c.retryPause
	for attempt := 1; ; attempt++ {
		fields, err := c.attempt(ctx, r, send)
		if err == nil {
			return fields, nil
		}
		if !r.repeatable || attempt == retryAttempts || !mayRetry(r.operation, err) || c.link.isClosed() {
			return nil, err
		}
		wait := jittered(pause, retryJitter)
		if !giveUp.IsZero() && time.Now().Add(wait).After(giveUp) {
			return nil, err
		}
		c.log.Debug("mq9: an attempt failed, trying again", "operation", r.operation.name, "attempt", attempt, "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ended(r.operation.name, ctx.Err())
		}
		pause *= retryPauseFactor
		if !giveUp.IsZero() {
			again := *send
			again.Timeout = min(send.Timeout, time.Until(giveUp))
			send = &again
		}
	}
}

func (c *Client) attempt(ctx context.Context, r *request, send *wire.Request) (map[string]json.RawMessage, error) {
	if ctx.Err() != nil {
		return nil, ended(r.operation.name, ctx.Err())
	}
	data, err := c.requester.Request(ctx, send)
	if err != nil {
		if failure, ok := asError(err); ok && failure.Op == "" {
			failure.Op = r.operation.name
		}
		return nil, err
	}
	return decodeReply(r.operation.name, data)
}

func mayRetry(operation *operation, err error) bool {
	failure, ok := asError(err)
	if !ok {
		return false
	}
	// The end of the caller's context looks like a timeout, but there is nobody to try again for.
	if failure.cause != nil && (failure.Kind == KindTimeout || failure.Kind == KindCancelled) {
		return false
	}
	return slices.Contains(operation.retriesOn, string(failure.Kind)) ||
		failure.Kind == KindServer && slices.Contains(operation.retriesOn, failure.Code)
}

// giveBackLate says what to do with the reply of a cancelled FETCH under a lease: its messages go back.
func (c *Client) giveBackLate(ctx context.Context, lease *leased) func([]byte) {
	return func(data []byte) {
		fields, err := decodeReply(operationMsgFetch.name, data)
		if err != nil {
			return // it brought nothing
		}
		result, err := decodeMsgFetchReply(c.log, fields)
		if err == nil && result.LeaseID != "" && len(result.Messages) > 0 {
			ids := make([]int64, len(result.Messages))
			for index, message := range result.Messages {
				ids[index] = message.MsgID
			}
			err = c.Nack(internal(ctx), lease.mailAddress, lease.groupName, ids, &NackOptions{LeaseID: result.LeaseID})
		}
		if err != nil {
			c.log.Warn("mq9: messages that a cancelled FETCH brought could not be given back", "error", err)
		}
	}
}
