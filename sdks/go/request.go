package mq9

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// operation is what the runtime has to know of an operation.
type operation struct {
	name      string
	retriesOn []string      // kinds of failure, and codes, after which it may be tried again
	giveUp    time.Duration // when retries end, counted from the first attempt; 0: only the number of attempts counts
}

// leased names whose messages a reply may bring under a lease.
type leased struct{ mailAddress, groupName string }

// request is a call on its way out. Its methods check arguments; the first mistake counts, and nothing is sent then.
type request struct {
	operation    *operation
	subject      string
	payload      []byte
	hasBody      bool
	body         map[string]any
	spreadFields map[string]json.RawMessage
	spreadName   string
	sentHeaders  map[string]string
	attempt      time.Duration // how long each attempt may take
	wait         time.Duration // what the broker may take on top
	repeatable   bool
	lease        *leased
	err          error
}

func (c *Client) newRequest(operation *operation, timeout time.Duration) *request {
	r := &request{operation: operation, repeatable: true}
	r.attempt = r.timeout(timeout)
	return r
}

// textRule is what a text has to satisfy; 0 is no bound.
type textRule struct {
	code                                     string
	minLength, maxLength, minBytes, maxBytes int
	pattern                                  *regexp.Regexp
	chars                                    string // the pattern in words
	forbid                                   []string
	text                                     string // no_control, printable_ascii, or any
}

var (
	headerName     = regexp.MustCompile(`^[A-Za-z0-9\-_.]+$`)
	printableASCII = regexp.MustCompile(`^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$`)
	headerText     = textRule{minBytes: 1, text: "printable_ascii"}
)

const shownCharacters = 60

func shown(value string) string {
	text := fmt.Sprintf("%q", value)
	if len(text) > shownCharacters {
		return text[:shownCharacters-3] + "..."
	}
	return text
}

func (rule textRule) check(value string) string {
	length := utf8.RuneCountInString(value)
	switch {
	case !utf8.ValidString(value):
		return "is not UTF-8"
	case value == "" && (rule.minLength > 0 || rule.minBytes > 0):
		return "must not be empty"
	case rule.maxLength > 0 && length > rule.maxLength:
		return fmt.Sprintf("has %d characters, at most %d are allowed", length, rule.maxLength)
	case rule.maxBytes > 0 && len(value) > rule.maxBytes:
		return fmt.Sprintf("has %d bytes in UTF-8, at most %d are allowed", len(value), rule.maxBytes)
	case length < rule.minLength || len(value) < rule.minBytes:
		return "is too short"
	case rule.pattern != nil && !rule.pattern.MatchString(value):
		return "must be " + rule.chars
	}
	for _, part := range rule.forbid {
		if strings.Contains(value, part) {
			return fmt.Sprintf("must not contain %q", part)
		}
	}
	if rule.text == "no_control" && strings.ContainsFunc(value, isControl) {
		return "must not contain control characters"
	}
	if rule.text == "printable_ascii" && !printableASCII.MatchString(value) {
		return "must be printable ASCII without blanks at its ends"
	}
	return ""
}

func isControl(char rune) bool { return char < 0x20 || char >= 0x7f && char < 0xa0 }

func (r *request) refuse(field, why string) {
	if r.err == nil {
		failure := invalid(field, why)
		if r.operation != nil {
			failure.Op = r.operation.name
		}
		r.err = failure
	}
}

func (r *request) refuseWithCode(field, why, code string) {
	if r.err != nil {
		return
	}
	r.refuse(field, why)
	if failure, ok := asError(r.err); ok && code != "" {
		failure.Code = code
	}
}

func (r *request) text(field, value string, rule textRule) string {
	if why := rule.check(value); why != "" {
		if value != "" {
			why += ": " + shown(value)
		}
		r.refuseWithCode(field, why, rule.code)
	}
	return value
}

func (r *request) texts(field string, values []string, rule textRule, low, high int) []string {
	for _, value := range values {
		r.text(field, value, rule)
	}
	r.count(field, len(values), low, high)
	return values
}

func (r *request) integers(field string, values []int64, minimum, maximum int64, low, high int) []int64 {
	for _, value := range values {
		r.integer(field, value, minimum, maximum)
	}
	r.count(field, len(values), low, high)
	return values
}

func (r *request) count(field string, count, low, high int) {
	switch {
	case count < low && low == 1:
		r.refuse(field, "must not be empty")
	case count < low:
		r.refuse(field, fmt.Sprintf("must have at least %d items, not %d", low, count))
	case high >= 0 && count > high:
		r.refuse(field, fmt.Sprintf("must have at most %d items, not %d", high, count))
	}
}

func (r *request) integer(field string, value, low, high int64) int64 {
	if value < low || value > high {
		r.refuse(field, fmt.Sprintf("must be %d to %d, not %d", low, high, value))
	}
	return value
}

//lint:ignore U1000 for numbers with a fraction, as soon as the specification has one
func (r *request) number(field string, value float64) float64 {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		r.refuse(field, "must be a finite number")
	}
	return value
}

// duration gives a length of time in whole units; what is no whole number of them is refused, never rounded.
func (r *request) duration(field string, value, unit time.Duration, low, high int64) int64 {
	if value%unit != 0 {
		r.refuse(field, fmt.Sprintf("must be a whole number of %s, not %s", unitName(unit), value))
	}
	return r.integer(field, int64(value/unit), low, high)
}

func unitName(unit time.Duration) string {
	if unit == time.Second {
		return "seconds"
	}
	return "milliseconds"
}

func (r *request) timeout(value time.Duration) time.Duration {
	if value < 0 {
		r.refuse("timeout", fmt.Sprintf("must not be negative, and is %s", value))
	}
	return value
}

// put puts a value into the body, at a path of keys.
func (r *request) put(value any, path ...string) {
	if r.body == nil {
		r.body = map[string]any{}
	}
	into := r.body
	for _, key := range path[:len(path)-1] {
		inner, ok := into[key].(map[string]any)
		if !ok {
			inner = map[string]any{}
			into[key] = inner
		}
		into = inner
	}
	into[path[len(path)-1]] = value
}

// object gives the members of a JSON object of the user's own.
func (r *request) object(field string, value any) map[string]json.RawMessage {
	data, err := encodeJSON(value)
	if err != nil {
		r.refuse(field, "is no JSON value: "+err.Error())
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		r.refuse(field, fmt.Sprintf("must become a JSON object, and %T does not", value))
	}
	return members
}

// spread puts the members of an object into the body itself; what is put there by other means wins.
func (r *request) spread(field string, value any) {
	r.spreadName, r.spreadFields = field, r.object(field, value)
}

func (r *request) encodedBody() []byte {
	if !r.hasBody {
		return r.payload
	}
	body := map[string]any{}
	for name, value := range r.spreadFields {
		body[name] = value
	}
	for name, value := range r.body {
		body[name] = value
	}
	data, err := encodeJSON(body)
	if err != nil {
		r.refuse(r.spreadName, "is no JSON value: "+err.Error())
	}
	return data
}

func (r *request) header(field, name, value string) {
	r.text(field, value, headerText)
	if r.sentHeaders == nil {
		r.sentHeaders = map[string]string{}
	}
	r.sentHeaders[name] = value
}

func (r *request) headers(field, name string, values []string) {
	for _, value := range values {
		r.text(field, value, headerText)
	}
	r.header(field, name, strings.Join(values, ","))
}

func (r *request) userHeaders(field string, headers map[string]string) {
	for name, value := range headers {
		if !headerName.MatchString(name) {
			r.refuse(field, "a name must be letters, digits and -_. only: "+shown(name))
		}
		if slices.Contains(reservedHeaders, strings.ToLower(name)) {
			r.refuse(field, name+" has an option of its own")
		}
		r.header(field, name, value)
	}
}

// encodeJSON is JSON without the escapes that only web pages need.
func encodeJSON(value any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

// JSON is a payload for [Client.Send] made of a JSON value.
func JSON(value any) ([]byte, error) {
	data, err := encodeJSON(value)
	if err != nil {
		return nil, &Error{
			Kind: KindInvalidArgument, Code: "invalid_argument", Field: "payload",
			Message: "payload: is no JSON value: " + err.Error(), cause: err,
		}
	}
	return data, nil
}

// Ptr gives a pointer to a value, for options whose absence means something else than 0.
func Ptr[T any](value T) *T { return &value }

func valueOf[T any](options *T) T {
	if options == nil {
		var zero T
		return zero
	}
	return *options
}

// randomHex gives so many random hexadecimal digits.
func randomHex(digits int) string {
	data := make([]byte, (digits+1)/2)
	_, _ = rand.Read(data) // never fails; see its documentation
	return hex.EncodeToString(data)[:digits]
}
