package mq9

import (
	"log/slog"
	"time"

	"github.com/robustmq/mq9/go/internal/wire"
)

// NewClientOn makes a client on top of something that is no NATS connection; its retries pause for a moment only.
func NewClientOn(requester wire.Requester) *Client {
	client := newClient(noLink{}, requester, ConnectOptions{Timeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	client.retryPause = time.Microsecond
	return client
}

type noLink struct{}

func (noLink) isClosed() bool       { return false }
func (noLink) isConnected() bool    { return true }
func (noLink) url() string          { return "" }
func (noLink) settle(time.Duration) {}
func (noLink) close(time.Duration)  {}

var (
	NackDelay  = nackDelay
	ServerList = serverList
)
