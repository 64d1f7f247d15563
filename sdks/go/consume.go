package mq9

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Handler is called with each message. Its context ends when the consumer's does; an error, or a panic, gives the
// message back.
type Handler func(ctx context.Context, message *Message) error

// ConsumerStats say what a consumer has done so far.
type ConsumerStats struct {
	Delivered     int // messages handed to the handler
	Acknowledged  int // messages confirmed
	Failed        int // messages whose handler failed
	GivenBack     int // messages given back
	FailedAcks    int // ACKs that failed; those messages come again
	FailedFetches int // FETCHes that failed; each was followed by a pause
}

// Consumer is a running consumer, made by [Client.Consume].
//
// One batch at a time. Each message of it is waiting, then running, then settled; a lease covers all that are not
// settled:
//
//	FETCH -> waiting -> running -> handler returned -> ACK  -> settled
//	            |          `-----> handler failed  -> error hook, NACK with a growing delay -> settled
//	            `-> stopped, cancelled -> NACK -> settled
type Consumer struct {
	client   *Client
	settings *consumeSettings
	handler  Handler
	ctx      context.Context // of the user: it ends everything
	running  context.Context // ends with ctx, or by a stop
	stop     context.CancelFunc
	done     chan struct{}

	mu        sync.Mutex
	start     func(*FetchOptions) // options of the first FETCH; nil once one has succeeded
	waiting   []*Message
	unsettled []*Message
	inside    map[uint64]int // goroutines that run a handler or the error hook
	stats     ConsumerStats
	err       error
}

// Consume consumes a mailbox in a consumer group: it fetches under leases and hands each message to the handler, in
// goroutines of its own, until it is stopped, the client is closed or ctx ends.
//
// After the handler has returned nil the message is acknowledged. After an error it goes to the error hook, and the
// message is given back with a growing delay. All unfinished messages of a batch are renewed every third of the lease.
//
// Requirements: CONSUME-001 to CONSUME-016.
func (c *Client) Consume(
	ctx context.Context, mailAddress, groupName string, handler Handler, options *ConsumeOptions,
) (*Consumer, error) {
	settings, err := newConsumeSettings(mailAddress, groupName, options)
	if err != nil {
		return nil, err
	}
	if handler == nil {
		return nil, invalid("handler", "must not be nil")
	}
	consumer := newConsumer(ctx, c, settings, handler)
	if err := c.add(consumer); err != nil {
		consumer.stop()
		return nil, err
	}
	go consumer.run()
	return consumer, nil
}

// Messages consumes a mailbox as [Client.Consume] does, by a loop:
//
//	messages, err := client.Messages(ctx, "jobs", "workers", nil)
//	...
//	for message, err := range messages {
//
// Fetching starts with the loop. A message is acknowledged when the loop asks for the next one; leave the loop, and
// what it has not finished is given back, the message in hand included. Failures of requests go to the error hook and
// do not end the loop; when ctx ends, its error comes last. With ManualAck, call the message's own Ack and Nack.
// Concurrency has no meaning here.
func (c *Client) Messages(
	ctx context.Context, mailAddress, groupName string, options *ConsumeOptions,
) (iter.Seq2[*Message, error], error) {
	settings, err := newConsumeSettings(mailAddress, groupName, options)
	if err != nil {
		return nil, err
	}
	if c.IsClosed() {
		return nil, closed("", "the client is closed", nil)
	}
	return func(yield func(*Message, error) bool) {
		consumer := newConsumer(ctx, c, settings, nil)
		if err := c.add(consumer); err != nil {
			consumer.stop()
			yield(nil, err)
			return
		}
		consumer.iterate(yield)
	}, nil
}

func newConsumer(ctx context.Context, client *Client, settings *consumeSettings, handler Handler) *Consumer {
	c := &Consumer{
		client: client, settings: settings, handler: handler, ctx: ctx, start: settings.start,
		done: make(chan struct{}), inside: map[uint64]int{},
	}
	c.running, c.stop = context.WithCancel(ctx)
	return c
}

// Stop ends the consumer: it waits for running handlers and their ACKs, and gives back what was not started. Calling
// it again is fine. From inside a handler, or the error hook, it only asks for the end and returns.
func (c *Consumer) Stop() {
	c.stop()
	c.mu.Lock()
	inside := c.inside[goroutineID()] > 0
	c.mu.Unlock()
	if !inside {
		<-c.done
	}
}

// Done is closed when the consumer has ended.
func (c *Consumer) Done() <-chan struct{} { return c.done }

// Err tells why the consumer has ended: nil after a stop, and while it runs; the context's error, wrapped, if that
// ended it.
func (c *Consumer) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stats tells what the consumer has done so far.
func (c *Consumer) Stats() ConsumerStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// end is the client's end: like Stop, but without waiting for a loop's body, which may be the caller.
func (c *Consumer) end() {
	if c.handler != nil {
		c.Stop()
		return
	}
	c.stop()
	c.giveBackWaiting()
}

func (c *Consumer) finish() {
	c.stop()
	c.mu.Lock()
	if cause := c.ctx.Err(); cause != nil {
		c.err = ended("", cause)
	}
	c.mu.Unlock()
	c.client.remove(c)
	close(c.done)
}

// The handler form.

func (c *Consumer) run() {
	defer c.finish()
	for c.nextBatch() {
		stopRenewing := c.startRenewing()
		var workers sync.WaitGroup
		for range min(c.settings.concurrency, c.waitingCount()) {
			workers.Go(c.work)
		}
		workers.Wait()
		if c.ctx.Err() != nil {
			stopRenewing()
			c.giveBack(c.takeUnsettled(), 0)
			return
		}
		c.giveBackWaiting()
		stopRenewing()
	}
}

func (c *Consumer) work() {
	for message := c.take(); message != nil; message = c.take() {
		err := c.callHandler(message)
		switch {
		case err == nil:
			if c.settings.autoAck {
				c.acknowledge(message)
			}
			c.settle(message)
		case c.ctx.Err() != nil:
			return // given back with all that is still in hand
		default:
			c.count(func(stats *ConsumerStats) { stats.Failed++ })
			c.report(err, message)
			c.settle(message)
			c.giveBack([]*Message{message}, nackDelay(message.DeliveryCount))
		}
	}
}

func (c *Consumer) callHandler(message *Message) (err error) {
	defer c.enter()()
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the handler panicked: %v\n%s", cause, debug.Stack())
		}
	}()
	return c.handler(c.ctx, message)
}

// The loop.

func (c *Consumer) iterate(yield func(*Message, error) bool) {
	defer c.finish()
	// Also when the body panics, or ends its goroutine.
	defer func() { c.giveBack(c.takeUnsettled(), 0) }()
	for c.nextBatch() {
		if !c.iterateBatch(yield) {
			return
		}
	}
	c.giveBack(c.takeUnsettled(), 0)
	if cause := c.ctx.Err(); cause != nil {
		yield(nil, ended("", cause))
	}
}

func (c *Consumer) iterateBatch(yield func(*Message, error) bool) bool {
	defer c.startRenewing()()
	for message := c.take(); message != nil; message = c.take() {
		if !yield(message, nil) {
			return false
		}
		// The loop has come back for more, so its body has ended well.
		if c.settings.autoAck {
			c.acknowledge(message)
		}
		c.settle(message)
	}
	c.giveBackWaiting()
	return true
}

// Pieces of both.

// nextBatch waits for messages; false if the consumer was stopped.
func (c *Consumer) nextBatch() bool {
	pause := consumeFetchPause
	for c.running.Err() == nil {
		err := c.fetch()
		if err != nil {
			if c.running.Err() != nil {
				return false
			}
			c.count(func(stats *ConsumerStats) { stats.FailedFetches++ })
			if c.client.IsClosed() {
				return false
			}
			c.report(err, nil)
			c.sleep(jittered(pause, consumeFetchPauseJitter))
			pause = min(pause*consumeFetchPauseFactor, consumeFetchPauseMax)
			continue
		}
		pause = consumeFetchPause
		if c.waitingCount() > 0 {
			return true
		}
	}
	return false
}

func (c *Consumer) sleep(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.running.Done():
	}
}

func (c *Consumer) fetch() error {
	numMsgs := max(c.settings.numMsgs, c.settings.concurrency)
	options := &FetchOptions{
		GroupName: c.settings.groupName, NumMsgs: &numMsgs, MaxWait: &c.settings.maxWait, Lease: c.settings.lease,
		Timeout: c.settings.timeout,
	}
	c.mu.Lock()
	if c.start != nil {
		c.start(options)
	}
	c.mu.Unlock()
	// What a cancelled FETCH brings is given back by the client.
	result, err := c.client.Fetch(c.running, c.settings.mailAddress, options)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start = nil
	for _, message := range result.Messages {
		message.delivery = &delivery{
			client: c.client, mailAddress: c.settings.mailAddress, groupName: c.settings.groupName,
			leaseID: result.LeaseID, lease: c.settings.lease, timeout: c.settings.timeout,
		}
	}
	c.waiting = append(c.waiting, result.Messages...)
	c.unsettled = append(c.unsettled, result.Messages...)
	return nil
}

func (c *Consumer) waitingCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}

// take gives the next message; nil if there is none, or the consumer was stopped.
func (c *Consumer) take() *Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 || c.running.Err() != nil {
		return nil
	}
	message := c.waiting[0]
	c.waiting = c.waiting[1:]
	c.stats.Delivered++
	return message
}

func (c *Consumer) settle(message *Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsettled = slices.DeleteFunc(c.unsettled, func(other *Message) bool { return other == message })
}

func (c *Consumer) takeUnsettled() []*Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages := c.unsettled
	c.unsettled, c.waiting = nil, nil
	return messages
}

// giveBackWaiting gives back what was not started.
func (c *Consumer) giveBackWaiting() {
	c.mu.Lock()
	messages := c.waiting
	c.waiting = nil
	c.unsettled = slices.DeleteFunc(c.unsettled, func(message *Message) bool { return slices.Contains(messages, message) })
	c.mu.Unlock()
	c.giveBack(messages, 0)
}

func (c *Consumer) acknowledge(message *Message) {
	if message.delivery.settled.Load() {
		return
	}
	if err := message.Ack(internal(c.ctx)); err != nil {
		c.count(func(stats *ConsumerStats) { stats.FailedAcks++ })
		c.report(err, message)
		return
	}
	c.count(func(stats *ConsumerStats) { stats.Acknowledged++ })
}

// giveBack NACKs messages of one batch that are not settled; what fails comes again when its lease is over.
func (c *Consumer) giveBack(messages []*Message, delay time.Duration) {
	var ids []int64
	var held []*Message
	for _, message := range messages {
		if !message.delivery.settled.Load() {
			held = append(held, message)
			ids = append(ids, message.MsgID)
		}
	}
	if len(held) == 0 {
		return
	}
	err := c.client.Nack(internal(c.ctx), c.settings.mailAddress, c.settings.groupName, ids,
		&NackOptions{LeaseID: held[0].delivery.leaseID, Delay: delay, Timeout: c.settings.timeout})
	if err == nil {
		c.count(func(stats *ConsumerStats) { stats.GivenBack += len(held) })
		return
	}
	var about *Message
	if len(held) == 1 {
		about = held[0]
	}
	c.report(err, about)
}

// startRenewing keeps everything that is not settled hidden from the rest of the group, until what it gives is called.
func (c *Consumer) startRenewing() (stop func()) {
	ctx, cancel := context.WithCancel(internal(c.ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(max(c.settings.lease/consumeRenewDivisor, time.Microsecond))
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
			if ids, leaseID := c.held(); len(ids) > 0 && !c.client.IsClosed() {
				_, err := c.client.Renew(ctx, c.settings.mailAddress, c.settings.groupName, ids, c.settings.lease,
					&RenewOptions{LeaseID: leaseID, Timeout: c.settings.timeout})
				if err != nil && ctx.Err() == nil {
					c.report(err, nil)
				}
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// held gives what is not settled; all of a batch is under one lease.
func (c *Consumer) held() (ids []int64, leaseID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, message := range c.unsettled {
		if !message.delivery.settled.Load() {
			ids = append(ids, message.MsgID)
			leaseID = message.delivery.leaseID
		}
	}
	return ids, leaseID
}

func (c *Consumer) count(change func(*ConsumerStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.stats)
}

// report runs the error hook, or logs where there is none; a hook that panics is logged too.
func (c *Consumer) report(err error, message *Message) {
	log := c.client.log.With("mail_address", c.settings.mailAddress, "group_name", c.settings.groupName)
	if message != nil {
		log = log.With("msg_id", message.MsgID)
	}
	if c.settings.onError == nil {
		log.Warn("mq9: consumer", "error", err)
		return
	}
	defer c.enter()()
	defer func() {
		if cause := recover(); cause != nil {
			log.Error("mq9: the error hook panicked", "cause", cause, "stack", string(debug.Stack()))
		}
	}()
	c.settings.onError(err, message)
}

// enter notes that this goroutine runs the user's code, so that a Stop from there does not wait for itself.
func (c *Consumer) enter() (leave func()) {
	id := goroutineID()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside[id]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.inside[id]--; c.inside[id] == 0 {
			delete(c.inside, id)
		}
	}
}

// goroutineID reads the number of this goroutine from its stack trace, the only place that tells it. It is used for
// nothing but to notice that Stop is called from inside a handler, where waiting for that handler would never end.
func goroutineID() uint64 {
	var buffer [64]byte
	text := bytes.TrimPrefix(buffer[:runtime.Stack(buffer[:], false)], []byte("goroutine "))
	digits, _, _ := bytes.Cut(text, []byte(" "))
	id, _ := strconv.ParseUint(string(digits), 10, 64)
	return id
}

// nackDelay is how long a message stays hidden after its handler failed.
func nackDelay(deliveryCount *int64) time.Duration {
	delay := consumeNackDelay
	for count := int64(1); deliveryCount != nil && count < *deliveryCount && delay < consumeNackDelayMax; count++ {
		delay *= consumeNackDelayFactor
	}
	return min(delay, consumeNackDelayMax)
}
