package mq9

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// delivery says through whom, for which group and under which lease a message was delivered.
type delivery struct {
	client                 *Client
	mailAddress, groupName string
	leaseID                string
	lease, timeout         time.Duration
	settled                atomic.Bool
}

// Text gives the payload as text.
func (m *Message) Text() string { return string(m.Payload) }

// JSON decodes the payload, a JSON value, into target, as [json.Unmarshal] does; numbers that go into an interface
// become [json.Number] and keep all their digits.
func (m *Message) JSON(target any) error {
	decoder := json.NewDecoder(bytes.NewReader(m.Payload))
	decoder.UseNumber()
	if err := decoder.Decode(target); err != nil {
		return &Error{Kind: KindProtocol, Message: "the payload is no JSON value of this type: " + err.Error(), cause: err}
	}
	if _, err := decoder.Token(); err != io.EOF {
		return &Error{Kind: KindProtocol, Message: "the payload has more than one JSON value"}
	}
	return nil
}

// Ack confirms this message for its consumer group: it never comes again.
//
// Only for messages that [Client.Consume] or [Client.Messages] delivered; others are confirmed by [Client.Ack].
func (m *Message) Ack(ctx context.Context) error {
	d, err := m.deliveryFor("Ack")
	if err != nil {
		return err
	}
	err = d.client.Ack(ctx, d.mailAddress, d.groupName, &AckOptions{MsgID: &m.MsgID, Timeout: d.timeout})
	if err == nil {
		d.settled.Store(true)
	}
	return err
}

// Nack gives this message back to its consumer group, unless another consumer holds it by now. It comes again after
// the delay, which is 0 to 24 hours in whole milliseconds.
func (m *Message) Nack(ctx context.Context, delay time.Duration) error {
	d, err := m.deliveryFor("Nack")
	if err != nil {
		return err
	}
	err = d.client.Nack(ctx, d.mailAddress, d.groupName, []int64{m.MsgID},
		&NackOptions{LeaseID: d.leaseID, Delay: delay, Timeout: d.timeout})
	if err == nil {
		d.settled.Store(true)
	}
	return err
}

// Renew keeps this message hidden from the rest of its group for so long from now; 0 is the lease that it came under.
// It tells whether the message is still ours; if not, its lease was over before. A consumer renews by itself.
func (m *Message) Renew(ctx context.Context, lease time.Duration) (bool, error) {
	d, err := m.deliveryFor("Renew")
	if err != nil {
		return false, err
	}
	if lease == 0 {
		lease = d.lease
	}
	renewed, err := d.client.Renew(ctx, d.mailAddress, d.groupName, []int64{m.MsgID}, lease,
		&RenewOptions{LeaseID: d.leaseID, Timeout: d.timeout})
	return slices.Contains(renewed, m.MsgID), err
}

func (m *Message) deliveryFor(method string) (*delivery, error) {
	if m.delivery == nil {
		return nil, invalid("message", "message "+strconv.FormatInt(m.MsgID, 10)+
			" did not come from a consumer: call the client's "+method+" instead")
	}
	return m.delivery, nil
}

// Names of headers match in any case; the first value counts.
func (m *Message) findHeader(name string) (string, bool) {
	for _, spelled := range slices.Sorted(maps.Keys(m.Headers)) {
		if values := m.Headers[spelled]; len(values) > 0 && strings.EqualFold(spelled, name) {
			return values[0], true
		}
	}
	return "", false
}

func (m *Message) textHeader(name string) string {
	text, _ := m.findHeader(name)
	return text
}

func (m *Message) integerHeader(name string) (int64, bool) {
	text, _ := m.findHeader(name)
	if strings.ContainsFunc(text, func(char rune) bool { return char < '0' || char > '9' }) {
		return 0, false
	}
	value, err := strconv.ParseInt(text, 10, 64)
	return value, err == nil
}

//lint:ignore U1000 for headers of a list of texts, as soon as the specification has one that is handed back
func (m *Message) commaSeparatedHeader(name string) []string {
	text, found := m.findHeader(name)
	if !found {
		return nil
	}
	items := []string{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
