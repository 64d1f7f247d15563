package mq9_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/robustmq/mq9/go"
	"github.com/robustmq/mq9/go/internal/conformance"
	"github.com/robustmq/mq9/go/internal/wire"
)

// vector is one of the specification: the exact request of a call, and what a reply becomes.
type vector struct {
	ID        string                     `json:"id"`
	Operation string                     `json:"operation"`
	Method    string                     `json:"method"`
	Call      map[string]json.RawMessage `json:"call"`
	Request   *struct {
		Subject       string            `json:"subject"`
		JSON          json.RawMessage   `json:"json"`
		Empty         bool              `json:"empty"`
		Payload       *content          `json:"payload"`
		Headers       map[string]string `json:"headers"`
		ForbidHeaders []string          `json:"forbid_headers"`
	} `json:"request"`
	Reply *struct {
		content

		Status string `json:"status"`
	} `json:"reply"`
	Attempts int             `json:"attempts"`
	IsOK     bool            `json:"is_ok"`
	OK       json.RawMessage `json:"ok"`
	Error    *struct {
		Kind  string  `json:"kind"`
		Code  *string `json:"code"`
		Field *string `json:"field"`
	} `json:"error"`
}

// content is bytes in one of three forms.
type content struct {
	Text   *string         `json:"text"`
	Base64 *string         `json:"base64"`
	JSON   json.RawMessage `json:"json"`
}

func (c content) bytes(t *testing.T) []byte {
	t.Helper()
	switch {
	case c.Text != nil:
		return []byte(*c.Text)
	case c.Base64 != nil:
		data, err := base64.StdEncoding.DecodeString(*c.Base64)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	return c.JSON
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/zz_generated_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []vector `json:"vectors"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	return file.Vectors
}

// canonical is JSON with sorted keys, every number as it is written.
func canonical(t *testing.T, data []byte) string {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	again, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(again)
}

// arguments turns a vector's call into the form of the adapter protocol.
func arguments(t *testing.T, call map[string]json.RawMessage) *conformance.Arguments {
	t.Helper()
	args := map[string]any{}
	for name, raw := range call {
		var given content
		switch {
		case bytes.HasPrefix(raw, []byte("{")) && name == "payload":
			if err := json.Unmarshal(raw, &given); err != nil {
				t.Fatal(err)
			}
			switch {
			case given.Text != nil:
				args["payload_text"] = *given.Text
			case given.Base64 != nil:
				args["payload_b64"] = *given.Base64
			default:
				args["payload_json"] = string(given.JSON)
			}
		case bytes.HasPrefix(raw, []byte("{")) && name != "headers":
			args[name+"_json"] = string(raw)
		default:
			args[name] = raw
		}
	}
	data, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	made, err := conformance.NewArguments(data)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// plain turns the adapter protocol's form of a result into that of a vector.
func plain(value any, expected any) any {
	switch given := value.(type) {
	case map[string]any:
		out := map[string]any{}
		wanted, _ := expected.(map[string]any)
		for name, item := range given {
			switch {
			case strings.HasSuffix(name, "_b64"):
				out[strings.TrimSuffix(name, "_b64")] = map[string]any{"base64": item}
			case strings.HasSuffix(name, "_json"):
				out[strings.TrimSuffix(name, "_json")] = json.RawMessage(item.(string))
			default:
				out[name] = plain(item, wanted[name])
			}
		}
		return out
	case []any:
		out := []any{}
		wanted, _ := expected.([]any)
		for index, item := range given {
			var one any
			if index < len(wanted) {
				one = wanted[index]
			}
			out = append(out, plain(item, one))
		}
		return out
	case string:
		// Ids are numbers in a vector; so are the members of an object of the user's own.
		switch expected.(type) {
		case json.Number, map[string]any:
			return json.RawMessage(given)
		}
	}
	return value
}

// inBase64 writes every payload of an expected result in base64.
func inBase64(value any) any {
	switch given := value.(type) {
	case map[string]any:
		if text, ok := given["text"].(string); ok && len(given) == 1 {
			return map[string]any{"base64": base64.StdEncoding.EncodeToString([]byte(text))}
		}
		for name, item := range given {
			given[name] = inBase64(item)
		}
	case []any:
		for index, item := range given {
			given[index] = inBase64(item)
		}
	}
	return value
}

func checkResult(t *testing.T, result any, ok json.RawMessage) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(ok))
	decoder.UseNumber()
	var expected any
	if err := decoder.Decode(&expected); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(plain(result, expected))
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(inBase64(expected))
	if err != nil {
		t.Fatal(err)
	}
	if canonical(t, got) != canonical(t, want) {
		t.Errorf("result\n%s\nnot\n%s", got, want)
	}
}

func checkRequest(t *testing.T, v vector, request *wire.Request) {
	t.Helper()
	want := v.Request
	if request.Subject != want.Subject {
		t.Errorf("subject %s, not %s", request.Subject, want.Subject)
	}
	if want.Empty && len(request.Payload) > 0 {
		t.Errorf("body %s, not empty", request.Payload)
	}
	if want.JSON != nil && canonical(t, request.Payload) != canonical(t, want.JSON) {
		t.Errorf("body\n%s\nnot\n%s", request.Payload, want.JSON)
	}
	if want.Payload != nil {
		got, wanted := string(request.Payload), string(want.Payload.bytes(t))
		if want.Payload.Text == nil && want.Payload.Base64 == nil {
			got, wanted = canonical(t, request.Payload), canonical(t, want.Payload.JSON)
		}
		if got != wanted {
			t.Errorf("payload %q, not %q", got, wanted)
		}
	}
	if want.Headers != nil && fmt.Sprint(request.Header) != fmt.Sprint(want.Headers) {
		t.Errorf("headers %v, not %v", request.Header, want.Headers)
	}
	for name := range request.Header {
		for _, pattern := range want.ForbidHeaders {
			if forbidden, _ := path.Match(strings.ToLower(pattern), strings.ToLower(name)); forbidden {
				t.Errorf("header %s is there", name)
			}
		}
	}
}

func checkError(t *testing.T, err error, v vector) {
	t.Helper()
	var failure *mq9.Error
	if !errors.As(err, &failure) {
		t.Fatalf("%v is no error of kind %s", err, v.Error.Kind)
	}
	if string(failure.Kind) != v.Error.Kind {
		t.Errorf("kind %s, not %s: %v", failure.Kind, v.Error.Kind, err)
	}
	if v.Error.Code != nil && failure.Code != *v.Error.Code {
		t.Errorf("code %q, not %q: %v", failure.Code, *v.Error.Code, err)
	}
	if v.Error.Field != nil && failure.Field != *v.Error.Field {
		t.Errorf("field %q, not %q: %v", failure.Field, *v.Error.Field, err)
	}
	if failure.Op != "" && failure.Op != v.Operation {
		t.Errorf("operation %q, not %q", failure.Op, v.Operation)
	}
}

func (v vector) answer(t *testing.T) ([]byte, error) {
	t.Helper()
	if v.Reply == nil {
		return []byte(`{"error":""}`), nil
	}
	switch v.Reply.Status {
	case "no_responders":
		return nil, &mq9.Error{Kind: mq9.KindNoResponders}
	case "timeout":
		return nil, &mq9.Error{Kind: mq9.KindTimeout}
	case "connection_closed":
		return nil, &mq9.Error{Kind: mq9.KindConnectionClosed}
	}
	return v.Reply.bytes(t), nil
}

func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.Operation+"/"+v.ID, func(t *testing.T) {
			t.Parallel()
			var requests []*wire.Request
			client := mq9.NewClientOn(wire.RequesterFunc(func(_ context.Context, r *wire.Request) ([]byte, error) {
				requests = append(requests, r)
				return v.answer(t)
			}))
			result, err := conformance.Operations[v.Method](t.Context(), client, arguments(t, v.Call), nil)
			if v.Request == nil && len(requests) > 0 {
				t.Errorf("%s was sent", requests[0].Subject)
			}
			if v.Request != nil {
				if len(requests) == 0 {
					t.Fatalf("nothing was sent: %v", err)
				}
				for _, request := range requests {
					checkRequest(t, v, request)
				}
			}
			if v.Attempts > 0 && len(requests) != v.Attempts {
				t.Errorf("%d attempts, not %d", len(requests), v.Attempts)
			}
			if !v.IsOK {
				checkError(t, err, v)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, result, v.OK)
		})
	}
}

func TestVectorsOfEveryOperationAreHere(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range readVectors(t) {
		seen[v.Method] = true
	}
	for name := range conformance.Operations {
		if !seen[name] {
			t.Errorf("%s has no vectors", name)
		}
	}
}
