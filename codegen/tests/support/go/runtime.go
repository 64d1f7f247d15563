// Package mq9 is what the generated code of the test target stands on, written by hand.
package mq9

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is a failure of a call.
type Error struct {
	Kind  ErrorKind
	Code  string
	Field string
	Text  string
}

func (e *Error) Error() string { return "mq9: " + e.Text }

func invalid(field, why, code string) error {
	return &Error{Kind: "invalid_argument", Code: code, Field: field, Text: field + ": " + why}
}

func odd(why string) error { return &Error{Kind: "protocol", Text: why} }

type request struct {
	subject string
	body    map[string]any
}

type textRule struct {
	minLength, maxLength, minBytes, maxBytes int
	pattern                                  string
	forbid                                   []string
	text, code                               string
}

func checkText(name, value string, optional bool, rule textRule) error {
	if optional && value == "" {
		return nil
	}
	length, bytes := utf8.RuneCountInString(value), len(value)
	wrong := length < rule.minLength || rule.maxLength >= 0 && length > rule.maxLength
	wrong = wrong || bytes < rule.minBytes || rule.maxBytes >= 0 && bytes > rule.maxBytes
	wrong = wrong || rule.pattern != "" && !regexp.MustCompile(rule.pattern).MatchString(value)
	for _, text := range rule.forbid {
		wrong = wrong || strings.Contains(value, text)
	}
	for _, char := range value {
		wrong = wrong || rule.text == "no_control" && (char < 0x20 || char >= 0x7f && char < 0xa0)
		wrong = wrong || rule.text == "printable_ascii" && (char < 0x20 || char > 0x7e)
	}
	if wrong {
		return invalid(name, "is not well formed", rule.code)
	}
	return nil
}

func checkInteger(name string, value *int64, low, high int64) error {
	if value != nil && (*value < low || *value > high) {
		return invalid(name, fmt.Sprintf("must be %d to %d", low, high), "invalid_argument")
	}
	return nil
}

func checkList(name string, length int, optional bool, low, high int) error {
	if length == 0 && optional {
		return nil
	}
	if length < low || high >= 0 && length > high {
		return invalid(name, "has too few or too many items", "invalid_argument")
	}
	return nil
}

func isGiven(value any) bool {
	v := reflect.ValueOf(value)
	if v.Kind() == reflect.Pointer {
		return !v.IsNil()
	}
	return v.Len() > 0
}

func isSent(value any, zeroIsDefault bool) bool {
	v := reflect.ValueOf(value)
	if v.Kind() == reflect.Pointer {
		return !v.IsNil() && !(zeroIsDefault && v.Elem().IsZero())
	}
	return v.Len() > 0
}

func text(value any) string { return fmt.Sprint(value) }

func join(parts []string) string { return strings.Join(parts, ".") }

func putAt(body map[string]any, value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		inner, ok := body[key].(map[string]any)
		if !ok {
			inner = map[string]any{}
			body[key] = inner
		}
		body = inner
	}
	body[path[len(path)-1]] = value
}

func put(out map[string]any, name string, value any) {
	v := reflect.ValueOf(value)
	if (v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.IsNil() {
		return
	}
	switch given := value.(type) {
	case interface{ value() any }:
		out[name] = given.value()
		return
	case []byte:
		out[name] = map[string]any{"base64": base64.StdEncoding.EncodeToString(given)}
		return
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Pointer {
		items := []any{}
		for index := range v.Len() {
			items = append(items, v.Index(index).Interface().(interface{ value() any }).value())
		}
		out[name] = items
		return
	}
	out[name] = value
}

func parse(data string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil || decoder.More() {
		return nil, odd("not JSON")
	}
	return value, nil
}

func members(value any) (map[string]any, error) {
	if fields, ok := value.(map[string]any); ok {
		return fields, nil
	}
	return nil, odd("not an object")
}

func reply(value any) (map[string]any, error) {
	fields, err := members(value)
	if err != nil {
		return nil, err
	}
	text, ok := fields["error"].(string)
	if !ok {
		return nil, odd("no error field")
	}
	if text != "" {
		code, _ := fields["code"].(string)
		for _, known := range classified {
			long := len(text) >= len(known.prefix)+len(known.suffix)
			if code == "" && long && strings.HasPrefix(text, known.prefix) && strings.HasSuffix(text, known.suffix) {
				code = known.code
			}
		}
		return nil, &Error{Kind: "server", Code: code, Text: text}
	}
	return fields, nil
}

func asText(value any) (string, error) {
	if text, ok := value.(string); ok {
		return text, nil
	}
	return "", odd("not a text")
}

func asEnum[T ~string](value any) (T, error) {
	text, err := asText(value)
	return T(text), err
}

func asInteger(value any) (int64, error) {
	if number, ok := value.(json.Number); ok && !strings.ContainsAny(number.String(), ".eE") {
		return strconv.ParseInt(number.String(), 10, 64)
	}
	return 0, odd("not an integer")
}

func asNumber(value any) (float64, error) {
	if number, ok := value.(json.Number); ok {
		return number.Float64()
	}
	return 0, odd("not a number")
}

func asBoolean(value any) (bool, error) {
	if boolean, ok := value.(bool); ok {
		return boolean, nil
	}
	return false, odd("not true or false")
}

func asObject(value any) (map[string]any, error) { return members(value) }

func asHeaderMap(value any) (map[string][]string, error) {
	fields, err := members(value)
	if err != nil {
		return nil, err
	}
	result := map[string][]string{}
	for name, values := range fields {
		if result[name], err = listOf(asText, false)(values); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func listOf[T any](decode func(any) (T, error), drop bool) func(any) ([]T, error) {
	return func(value any) ([]T, error) {
		items, ok := value.([]any)
		if !ok {
			return nil, odd("not a list")
		}
		result := []T{}
		for _, item := range items {
			decoded, err := decode(item)
			if err == nil {
				result = append(result, decoded)
			} else if !drop {
				return nil, err
			}
		}
		return result, nil
	}
}

func required[T any](fields map[string]any, name string, decode func(any) (T, error)) (T, error) {
	result, err := decode(fields[name])
	if err != nil {
		err = odd(name + " is missing or " + err.Error())
	}
	return result, err
}

func optional[T any](fields map[string]any, name string, decode func(any) (T, error), lenient bool) (*T, error) {
	if fields[name] == nil {
		return nil, nil
	}
	result, err := decode(fields[name])
	if err != nil {
		if lenient {
			return nil, nil
		}
		return nil, err
	}
	return &result, nil
}

func otherwise[T any](fields map[string]any, name string, decode func(any) (T, error), other T) T {
	if result, err := decode(fields[name]); err == nil {
		return result
	}
	return other
}

func payload(fields map[string]any, name, encoding string) []byte {
	text, _ := fields[name].(string)
	if fields[encoding] == "base64" && !strings.ContainsAny(text, "\r\n") {
		if data, err := base64.StdEncoding.Strict().DecodeString(text); err == nil {
			return data
		}
	}
	return []byte(text)
}
