// Package conformance calls the SDK by the specification's names, with arguments and results in the form of the
// conformance suite's adapter protocol. The adapter and the SDK's own wire vectors use it.
package conformance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robustmq/mq9/go"
)

// Call calls one method of the SDK.
type Call func(ctx context.Context, client *mq9.Client, a *Arguments, decode Decode) (any, error)

type operation struct {
	name string
	call Call
}

// Operations call the methods of the SDK by the specification's names.
var Operations = func() map[string]Call {
	byName := make(map[string]Call, len(calls))
	for _, operation := range calls {
		byName[operation.name] = operation.call
	}
	return byName
}()

// NotUnderstood is an error of a request that can't be carried out as it stands.
type NotUnderstood struct{ Why string }

func (e *NotUnderstood) Error() string { return e.Why }

// Arguments are those of a request, by the specification's names. What is not there is not set.
type Arguments struct {
	given map[string]json.RawMessage
	err   error
}

// NewArguments takes a JSON object.
func NewArguments(raw json.RawMessage) (*Arguments, error) {
	a := &Arguments{given: map[string]json.RawMessage{}}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.given); err != nil {
			return nil, &NotUnderstood{err.Error()}
		}
	}
	return a, nil
}

// Take gives an argument as it stands, and takes it away.
func (a *Arguments) Take(name string) (json.RawMessage, bool) {
	raw, ok := a.given[name]
	delete(a.given, name)
	return raw, ok
}

// Finish tells of the first argument that could not be used, or that is not there.
func (a *Arguments) Finish() error {
	if a.err == nil {
		for name := range a.given {
			return &NotUnderstood{fmt.Sprintf("there is no parameter %q", name)}
		}
	}
	return a.err
}

func (a *Arguments) fail(name string, err error) {
	if a.err == nil {
		a.err = &NotUnderstood{fmt.Sprintf("%s: %s", name, err)}
	}
}

// Set puts an argument, if it is there, where target points to; lengths of time are numbers of a unit.
func (a *Arguments) Set(name string, target any, unit time.Duration) {
	value := reflect.ValueOf(target).Elem()
	for _, form := range []string{"_text", "_b64", "_json"} {
		if raw, ok := a.given[name+form]; ok && (value.Type() == reflect.TypeFor[[]byte]() || value.Kind() == reflect.Interface) {
			delete(a.given, name+form)
			a.setForm(name, value, form, raw)
			return
		}
	}
	raw, ok := a.Take(name)
	if !ok {
		return
	}
	if value.Kind() == reflect.Pointer {
		value.Set(reflect.New(value.Type().Elem()))
		value = value.Elem()
	}
	if err := set(value, raw, unit); err != nil {
		a.fail(name, err)
	}
}

// SetOpposite puts the opposite of a truth value.
func (a *Arguments) SetOpposite(name string, target *bool) {
	*target = true
	_, given := a.given[name]
	a.Set(name, target, 0)
	*target = given && !*target
}

func (a *Arguments) setForm(name string, value reflect.Value, form string, raw json.RawMessage) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		a.fail(name+form, err)
		return
	}
	data := []byte(text)
	var err error
	switch form {
	case "_b64":
		data, err = base64.StdEncoding.DecodeString(text)
	case "_json":
		// As it stands: order and digits of somebody's JSON are kept.
		if value.Kind() == reflect.Interface {
			value.Set(reflect.ValueOf(json.RawMessage(data)))
			return
		}
		data, err = mq9.JSON(json.RawMessage(data))
	}
	if err != nil {
		a.fail(name+form, err)
		return
	}
	value.SetBytes(data)
}

func set(value reflect.Value, raw json.RawMessage, unit time.Duration) error {
	switch {
	case value.Type() == reflect.TypeFor[time.Duration]():
		number, err := integer(raw)
		if limit := math.MaxInt64 / int64(unit); number > limit {
			number = limit
		} else if number < -limit {
			number = -limit
		}
		value.SetInt(number * int64(unit))
		return err
	case value.CanInt():
		number, err := integer(raw)
		value.SetInt(number)
		return err
	case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Int64:
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			return err
		}
		for _, item := range items {
			number, err := integer(item)
			if err != nil {
				return err
			}
			value.Set(reflect.Append(value, reflect.ValueOf(number)))
		}
		return nil
	}
	return json.Unmarshal(raw, value.Addr().Interface())
}

// integer takes a number, or an id as a decimal string. What no variable of the SDK's types could hold becomes the
// nearest that one can: nobody can give more to a Go method.
func integer(raw json.RawMessage) (int64, error) {
	value, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		err = nil
	}
	return value, err
}

// Decode names the helpers of a message whose results are wanted too: text, json.
type Decode []string

func (d Decode) add(out map[string]any, message *mq9.Message) {
	if slices.Contains(d, "text") {
		out["decoded_text"] = message.Text()
	}
	if slices.Contains(d, "json") {
		var value any
		err := message.JSON(&value)
		if err != nil {
			out["decoded_json_error"] = err.Error()
			return
		}
		if data, err := mq9.JSON(value); err == nil {
			out["decoded_json"] = string(data)
		}
	}
}

// EncodeMessage gives a message in the adapter protocol's form.
func EncodeMessage(message *mq9.Message) map[string]any { return encodeMessage(message, nil) }

func id(value int64) string { return strconv.FormatInt(value, 10) }

func list[T any](items []T, encode func(T) any) []any {
	result := make([]any, len(items))
	for index, item := range items {
		result[index] = encode(item)
	}
	return result
}
