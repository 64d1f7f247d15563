// Package wire is the seam between the client and NATS: what carries a request. Tests and the conformance adapter's
// broken pieces stand in for it, or in front of it.
package wire

import (
	"context"
	"time"
)

// Request is one attempt of a call.
type Request struct {
	Operation string
	Subject   string
	Header    map[string]string
	Payload   []byte
	Timeout   time.Duration
	// Abandoned is called with the reply if it comes after the caller was cancelled; it may be nil.
	Abandoned func(reply []byte)
}

// Requester carries requests. Its errors are those that the SDK's user sees.
type Requester interface {
	Request(ctx context.Context, request *Request) ([]byte, error)
}

// RequesterFunc is a function as a Requester.
type RequesterFunc func(ctx context.Context, request *Request) ([]byte, error)

// Request calls the function.
func (f RequesterFunc) Request(ctx context.Context, request *Request) ([]byte, error) {
	return f(ctx, request)
}

// Wrap, if set before clients are made, stands in front of what carries their requests.
var Wrap func(Requester) Requester
