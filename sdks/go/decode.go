package mq9

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Replies on their way in: strict where the protocol is, lenient where one odd value must not spoil all.

type logger = *slog.Logger

const (
	strict  = false // a value of another type fails
	lenient = true  // a value of another type counts as absent
)

// decodeFunc decodes one value. Its errors begin with the path inside that value, or say what is wrong with it.
type decodeFunc[T any] func(parent *decoder, raw json.RawMessage) (T, error)

// decoder reads the members of an object; the first failure counts.
type decoder struct {
	fields map[string]json.RawMessage
	log    logger
	err    error
}

func newDecoder(parent *decoder, raw json.RawMessage) *decoder {
	d := &decoder{log: parent.log}
	d.fields, d.err = asMembers(raw)
	return d
}

// failure is the error of a whole reply.
func (d *decoder) failure(operation *operation) error {
	return &Error{Kind: KindProtocol, Op: operation.name, Message: "reply" + joined(d.err)}
}

func joined(err error) string {
	why := err.Error()
	if strings.HasPrefix(why, ".") || strings.HasPrefix(why, "[") {
		return why
	}
	return ": " + why
}

func isAbsent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func required[T any](d *decoder, name string, decode decodeFunc[T]) T {
	var zero T
	if d.err != nil {
		return zero
	}
	if isAbsent(d.fields[name]) {
		d.err = fmt.Errorf(".%s: is missing", name)
		return zero
	}
	value, err := decode(d, d.fields[name])
	if err != nil {
		d.err = fmt.Errorf(".%s%s", name, joined(err))
	}
	return value
}

func optional[T any](d *decoder, name string, isLenient bool, decode decodeFunc[T], absent T) T {
	if value := pointer(d, name, isLenient, decode); value != nil {
		return *value
	}
	return absent
}

func pointer[T any](d *decoder, name string, isLenient bool, decode decodeFunc[T]) *T {
	if d.err != nil || isAbsent(d.fields[name]) {
		return nil
	}
	value, err := decode(d, d.fields[name])
	if err != nil {
		if !isLenient {
			d.err = fmt.Errorf(".%s%s", name, joined(err))
		}
		return nil
	}
	return &value
}

// payload gives a message's payload: decoded base64, or the bytes of a text that is none; empty if it is missing.
func (d *decoder) payload(name, encodingName string) []byte {
	text, err := asText(d, d.fields[name])
	if err != nil {
		return []byte{}
	}
	encoding, _ := asText(d, d.fields[encodingName])
	if encoding == string(EncodingBase64) {
		if !strings.ContainsAny(text, "\r\n") {
			if data, err := base64.StdEncoding.Strict().DecodeString(text); err == nil {
				return data
			}
		}
		d.log.Warn("mq9: a message says base64, but its payload is none: taken as text")
	}
	return []byte(text)
}

func asMembers(raw json.RawMessage) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if !startsWith(raw, '{') || json.Unmarshal(raw, &members) != nil {
		return nil, errors.New("must be an object")
	}
	return members, nil
}

func startsWith(raw json.RawMessage, char byte) bool { return len(raw) > 0 && raw[0] == char }

func asObject(_ *decoder, raw json.RawMessage) (json.RawMessage, error) {
	if !startsWith(raw, '{') {
		return nil, errors.New("must be an object")
	}
	return bytes.Clone(raw), nil
}

func asText(_ *decoder, raw json.RawMessage) (string, error) {
	var text string
	if !startsWith(raw, '"') || json.Unmarshal(raw, &text) != nil {
		return "", errors.New("must be text")
	}
	return text, nil
}

func asEnum[T ~string](d *decoder, raw json.RawMessage) (T, error) {
	text, err := asText(d, raw)
	return T(text), err
}

// asInteger takes a number without fraction and exponent that fits 63 bits and a sign; no digit is lost.
func asInteger(_ *decoder, raw json.RawMessage) (int64, error) {
	value, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, errors.New("must be a whole number")
	}
	return value, nil
}

//lint:ignore U1000 for fields in seconds, if the specification has one
func asSeconds(d *decoder, raw json.RawMessage) (time.Duration, error) {
	return asUnits(d, raw, time.Second)
}

//lint:ignore U1000 for fields in milliseconds, as soon as the specification has one
func asMilliseconds(d *decoder, raw json.RawMessage) (time.Duration, error) {
	return asUnits(d, raw, time.Millisecond)
}

func asUnits(d *decoder, raw json.RawMessage, unit time.Duration) (time.Duration, error) {
	value, err := asInteger(d, raw)
	if err == nil && (value > math.MaxInt64/int64(unit) || value < math.MinInt64/int64(unit)) {
		err = errors.New("must be a length of time below 292 years")
	}
	return time.Duration(value) * unit, err
}

func asNumber(_ *decoder, raw json.RawMessage) (float64, error) {
	if startsWith(raw, '"') {
		return 0, errors.New("must be a number")
	}
	value, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return 0, errors.New("must be a number")
	}
	return value, nil
}

func asBoolean(_ *decoder, raw json.RawMessage) (bool, error) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("must be true or false")
}

func asHeaderMap(d *decoder, raw json.RawMessage) (map[string][]string, error) {
	members, err := asMembers(raw)
	if err != nil {
		return nil, err
	}
	result := make(map[string][]string, len(members))
	for name, values := range members {
		if result[name], err = listOf(asText)(d, values); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func listOf[T any](decode decodeFunc[T]) decodeFunc[[]T] { return list(decode, false) }

// listDropping leaves odd items out, and logs them, instead of failing the whole.
func listDropping[T any](decode decodeFunc[T]) decodeFunc[[]T] { return list(decode, true) }

func list[T any](decode decodeFunc[T], drop bool) decodeFunc[[]T] {
	return func(parent *decoder, raw json.RawMessage) ([]T, error) {
		var items []json.RawMessage
		if !startsWith(raw, '[') || json.Unmarshal(raw, &items) != nil {
			return nil, errors.New("must be a list")
		}
		result := make([]T, 0, len(items))
		for index, item := range items {
			value, err := decode(parent, item)
			switch {
			case err == nil:
				result = append(result, value)
			case drop:
				parent.log.Warn("mq9: left an odd item out of a reply", "index", index, "why", err)
			default:
				return nil, fmt.Errorf("[%d]%s", index, joined(err))
			}
		}
		return result, nil
	}
}

// decodeReply parses a reply; one that reports a failure becomes that error.
func decodeReply(op string, data []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if !utf8.Valid(data) {
		return nil, &Error{Kind: KindProtocol, Op: op, Message: "the reply is not UTF-8"}
	}
	if err := json.Unmarshal(data, &fields); err != nil && fields == nil && !json.Valid(data) {
		return nil, &Error{Kind: KindProtocol, Op: op, Message: "the reply is no JSON: " + err.Error(), cause: err}
	}
	text, err := asText(nil, fields["error"])
	if err != nil {
		return nil, &Error{Kind: KindProtocol, Op: op, Message: "the reply is no JSON object with a text in error"}
	}
	if text != "" {
		code, _ := asText(nil, fields["code"])
		return nil, serverError(op, text, code)
	}
	return fields, nil
}
