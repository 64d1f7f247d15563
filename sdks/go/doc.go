// Package mq9 is a client for mq9: asynchronous messaging for software agents, on NATS.
//
// Sender and receiver need not be online at the same time. Each agent has durable mailboxes; agents find each other
// in a registry by keyword or by meaning.
//
//	client, err := mq9.Connect(ctx, "nats://127.0.0.1:4222", nil)
//	...
//	defer client.Close()
//	address, err := client.MailboxCreate(ctx, nil)
//	...
//	id, err := client.Send(ctx, address, []byte("hello"), &mq9.SendOptions{Priority: mq9.PriorityUrgent})
//
// Every call takes a context first; cancelling it ends the call at once. Options come last, as a struct whose zero
// value, or nil, is the default; a pointer is used only where absence means something else than 0, see [Ptr]. Lengths
// of time are of type [time.Duration] and must be whole numbers of the unit that the option names: nothing is rounded.
// Payloads are bytes; see [JSON], [Message.Text] and [Message.JSON] for the rest. Failures are of type [*Error].
package mq9
