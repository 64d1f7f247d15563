package mq9

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// Error is a failure of a call. Every error that this package returns is one, or wraps one.
//
// Compare with [errors.Is]: errors.Is(err, mq9.ErrMailboxNotFound) for a code of the broker, errors.Is(err,
// mq9.ErrTimeout) for a kind of failure. A call that was cancelled also is the context's own error.
type Error struct {
	// Kind says how the call failed.
	Kind Kind
	// Code is the broker's code, also one that this version does not know; empty if there is none.
	Code string
	// Field names the argument that was wrong; empty if none was.
	Field string
	// Op is the operation that failed, such as msg.send; empty if it was no operation.
	Op string
	// Message says what happened, in words.
	Message string

	cause error
}

// Error says what happened.
func (e *Error) Error() string {
	if e.Op != "" {
		return "mq9: " + e.Op + ": " + e.Message
	}
	return "mq9: " + e.Message
}

// Unwrap gives the error behind it, such as that of the context.
func (e *Error) Unwrap() error { return e.cause }

// Is tells whether the error is of the kind, or has the code, of a sentinel such as [ErrTimeout].
func (e *Error) Is(target error) bool {
	sentinel, ok := target.(*Error)
	if !ok {
		return false
	}
	return sentinel.Kind != "" && e.Kind == sentinel.Kind || sentinel.Code != "" && e.Code == sentinel.Code
}

// Timeout tells whether the call failed for want of time, as net.Error does.
func (e *Error) Timeout() bool { return e.Kind == KindTimeout }

func invalid(field, why string) *Error {
	return &Error{Kind: KindInvalidArgument, Code: "invalid_argument", Field: field, Message: field + ": " + why}
}

// ended is the error of a call whose context has ended.
func ended(op string, cause error) *Error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return &Error{Kind: KindTimeout, Op: op, Message: "the context's deadline has passed", cause: cause}
	}
	return &Error{Kind: KindCancelled, Op: op, Message: "cancelled", cause: cause}
}

func closed(op, why string, cause error) *Error {
	return &Error{Kind: KindConnectionClosed, Op: op, Message: why, cause: cause}
}

// serverError is the error of a failed reply; without a code its text decides.
func serverError(op, text, code string) *Error {
	if code == "" {
		for _, known := range classified {
			long := len(text) >= len(known.prefix)+len(known.suffix)
			if long && strings.HasPrefix(text, known.prefix) && strings.HasSuffix(text, known.suffix) {
				code = known.code
				break
			}
		}
	}
	failure := &Error{Kind: KindServer, Code: code, Op: op, Message: text}
	if field, _, found := strings.Cut(text, ": "); found && slices.Contains(namesField, code) {
		failure.Field = field
	}
	return failure
}

// asError finds this package's own error in another.
func asError(err error) (*Error, bool) {
	var failure *Error
	ok := errors.As(err, &failure)
	return failure, ok
}
