// nats.go, as the matrix calls it.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

func run() error {
	env := os.Getenv
	options := []nats.Option{nats.NoReconnect(), nats.Timeout(10 * time.Second)}
	if env("MQ9_TOKEN") != "" {
		options = append(options, nats.Token(env("MQ9_TOKEN")))
	}
	if env("MQ9_USER") != "" {
		options = append(options, nats.UserInfo(env("MQ9_USER"), env("MQ9_PASSWORD")))
	}
	if env("MQ9_NKEY") != "" {
		option, err := nats.NkeyOptionFromSeed(env("MQ9_NKEY"))
		if err != nil {
			return err
		}
		options = append(options, option)
	}
	if env("MQ9_CREDS") != "" {
		options = append(options, nats.UserCredentials(env("MQ9_CREDS")))
	}
	if env("MQ9_CA") != "" {
		options = append(options, nats.RootCAs(env("MQ9_CA")))
	}
	if env("MQ9_CERT") != "" {
		options = append(options, nats.ClientCert(env("MQ9_CERT"), env("MQ9_KEY")))
	}
	if env("MQ9_TLS_FIRST") != "" {
		options = append(options, nats.TLSHandshakeFirst())
	}
	client, err := nats.Connect(env("MQ9_URL"), options...)
	if err != nil {
		return err
	}
	defer client.Close()
	reply, err := client.Request("$mq9.AI.MAILBOX.CREATE", []byte("{}"), 10*time.Second)
	if err != nil {
		return err
	}
	fmt.Println(string(reply.Data))
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
