package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/robustmq/mq9/go"
	"github.com/robustmq/mq9/go/internal/wire"
)

// mutants break one requirement each, so that the suite can show that it notices; see adapter.yaml.
var mutants = []string{
	"ids-through-doubles", "payload-as-text", "code-dropped", "kind-always-server", "no-retries", "send-twice",
	"nack-delay-fixed", "renew-never", "deliver-for-ever", "keep-alive-stays", "failures-acknowledged", "stop-does-not-wait",
	"late-fetch-lost", "fetch-timeout-too-short",
}

// mutant is a way to be wrong; the empty name is none.
type mutant struct {
	name  string
	mu    sync.Mutex
	start map[string]any // of the first FETCH
}

func newMutant(name string) *mutant {
	if name != "" && !slices.Contains(mutants, name) {
		fmt.Fprintf(os.Stderr, "there is no mutant %q\n", name)
		os.Exit(2)
	}
	return &mutant{name: name}
}

func (m *mutant) is(name string) bool { return m.name == name }

// result stands at the adapter's edge, on what goes to the runner.
func (m *mutant) result(value any) any {
	if !m.is("ids-through-doubles") {
		return value
	}
	switch given := value.(type) {
	case string:
		if number, err := strconv.ParseFloat(given, 64); err == nil && strings.Trim(given, "-0123456789") == "" {
			return strconv.FormatInt(int64(number), 10)
		}
	case map[string]any:
		for name, item := range given {
			given[name] = m.result(item)
		}
	case []any:
		for index, item := range given {
			given[index] = m.result(item)
		}
	}
	return value
}

// args stand at the adapter's edge, on what comes from the runner.
func (m *mutant) args(raw json.RawMessage) json.RawMessage {
	var args map[string]any
	if !m.is("payload-as-text") || json.Unmarshal(raw, &args) != nil {
		return raw
	}
	encoded, ok := args["payload_b64"].(string)
	if !ok {
		return raw
	}
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return raw
	}
	delete(args, "payload_b64")
	args["payload_text"] = strings.ToValidUTF8(string(data), "\uFFFD")
	if changed, err := mq9.JSON(args); err == nil {
		return changed
	}
	return raw
}

func (m *mutant) errorFields(fields object) object {
	switch {
	case m.is("code-dropped"):
		delete(fields, "code")
	case m.is("kind-always-server"):
		fields["kind"] = "server"
	}
	return fields
}

func (m *mutant) outcome(how string) string {
	if m.is("failures-acknowledged") && how == "fail" {
		return "ok"
	}
	return how
}

func (m *mutant) stop(consumer *mq9.Consumer) {
	if m.is("stop-does-not-wait") {
		go consumer.Stop()
		return
	}
	consumer.Stop()
}

// wrap stands in front of what carries the SDK's requests.
func (m *mutant) wrap(next wire.Requester) wire.Requester {
	if m.name == "" {
		return next
	}
	failed := map[context.Context]error{}
	return wire.RequesterFunc(func(ctx context.Context, request *wire.Request) ([]byte, error) {
		changed := *request
		switch {
		case m.is("no-retries"):
			m.mu.Lock()
			err := failed[ctx]
			m.mu.Unlock()
			if err != nil {
				return nil, err
			}
			data, err := next.Request(ctx, request)
			m.mu.Lock()
			failed[ctx] = err
			m.mu.Unlock()
			return data, err
		case m.is("send-twice") && request.Operation == "msg.send" && request.Header["mq9-dedup-id"] == "":
			data, err := next.Request(ctx, request)
			if errors.Is(err, mq9.ErrTimeout) || errors.Is(err, mq9.ErrNoResponders) {
				return next.Request(ctx, request)
			}
			return data, err
		case m.is("nack-delay-fixed") && request.Operation == "msg.nack":
			changed.Payload = edited(request.Payload, func(body map[string]any) {
				if _, given := body["delay_ms"]; given {
					body["delay_ms"] = 1000
				}
			})
		case m.is("renew-never") && request.Operation == "msg.renew":
			return []byte(`{"error":"","renewed":[]}`), nil
		case m.is("deliver-for-ever") && request.Operation == "msg.fetch":
			changed.Payload = edited(request.Payload, m.keepStart)
		case m.is("keep-alive-stays") && request.Operation == "agent.unregister":
			return []byte(`{"error":""}`), nil
		case m.is("late-fetch-lost"):
			changed.Abandoned = nil
		case m.is("fetch-timeout-too-short") && request.Operation == "msg.fetch":
			changed.Timeout = min(request.Timeout, 600*time.Millisecond)
		}
		return next.Request(ctx, &changed)
	})
}

func (m *mutant) keepStart(body map[string]any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.start == nil {
		m.start = map[string]any{}
		for _, name := range []string{"deliver", "force_deliver"} {
			if value, given := body[name]; given {
				m.start[name] = value
			}
		}
	}
	for name, value := range m.start {
		body[name] = value
	}
}

// edited changes a JSON body without losing digits.
func edited(payload []byte, change func(map[string]any)) []byte {
	decoder := json.NewDecoder(strings.NewReader(string(payload)))
	decoder.UseNumber()
	var body map[string]any
	if decoder.Decode(&body) != nil {
		return payload
	}
	change(body)
	if data, err := mq9.JSON(body); err == nil {
		return data
	}
	return payload
}
