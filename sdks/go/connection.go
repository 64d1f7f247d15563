package mq9

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/robustmq/mq9/go/internal/wire"
)

const (
	stateCheck     = 10 * time.Millisecond // how often a request that waits for the connection looks again
	headerOverhead = len("NATS/1.0\r\n\r\n")
	jitter         = 0.5
)

// connection carries requests over NATS. nats.go reconnects by itself; what happens to requests meanwhile is decided
// here:
//
//   - A request waits for the connection as long as its timeout allows; if that runs out, nothing was sent. Nothing is
//     kept to be sent later: a FETCH whose caller has given up would take messages that nobody handles.
//   - A request that was sent when the connection broke fails at once: its reply can't come any more.
//   - A cancelled request is forgotten; where its reply may bring messages under a lease, it is still listened for.
type connection struct {
	nats         *nats.Conn
	injected     bool
	log          logger
	inbox        string
	subscription *nats.Subscription
	statuses     chan nats.Status
	done         chan struct{} // closed with the connection
	watching     sync.WaitGroup
	late         tracker // replies of cancelled requests that are waited for, or handled

	mu      sync.Mutex
	waiting map[string]*waiting
	next    uint64
	closed  bool
}

// waiting is a request on its way. Exactly one outcome is put into its channel.
type waiting struct {
	outcome    chan outcome
	reconnects uint64 // of the connection when it was sent
}

type outcome struct {
	message *nats.Msg
	err     error
}

func dial(ctx context.Context, servers string, o ConnectOptions) (*connection, error) {
	urls, err := serverList(append([]string{servers}, o.Servers...))
	if err != nil {
		return nil, err
	}
	if o.CredentialsFile != "" {
		if info, err := os.Stat(o.CredentialsFile); err != nil || !info.Mode().IsRegular() {
			return nil, invalid("credentials_file", fmt.Sprintf("there is no file %q", o.CredentialsFile))
		}
	}
	options := natsOptions(o)
	var failures []string
	var last error
	refused := false
	for index, server := range urls {
		conn, err := dialOne(ctx, server, options)
		if ctx.Err() != nil {
			return nil, ended("", ctx.Err())
		}
		if err != nil {
			why := strings.TrimPrefix(err.Error(), "nats: ")
			refused = refused || isRefusal(why)
			failures = append(failures, redacted(server)+": "+why)
			last = err
			continue
		}
		if len(urls) > 1 {
			if err := conn.SetServerPool(withDiscovered(slices.Concat(urls[index:], urls[:index]), conn)); err != nil {
				conn.Close()
				return nil, closed("", "could not use the list of servers: "+err.Error(), err)
			}
		}
		return attach(conn, false, o.Logger)
	}
	failure := closed("", "could not connect to "+strings.Join(failures, "; "), last)
	if refused {
		failure.Code = "unauthorized"
	}
	return nil, failure
}

// dialOne connects to one server. nats.go can't be cancelled while it does, so what it brings after that is closed.
func dialOne(ctx context.Context, server string, options []nats.Option) (*nats.Conn, error) {
	type result struct {
		conn *nats.Conn
		err  error
	}
	results := make(chan result, 1)
	go func() {
		conn, err := nats.Connect(server, options...)
		results <- result{conn, err}
	}()
	select {
	case got := <-results:
		return got.conn, got.err
	case <-ctx.Done():
		go func() {
			if got := <-results; got.conn != nil {
				got.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

func natsOptions(o ConnectOptions) []nats.Option {
	options := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(o.ConnectTimeout),
		nats.DontRandomize(),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectBufSize(-1), // nothing that was published while disconnected is sent later
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			wait := o.ReconnectWait << min(attempts-1, 30)
			if wait <= 0 || wait > o.ReconnectWaitMax {
				wait = o.ReconnectWaitMax
			}
			return min(jittered(wait, jitter), o.ReconnectWaitMax)
		}),
		nats.PingInterval(20 * time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { o.Logger.Debug("mq9: nats", "error", err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Logger.Info("mq9: connection lost, reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			o.Logger.Info("mq9: connected again", "server", conn.ConnectedUrlRedacted())
		}),
	}
	if o.User != "" || o.Password != "" {
		options = append(options, nats.UserInfo(o.User, o.Password))
	}
	if o.Token != "" {
		options = append(options, nats.Token(o.Token))
	}
	if o.CredentialsFile != "" {
		options = append(options, nats.UserCredentials(o.CredentialsFile))
	}
	if o.TLS != nil {
		options = append(options, nats.Secure(o.TLS))
	}
	return options
}

// withDiscovered adds the servers that the connected one has told of.
func withDiscovered(urls []string, conn *nats.Conn) []string {
	for _, server := range conn.ServerPool() {
		if found := server.URL.String(); !slices.Contains(urls, found) {
			urls = append(urls, found)
		}
	}
	return urls
}

func attach(conn *nats.Conn, injected bool, log logger) (*connection, error) {
	c := &connection{
		nats: conn, injected: injected, log: log, inbox: conn.NewInbox(),
		waiting: map[string]*waiting{}, done: make(chan struct{}),
	}
	if conn.IsClosed() || conn.IsDraining() {
		return nil, closed("", "the NATS connection that was given is closed", nats.ErrConnectionClosed)
	}
	subscription, err := conn.Subscribe(c.inbox+".*", c.onReply)
	if err == nil {
		err = subscription.SetPendingLimits(-1, -1)
	}
	if err != nil {
		if !injected {
			conn.Close()
		}
		return nil, closed("", "could not subscribe to replies: "+err.Error(), err)
	}
	c.subscription = subscription
	c.statuses = conn.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	c.watching.Go(c.watch)
	return c, nil
}

// watch fails what was sent before the connection broke.
func (c *connection) watch() {
	for {
		select {
		case status, open := <-c.statuses:
			if !open {
				return
			}
			c.failWaiting(status)
		case <-c.done:
			return
		}
	}
}

func (c *connection) failWaiting(status nats.Status) {
	now := c.nats.Stats().Reconnects
	connected := c.nats.IsConnected() && status != nats.CLOSED
	c.mu.Lock()
	defer c.mu.Unlock()
	for token, request := range c.waiting {
		// The news may be old: what was sent on the next connection already goes on.
		if !connected || request.reconnects < now {
			request.outcome <- outcome{err: closed("", "the connection broke before the reply came", nats.ErrDisconnected)}
			delete(c.waiting, token)
		}
	}
}

func (c *connection) onReply(message *nats.Msg) {
	token := message.Subject[strings.LastIndexByte(message.Subject, '.')+1:]
	c.mu.Lock()
	defer c.mu.Unlock()
	if request, ok := c.waiting[token]; ok {
		request.outcome <- outcome{message: message}
		delete(c.waiting, token)
	}
}

func (c *connection) register() (string, *waiting, error) {
	request := &waiting{outcome: make(chan outcome, 1), reconnects: c.nats.Stats().Reconnects}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return "", nil, closed("", "the client is closed", nil)
	}
	c.next++
	token := strconv.FormatUint(c.next, 36)
	c.waiting[token] = request
	return token, request, nil
}

func (c *connection) forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, token)
}

// Request sends a request and waits for its reply.
func (c *connection) Request(ctx context.Context, request *wire.Request) ([]byte, error) {
	timer := time.NewTimer(request.Timeout)
	token, sent, err := c.send(ctx, request, timer)
	if err != nil {
		timer.Stop()
		return nil, err
	}
	select {
	case got := <-sent.outcome:
		timer.Stop()
		return got.reply()
	case <-timer.C:
		c.forget(token)
		return nil, &Error{Kind: KindTimeout, Message: fmt.Sprintf("no reply within %s", request.Timeout)}
	case <-ctx.Done():
		if request.Abandoned == nil {
			timer.Stop()
			c.forget(token)
		} else if c.late.add() {
			go c.listen(token, sent, timer, request.Abandoned)
		}
		return nil, ended("", ctx.Err())
	}
}

// listen waits for the reply of a cancelled request.
func (c *connection) listen(token string, sent *waiting, timer *time.Timer, abandoned func([]byte)) {
	defer c.late.finish()
	defer timer.Stop()
	defer c.forget(token)
	select {
	case got := <-sent.outcome:
		if data, err := got.reply(); err == nil {
			abandoned(data)
		}
	case <-timer.C:
	case <-c.done:
	}
}

func (o outcome) reply() ([]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	if len(o.message.Data) == 0 && o.message.Header.Get("Status") == "503" {
		return nil, &Error{Kind: KindNoResponders, Message: "no mq9 broker answers on this NATS server", cause: nats.ErrNoResponders}
	}
	return o.message.Data, nil
}

// send publishes as soon as there is a connection.
func (c *connection) send(ctx context.Context, request *wire.Request, timer *time.Timer) (string, *waiting, error) {
	for {
		if err := c.connected(ctx, request, timer); err != nil {
			return "", nil, err
		}
		size := len(request.Payload)
		message := &nats.Msg{Subject: request.Subject, Data: request.Payload}
		if len(request.Header) > 0 {
			size += headerOverhead
			message.Header = make(nats.Header, len(request.Header))
			for name, value := range request.Header {
				size += len(name) + len(value) + len(": \r\n")
				message.Header[name] = []string{value}
			}
		}
		if limit := c.nats.MaxPayload(); limit > 0 && int64(size) > limit {
			return "", nil, tooLarge(fmt.Sprintf("%d bytes with its headers, the server takes at most %d", size, limit))
		}
		token, sent, err := c.register()
		if err != nil {
			return "", nil, err
		}
		message.Reply = c.inbox + "." + token
		err = c.nats.PublishMsg(message)
		if err == nil {
			return token, sent, nil
		}
		c.forget(token)
		switch {
		case errors.Is(err, nats.ErrReconnectBufExceeded):
			// The connection broke just now, and nothing was sent.
		case errors.Is(err, nats.ErrMaxPayload):
			return "", nil, tooLarge(err.Error())
		default:
			return "", nil, closed("", strings.TrimPrefix(err.Error(), "nats: "), err)
		}
	}
}

func tooLarge(why string) *Error {
	return &Error{Kind: KindInvalidArgument, Code: "payload_too_large", Field: "payload", Message: "payload: " + why}
}

// connected waits for the connection.
func (c *connection) connected(ctx context.Context, request *wire.Request, timer *time.Timer) error {
	for {
		switch {
		case c.isClosed():
			return closed("", "the client is closed", nil)
		case c.nats.IsClosed() || c.nats.IsDraining():
			return closed("", "the NATS connection is closed", nats.ErrConnectionClosed)
		case c.nats.IsConnected():
			return nil
		}
		look := time.NewTimer(stateCheck)
		select {
		case <-look.C:
		case <-timer.C:
			look.Stop()
			return &Error{Kind: KindTimeout, Message: fmt.Sprintf("not connected to a server for %s; nothing was sent", request.Timeout)}
		case <-ctx.Done():
			look.Stop()
			return ended("", ctx.Err())
		case <-c.done:
			look.Stop()
		}
	}
}

func (c *connection) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *connection) isConnected() bool { return !c.isClosed() && c.nats.IsConnected() }

func (c *connection) url() string { return c.nats.ConnectedUrlRedacted() }

// settle lets replies of cancelled requests come in. The end of our own connection ends their requests at the broker
// too, so only what has come until now is waited for; on somebody else's they have to be waited for themselves.
func (c *connection) settle(timeout time.Duration) {
	if c.injected {
		c.late.wait(timeout + consumeDefaultMaxWait)
	} else if c.late.busy() && c.nats.IsConnected() {
		_ = c.nats.FlushTimeout(timeout) // a connection that is broken brings nothing more
	}
}

// close ends the connection for good; one that was given stays open.
func (c *connection) close(timeout time.Duration) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	for token, request := range c.waiting {
		request.outcome <- outcome{err: closed("", "the client was closed before the reply came", nil)}
		delete(c.waiting, token)
	}
	c.mu.Unlock()
	close(c.done)
	c.late.wait(timeout)
	c.nats.RemoveStatusListener(c.statuses)
	c.watching.Wait()
	if c.injected {
		_ = c.subscription.Unsubscribe() // its connection may be closed by now
	} else {
		c.nats.Close()
	}
}

// serverList splits and checks server URLs; nothing at all means the default.
func serverList(texts []string) ([]string, error) {
	var urls []string
	sockets := 0
	for _, text := range texts {
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			server, err := serverURL(part)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(urls, server) {
				urls = append(urls, server)
				if strings.HasPrefix(server, "ws") {
					sockets++
				}
			}
		}
	}
	if sockets > 0 && sockets < len(urls) {
		return nil, invalid("servers", "must be all WebSocket URLs or none")
	}
	if len(urls) == 0 {
		if strings.Join(texts, "") != "" {
			return nil, invalid("servers", "must not be empty")
		}
		urls = []string{DefaultServer}
	}
	return urls, nil
}

func serverURL(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	parsed, err := url.Parse(text)
	if err != nil {
		return "", invalid("servers", fmt.Sprintf("%q is no URL", redacted(text)))
	}
	if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme) || parsed.Hostname() == "" {
		return "", invalid("servers", fmt.Sprintf("%q is no URL like nats://host:4222", redacted(text)))
	}
	if port := parsed.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", invalid("servers", fmt.Sprintf("%q has a port beyond 65535", redacted(text)))
		}
	} else if parsed.Scheme == "nats" || parsed.Scheme == "tls" {
		parsed.Host = strings.TrimSuffix(parsed.Host, ":") + ":4222"
	}
	return parsed.String(), nil
}

// redacted hides what may be a password or token.
func redacted(server string) string {
	at := strings.LastIndexByte(server, '@')
	if at < 0 {
		return server
	}
	scheme, _, _ := strings.Cut(server, "://")
	return scheme + "://…@" + server[at+1:]
}

func isRefusal(why string) bool {
	why = strings.ToLower(why)
	return strings.Contains(why, "authoriz") || strings.Contains(why, "authentic")
}

func jittered(wait time.Duration, most float64) time.Duration {
	return time.Duration(float64(wait) * (1 + most*rand.Float64()))
}
