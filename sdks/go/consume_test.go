package mq9_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/robustmq/mq9/go"
	"github.com/robustmq/mq9/go/internal/wire"
)

// script is a broker in memory: it records requests and answers them.
type script struct {
	mu       sync.Mutex
	requests []*wire.Request
	answers  map[string]func(ctx context.Context, body map[string]any) (string, error)
}

func (s *script) Request(ctx context.Context, request *wire.Request) ([]byte, error) {
	s.mu.Lock()
	s.requests = append(s.requests, request)
	answer := s.answers[request.Operation]
	s.mu.Unlock()
	if answer == nil {
		return []byte(`{"error":"","renewed":[]}`), nil
	}
	var body map[string]any
	_ = json.Unmarshal(request.Payload, &body)
	text, err := answer(ctx, body)
	return []byte(text), err
}

func (s *script) bodies(operation string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bodies []string
	for _, request := range s.requests {
		if request.Operation == operation {
			bodies = append(bodies, string(request.Payload))
		}
	}
	return bodies
}

// once answers the first FETCH with messages; later ones wait until they are cancelled.
func once(messages string) func(context.Context, map[string]any) (string, error) {
	var fetched atomic.Bool
	return func(ctx context.Context, _ map[string]any) (string, error) {
		if !fetched.Swap(true) {
			return `{"error":"","lease_id":"L","messages":[` + messages + `]}`, nil
		}
		<-ctx.Done()
		return "", &mq9.Error{Kind: mq9.KindCancelled}
	}
}

func consumeScript(messages string) (*script, *mq9.Client) {
	s := &script{answers: map[string]func(context.Context, map[string]any) (string, error){"msg.fetch": once(messages)}}
	return s, mq9.NewClientOn(s)
}

func TestConsumeChecksItsArgumentsBeforeAnythingIsSent(t *testing.T) {
	s, client := consumeScript("")
	handler := func(context.Context, *mq9.Message) error { return nil }
	for field, start := range map[string]func() error{
		"group_name":   func() error { _, err := client.Consume(t.Context(), "a", "", handler, nil); return err },
		"mail_address": func() error { _, err := client.Messages(t.Context(), "A", "g", nil); return err },
		"handler":      func() error { _, err := client.Consume(t.Context(), "a", "g", nil, nil); return err },
		"lease_ms": func() error {
			_, err := client.Messages(t.Context(), "a", "g", &mq9.ConsumeOptions{Lease: mq9.Ptr(1500 * time.Microsecond)})
			return err
		},
		"concurrency": func() error {
			_, err := client.Messages(t.Context(), "a", "g", &mq9.ConsumeOptions{Concurrency: mq9.Ptr(0)})
			return err
		},
		"from_id": func() error {
			_, err := client.Messages(t.Context(), "a", "g", &mq9.ConsumeOptions{Deliver: mq9.DeliverFromID})
			return err
		},
	} {
		var failure *mq9.Error
		if err := start(); !errors.As(err, &failure) || failure.Kind != mq9.KindInvalidArgument || failure.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if len(s.requests) > 0 {
		t.Errorf("%s was sent", s.requests[0].Subject)
	}
}

func TestHandlersThatFailOrPanicGiveTheirMessageBack(t *testing.T) {
	s, client := consumeScript(`{"msg_id":0,"delivery_count":1},{"msg_id":1,"delivery_count":3},{"msg_id":2}`)
	reported := make(chan string, 8)
	consumer, err := client.Consume(t.Context(), "a", "g", func(_ context.Context, message *mq9.Message) error {
		switch message.MsgID {
		case 0:
			return errors.New("told to fail")
		case 1:
			panic("told to panic")
		}
		return nil
	}, &mq9.ConsumeOptions{OnError: func(err error, message *mq9.Message) {
		reported <- fmt.Sprintf("%d %.22s", message.MsgID, err)
		panic("the hook panics too")
	}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last is acknowledged", func() bool { return len(s.bodies("msg.ack")) == 1 })
	consumer.Stop()
	if first, second := received(t, reported), received(t, reported); first != "0 told to fail" || second != "1 the handler panicked: " && second != "1 the handler panicked:" {
		t.Errorf("%q, %q", first, second)
	}
	want := `{"delay_ms":1000,"group_name":"g","lease_id":"L","mail_address":"a","msg_ids":[0]} ` +
		`{"delay_ms":4000,"group_name":"g","lease_id":"L","mail_address":"a","msg_ids":[1]}`
	if got := strings.Join(s.bodies("msg.nack"), " "); got != want {
		t.Errorf("%s", got)
	}
	stats := consumer.Stats()
	if stats != (mq9.ConsumerStats{Delivered: 3, Acknowledged: 1, Failed: 2, GivenBack: 2}) {
		t.Errorf("%+v", stats)
	}
	if consumer.Err() != nil {
		t.Error(consumer.Err())
	}
}

func TestNackDelayGrowsToAMinute(t *testing.T) {
	for count, want := range map[int64]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 1 << 62: time.Minute} {
		if got := mq9.NackDelay(&count); got != want {
			t.Errorf("%d: %s", count, got)
		}
	}
	if mq9.NackDelay(nil) != time.Second {
		t.Error("without a count")
	}
}

func TestStopWaitsForTheHandlerAndGivesBackWhatWasNotStarted(t *testing.T) {
	s, client := consumeScript(`{"msg_id":0},{"msg_id":1},{"msg_id":2}`)
	began, goOn := make(chan struct{}), make(chan struct{})
	consumer, err := client.Consume(t.Context(), "a", "g", func(context.Context, *mq9.Message) error {
		close(began)
		<-goOn
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	received(t, began)
	stopped := make(chan struct{})
	go func() { consumer.Stop(); consumer.Stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Fatal("stop did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	received(t, stopped)
	if got := s.bodies("msg.ack"); len(got) != 1 || got[0] != `{"group_name":"g","mail_address":"a","msg_id":0}` {
		t.Errorf("%q", got)
	}
	if got := s.bodies("msg.nack"); len(got) != 1 || got[0] != `{"group_name":"g","lease_id":"L","mail_address":"a","msg_ids":[1,2]}` {
		t.Errorf("%q", got)
	}
}

func TestStopFromInsideAHandlerAndFromTheErrorHook(t *testing.T) {
	for _, fails := range []bool{false, true} {
		s, client := consumeScript(`{"msg_id":0},{"msg_id":1}`)
		var consumer *mq9.Consumer
		ready := make(chan struct{})
		handler := func(context.Context, *mq9.Message) error {
			<-ready
			if fails {
				return errors.New("told to fail")
			}
			consumer.Stop()
			return nil
		}
		var err error
		consumer, err = client.Consume(t.Context(), "a", "g", handler, &mq9.ConsumeOptions{
			OnError: func(error, *mq9.Message) { consumer.Stop() },
		})
		if err != nil {
			t.Fatal(err)
		}
		close(ready)
		received(t, consumer.Done())
		if acks := len(s.bodies("msg.ack")); (acks == 1) == fails {
			t.Errorf("%d ACKs", acks)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCancellingGivesEverythingBackAtOnce(t *testing.T) {
	s, client := consumeScript(`{"msg_id":0},{"msg_id":1},{"msg_id":2}`)
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan struct{}, 2)
	consumer, err := client.Consume(ctx, "a", "g", func(ctx context.Context, _ *mq9.Message) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, &mq9.ConsumeOptions{Concurrency: mq9.Ptr(2)})
	if err != nil {
		t.Fatal(err)
	}
	received(t, began)
	received(t, began)
	cancel()
	received(t, consumer.Done())
	isError(t, consumer.Err(), context.Canceled)
	isError(t, consumer.Err(), mq9.ErrCancelled)
	if got := s.bodies("msg.nack"); len(got) != 1 || !strings.Contains(got[0], `"msg_ids":[0,1,2]`) {
		t.Errorf("%q", got)
	}
}

func TestMessagesAreRenewedUntilTheyAreSettled(t *testing.T) {
	s, client := consumeScript(`{"msg_id":0},{"msg_id":1}`)
	goOn := make(chan struct{})
	consumer, err := client.Consume(t.Context(), "a", "g", func(context.Context, *mq9.Message) error {
		<-goOn
		return nil
	}, &mq9.ConsumeOptions{Lease: mq9.Ptr(60 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	both := `{"group_name":"g","lease_id":"L","lease_ms":60,"mail_address":"a","msg_ids":[0,1]}`
	second := strings.Replace(both, "0,1", "1", 1)
	eventually(t, "both are renewed twice", func() bool { return strings.Count(fmt.Sprint(s.bodies("msg.renew")), both) > 1 })
	goOn <- struct{}{}
	eventually(t, "the second is renewed", func() bool { return strings.Contains(fmt.Sprint(s.bodies("msg.renew")), second) })
	goOn <- struct{}{}
	eventually(t, "both are acknowledged", func() bool { return len(s.bodies("msg.ack")) == 2 })
	count := len(s.bodies("msg.renew"))
	time.Sleep(100 * time.Millisecond)
	if more := len(s.bodies("msg.renew")); more > count+1 {
		t.Errorf("renewed %d times more", more-count)
	}
	consumer.Stop()
}

func TestFailedAckIsReportedOnceAndCounted(t *testing.T) {
	s, client := consumeScript(`{"msg_id":0}`)
	s.answers["msg.ack"] = func(context.Context, map[string]any) (string, error) {
		return `{"error":"internal error: x","code":"internal"}`, nil
	}
	reported := make(chan error, 2)
	consumer, err := client.Consume(t.Context(), "a", "g", func(context.Context, *mq9.Message) error { return nil },
		&mq9.ConsumeOptions{OnError: func(err error, message *mq9.Message) { reported <- fmt.Errorf("%d %w", message.MsgID, err) }})
	if err != nil {
		t.Fatal(err)
	}
	isError(t, received(t, reported), mq9.ErrInternal)
	consumer.Stop()
	if stats := consumer.Stats(); stats.FailedAcks != 1 || len(reported) != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestStartIsSentUntilAFetchSucceeds(t *testing.T) {
	s, client := consumeScript("")
	fetches := 0
	s.answers["msg.fetch"] = func(ctx context.Context, _ map[string]any) (string, error) {
		if fetches++; fetches == 1 {
			return `{"error":"mailbox a does not exist","code":"mailbox_not_found"}`, nil
		} else if fetches < 4 {
			return `{"error":"","messages":[]}`, nil
		}
		<-ctx.Done()
		return "", &mq9.Error{Kind: mq9.KindCancelled}
	}
	consumer, err := client.Consume(t.Context(), "a", "g", func(context.Context, *mq9.Message) error { return nil },
		&mq9.ConsumeOptions{Deliver: mq9.DeliverEarliest, ForceDeliver: true, Concurrency: mq9.Ptr(20)})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "four FETCHes", func() bool { return len(s.bodies("msg.fetch")) == 4 })
	consumer.Stop()
	config := `"config":{"lease_ms":30000,"max_wait_ms":5000,"num_msgs":20}`
	first := `{` + config + `,"deliver":"earliest","force_deliver":true,"group_name":"g"}`
	later := `{` + config + `,"group_name":"g"}`
	if got := s.bodies("msg.fetch"); got[0] != first || got[1] != first || got[2] != later || got[3] != later {
		t.Errorf("%q", got)
	}
}

func TestLoopAcknowledgesAndGivesBack(t *testing.T) {
	s, client := consumeScript(`{"msg_id":0},{"msg_id":1},{"msg_id":2}`)
	messages, err := client.Messages(t.Context(), "a", "g", nil)
	if err != nil {
		t.Fatal(err)
	}
	for message, err := range messages {
		if err != nil {
			t.Fatal(err)
		}
		if message.MsgID == 1 {
			break
		}
	}
	if got := fmt.Sprint(s.bodies("msg.ack")); got != `[{"group_name":"g","mail_address":"a","msg_id":0}]` {
		t.Error(got)
	}
	if got := fmt.Sprint(s.bodies("msg.nack")); got != `[{"group_name":"g","lease_id":"L","mail_address":"a","msg_ids":[1,2]}]` {
		t.Error(got)
	}
}

func TestLoopEndsWithItsContext(t *testing.T) {
	_, client := consumeScript(`{"msg_id":0}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := client.Messages(ctx, "a", "g", &mq9.ConsumeOptions{ManualAck: true})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for message, err := range messages {
		if last = err; err != nil {
			continue
		}
		if err := message.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	isError(t, last, context.Canceled)
	if err := (&mq9.Message{MsgID: 7}).Ack(t.Context()); err == nil || !strings.Contains(err.Error(), "call the client's Ack") {
		t.Error(err)
	}
}

func TestLoopWhoseBodyPanicsGivesBack(t *testing.T) {
	s, client := consumeScript(`{"msg_id":0},{"msg_id":1}`)
	messages, err := client.Messages(t.Context(), "a", "g", nil)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		for range messages {
			panic("told to panic")
		}
	}()
	if got := s.bodies("msg.nack"); len(got) != 1 || !strings.Contains(got[0], `[0,1]`) {
		t.Errorf("%q", got)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStopDuringAWaitingFetchLeavesNoMessageLeasedToNobody(t *testing.T) {
	client, address := newBox(t)
	for range 5 {
		consumer, err := client.Consume(t.Context(), address, "g", func(context.Context, *mq9.Message) error { return nil },
			&mq9.ConsumeOptions{Lease: mq9.Ptr(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		consumer.Stop()
	}
	send(t, client, address, "late")
	result, err := client.Fetch(t.Context(), address, &mq9.FetchOptions{GroupName: "g", Lease: time.Second, MaxWait: mq9.Ptr(20 * time.Second)})
	if err != nil || len(result.Messages) != 1 {
		t.Fatalf("%v, %v", result, err)
	}
}

func TestSlowHandlerKeepsItsMessage(t *testing.T) {
	client, address := newBox(t)
	send(t, client, address, "slow")
	handled := make(chan int64, 4)
	options := &mq9.ConsumeOptions{Lease: mq9.Ptr(3 * time.Second), Deliver: mq9.DeliverEarliest}
	consumer, err := client.Consume(t.Context(), address, "g", func(context.Context, *mq9.Message) error {
		time.Sleep(5 * time.Second)
		return nil
	}, options)
	if err != nil {
		t.Fatal(err)
	}
	other, err := client.Consume(t.Context(), address, "g", func(_ context.Context, message *mq9.Message) error {
		handled <- message.MsgID
		return nil
	}, options)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is acknowledged", func() bool {
		return consumer.Stats().Acknowledged+other.Stats().Acknowledged == 1
	})
	if consumer.Stats().Delivered+other.Stats().Delivered != 1 {
		t.Error("it was delivered twice")
	}
	consumer.Stop()
	other.Stop()
}

func TestBrokerRestartDuringConsume(t *testing.T) {
	data := t.TempDir()
	broker := startBroker(t, "--store", "rocksdb", "--data", data)
	client := connect(t, broker.url)
	address, err := client.MailboxCreate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 8)
	consumer, err := client.Consume(t.Context(), address, "g", func(_ context.Context, message *mq9.Message) error {
		seen <- message.Text()
		return nil
	}, &mq9.ConsumeOptions{Deliver: mq9.DeliverEarliest, OnError: func(error, *mq9.Message) {}})
	if err != nil {
		t.Fatal(err)
	}
	send(t, client, address, "before")
	if got := received(t, seen); got != "before" {
		t.Error(got)
	}
	eventually(t, "it is acknowledged", func() bool { return consumer.Stats().Acknowledged == 1 })
	broker.kill()
	startBroker(t, "--store", "rocksdb", "--data", data, "--listen", strings.TrimPrefix(broker.url, "nats://"))
	eventually(t, "SEND succeeds", func() bool {
		_, err := client.Send(t.Context(), address, []byte("after"), &mq9.SendOptions{Retry: true})
		return err == nil
	})
	if got := received(t, seen); got != "after" {
		t.Error(got)
	}
	consumer.Stop()
}

func TestClosingWithAWaitingConsumerLeavesNothingLeased(t *testing.T) {
	client, address := newBox(t)
	other := connect(t, sharedURL(t))
	if _, err := other.Consume(t.Context(), address, "g", func(context.Context, *mq9.Message) error { return nil },
		&mq9.ConsumeOptions{Lease: mq9.Ptr(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the group is there", func() bool {
		info, err := client.MailboxInfo(t.Context(), address, nil)
		return err == nil && len(info.Groups) == 1
	})
	if err := errors.Join(other.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := other.MailboxInfo(t.Context(), address, nil)
	isError(t, err, mq9.ErrConnectionClosed)
	// The broker sees the end of one connection before the beginning of the next.
	if _, err := connect(t, sharedURL(t)).MailboxInfo(t.Context(), address, nil); err != nil {
		t.Fatal(err)
	}
	send(t, client, address, "one")
	eventually(t, "it is there for the next", func() bool {
		info, err := client.MailboxInfo(t.Context(), address, nil)
		return err == nil && info.Groups[0].Pending == 1 && info.Groups[0].Leased == 0
	})
}

func TestAgentKeepAlive(t *testing.T) {
	client := connect(t, sharedURL(t))
	name := "keep-alive-" + t.Name()
	agent, err := client.AgentKeepAlive(t.Context(), name, &mq9.AgentRegisterOptions{Card: map[string]any{"description": "Counts words."}})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.AgentReport(t.Context(), &mq9.AgentReportOptions{Name: name}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(agent.Stop(), agent.Stop()); err != nil {
		t.Fatal(err)
	}
	isError(t, client.AgentReport(t.Context(), &mq9.AgentReportOptions{Name: name}), mq9.ErrAgentNotFound)
	// The end of its context, and of its client, unregister too.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := client.AgentKeepAlive(ctx, name, nil); err != nil {
		t.Fatal(err)
	}
	cancel()
	eventually(t, "it is gone", func() bool {
		return errors.Is(client.AgentReport(t.Context(), &mq9.AgentReportOptions{Name: name}), mq9.ErrAgentNotFound)
	})
}
