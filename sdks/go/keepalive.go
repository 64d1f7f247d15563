package mq9

import (
	"context"
	"errors"
	"sync"
	"time"
)

// AgentKeepAlive is an agent that is registered as long as it runs; made by [Client.AgentKeepAlive].
type AgentKeepAlive struct {
	client   *Client
	name     string
	options  AgentRegisterOptions
	ctx      context.Context // it outlives the call that started it
	cancel   context.CancelFunc
	reported chan struct{} // closed when reporting has ended
	detach   func() bool   // from the end of ctx
	stopOnce sync.Once
	stopErr  error
}

// AgentKeepAlive keeps an agent in the registry until it is stopped, the client is closed or ctx ends.
//
// It registers the agent, with a ttl of its own, reports it regularly, registers it again when the registry has
// forgotten it, and unregisters it at the end. An agent of this name is replaced. The options are those of
// [Client.AgentRegister]; their TTL has no meaning.
//
// Requirements: KEEPALIVE-001, KEEPALIVE-002.
func (c *Client) AgentKeepAlive(ctx context.Context, name string, options *AgentRegisterOptions) (*AgentKeepAlive, error) {
	k := &AgentKeepAlive{client: c, name: name, options: valueOf(options), reported: make(chan struct{})}
	k.options.TTL = keepAliveRegisterTTL * time.Second
	if err := c.AgentRegister(ctx, name, &k.options); err != nil {
		return nil, err
	}
	k.ctx, k.cancel = context.WithCancel(ctx)
	if err := c.add(k); err != nil {
		k.cancel()
		return nil, err
	}
	go k.report()
	started := make(chan struct{})
	k.detach = context.AfterFunc(ctx, func() {
		<-started
		k.end()
	})
	close(started)
	return k, nil
}

// Stop ends the reports and unregisters the agent; calling it again is fine and gives the same. If it could not be
// unregistered, it goes by itself when its ttl is over.
func (k *AgentKeepAlive) Stop() error {
	k.stopOnce.Do(func() {
		k.detach()
		k.cancel()
		<-k.reported
		k.stopErr = k.client.AgentUnregister(internal(k.ctx), &AgentUnregisterOptions{Name: k.name, Timeout: k.options.Timeout})
		k.client.remove(k)
	})
	return k.stopErr
}

func (k *AgentKeepAlive) end() {
	if err := k.Stop(); err != nil {
		k.client.log.Warn("mq9: an agent could not be unregistered", "agent", k.name, "error", err)
	}
}

func (k *AgentKeepAlive) report() {
	defer close(k.reported)
	ticker := time.NewTicker(keepAliveReportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-k.ctx.Done():
			return
		}
		err := k.client.AgentReport(k.ctx, &AgentReportOptions{Name: k.name, Timeout: k.options.Timeout})
		if errors.Is(err, ErrAgentNotFound) {
			err = k.client.AgentRegister(k.ctx, k.name, &k.options)
		}
		if err != nil && k.ctx.Err() == nil {
			k.client.log.Warn("mq9: an agent could not be reported, trying again later", "agent", k.name, "error", err)
		}
	}
}
