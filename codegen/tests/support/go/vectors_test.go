package mq9

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"
)

// canonical is JSON with sorted keys, every payload in base64.
func canonical(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	value, err = parse(string(data))
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(plain(value))
	if err != nil {
		t.Fatal(err)
	}
	return string(again)
}

func plain(value any) any {
	switch given := value.(type) {
	case map[string]any:
		if text, ok := given["text"].(string); ok && len(given) == 1 {
			return map[string]any{"base64": base64.StdEncoding.EncodeToString([]byte(text))}
		}
		for key, item := range given {
			given[key] = plain(item)
		}
	case []any:
		for index, item := range given {
			given[index] = plain(item)
		}
	}
	return value
}

func checkVector(t *testing.T, call func(map[string]any) (*request, func(any) (any, error), error), data string) {
	t.Helper()
	value, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	vector := value.(map[string]any)
	made, decode, err := call(vector["call"].(map[string]any))
	if vector["request"] == nil {
		checkError(t, err, vector)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	want := vector["request"].(map[string]any)
	if made.subject != want["subject"] {
		t.Errorf("subject %s, not %s", made.subject, want["subject"])
	}
	if got, want := canonical(t, made.body), canonical(t, want["json"]); got != want {
		t.Errorf("body %s, not %s", got, want)
	}
	result, err := answered(vector["reply"].(map[string]any), decode)
	if vector["is_ok"] != true {
		checkError(t, err, vector)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := canonical(t, result), canonical(t, vector["ok"]); got != want {
		t.Errorf("result %s, not %s", got, want)
	}
}

func answered(reply map[string]any, decode func(any) (any, error)) (any, error) {
	if content, ok := reply["json"]; ok {
		return decode(content)
	}
	text, _ := reply["text"].(string)
	if encoded, ok := reply["base64"].(string); ok {
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, err
		}
		text = string(data)
	}
	if !utf8.ValidString(text) {
		return nil, odd("not UTF-8")
	}
	value, err := parse(text)
	if err != nil {
		return nil, err
	}
	return decode(value)
}

func checkError(t *testing.T, err error, vector map[string]any) {
	t.Helper()
	want := vector["error"].(map[string]any)
	var failure *Error
	if !errors.As(err, &failure) {
		t.Fatalf("%v is not an error of kind %v", err, want["kind"])
	}
	if string(failure.Kind) != want["kind"] || want["code"] != nil && failure.Code != want["code"] || want["field"] != nil && failure.Field != want["field"] {
		t.Errorf("%+v is not %v", failure, want)
	}
}
