package mq9_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/robustmq/mq9/go"
)

func TestServersAreOneURLAListOrAStringWithCommas(t *testing.T) {
	for _, given := range [][]string{{"nats://a:1,b:2"}, {"", "nats://a:1", "b:2"}, {" nats://a:1 , , nats://b:2", "a:1"}} {
		urls, err := mq9.ServerList(given)
		if err != nil || !slices.Equal(urls, []string{"nats://a:1", "nats://b:2"}) {
			t.Errorf("%q became %q, %v", given, urls, err)
		}
	}
	if urls, err := mq9.ServerList([]string{""}); err != nil || !slices.Equal(urls, []string{mq9.DefaultServer}) {
		t.Errorf("nothing became %q, %v", urls, err)
	}
	for _, given := range []string{",", "http://a", "nats://", "nats://a:99999", "nats://a b", "ws://a,nats://b", "nats://[::"} {
		_, err := mq9.ServerList([]string{given})
		var failure *mq9.Error
		if !errors.As(err, &failure) || failure.Kind != mq9.KindInvalidArgument || failure.Field != "servers" {
			t.Errorf("%q: %v", given, err)
		}
	}
}

func TestPasswordInAURLStaysOutOfErrors(t *testing.T) {
	for _, given := range []string{"nats://me:secret@127.0.0.1:1", "http://me:secret@h"} {
		_, err := mq9.Connect(t.Context(), given, quiet())
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}

func TestNoServerIsConnectionClosed(t *testing.T) {
	_, err := mq9.Connect(t.Context(), "nats://127.0.0.1:"+freePort(t), quiet())
	isError(t, err, mq9.ErrConnectionClosed)
}

func TestServerThatSaysNothingIsGivenUp(t *testing.T) {
	p := startPeer(t, func(p *peer) { p.silent = true })
	options := quiet()
	options.ConnectTimeout = 100 * time.Millisecond
	_, err := mq9.Connect(t.Context(), p.url(), options)
	isError(t, err, mq9.ErrConnectionClosed)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	options.ConnectTimeout = time.Second
	_, err = mq9.Connect(ctx, p.url(), options)
	isError(t, err, mq9.ErrCancelled)
	isError(t, err, context.Canceled)
}

func TestNextServerIsUsedWhenOneIsDown(t *testing.T) {
	client := connect(t, "nats://127.0.0.1:"+freePort(t)+","+sharedURL(t))
	if _, err := client.MailboxCreate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if client.ConnectedURL() != sharedURL(t) || !client.IsConnected() {
		t.Errorf("connected to %s", client.ConnectedURL())
	}
}

func TestNextServerIsUsedWhenTheConnectionIsLost(t *testing.T) {
	first := startPeer(t, nil)
	client := connect(t, first.url()+","+sharedURL(t))
	if client.ConnectedURL() != first.url() {
		t.Fatalf("connected to %s", client.ConnectedURL())
	}
	first.close()
	// Sent now, or as soon as the connection is back.
	eventually(t, "calls succeed on the second server", func() bool {
		_, err := client.MailboxCreate(t.Context(), nil)
		return err == nil
	})
	if client.ConnectedURL() != sharedURL(t) {
		t.Errorf("connected to %s", client.ConnectedURL())
	}
}

func TestWrongPasswordIsUnauthorized(t *testing.T) {
	server := startNATS(t, "--user", "me", "--pass", "right")
	options := quiet()
	options.User, options.Password = "me", "wrong"
	// Refused by one and not reached at another: refused.
	_, err := mq9.Connect(t.Context(), server.url+",127.0.0.1:"+freePort(t), options)
	var failure *mq9.Error
	if !errors.As(err, &failure) || failure.Kind != mq9.KindConnectionClosed || failure.Code != "unauthorized" {
		t.Fatalf("%#v", err)
	}
	options.Password = "right"
	client, err := mq9.Connect(t.Context(), server.url, options)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.MailboxCreate(t.Context(), nil)
	isError(t, err, mq9.ErrNoResponders)
	isError(t, err, nats.ErrNoResponders)
}

func TestToken(t *testing.T) {
	server := startNATS(t, "--auth", "s3cr3t")
	options := quiet()
	_, err := mq9.Connect(t.Context(), server.url, options)
	isError(t, err, mq9.ErrUnauthorized)
	options.Token = "s3cr3t"
	client, err := mq9.Connect(t.Context(), server.url, options)
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
}

func TestCredentialsFileThatIsNotThere(t *testing.T) {
	options := quiet()
	options.CredentialsFile = filepath.Join(t.TempDir(), "none")
	_, err := mq9.Connect(t.Context(), sharedURL(t), options)
	var failure *mq9.Error
	if !errors.As(err, &failure) || failure.Field != "credentials_file" {
		t.Fatalf("%v", err)
	}
}

func certificate(t *testing.T) (folder string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mq9 test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	data, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder = t.TempDir()
	pool = x509.NewCertPool()
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: data})
	pool.AppendCertsFromPEM(public)
	for name, content := range map[string][]byte{
		"cert.pem": public, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder, pool
}

func TestTLS(t *testing.T) {
	folder, pool := certificate(t)
	server := startNATS(t, "--tls", "--tlscert", filepath.Join(folder, "cert.pem"), "--tlskey", filepath.Join(folder, "key.pem"))
	_, err := mq9.Connect(t.Context(), server.url, quiet())
	isError(t, err, mq9.ErrConnectionClosed) // its certificate is not trusted
	options := quiet()
	options.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	client, err := mq9.Connect(t.Context(), server.url, options)
	if err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
}

func TestPasswordIsNotSentInClearWhenTLSWasAskedFor(t *testing.T) {
	p := startPeer(t, nil)
	options := quiet()
	options.User, options.Password, options.TLS = "me", "secret", &tls.Config{MinVersion: tls.VersionTLS12}
	_, err := mq9.Connect(t.Context(), p.url(), options)
	isError(t, err, mq9.ErrConnectionClosed)
	_, err = mq9.Connect(t.Context(), strings.Replace(p.url(), "nats:", "tls:", 1), quiet())
	isError(t, err, mq9.ErrConnectionClosed)
	if p.count("CONNECT") > 0 {
		t.Error("CONNECT was sent in clear")
	}
}

func TestRequestWithoutAReplyEndsAtItsTimeout(t *testing.T) {
	p := startPeer(t, nil)
	client := connect(t, p.url())
	_, err := client.Fetch(t.Context(), "a.b", &mq9.FetchOptions{Timeout: 50 * time.Millisecond, MaxWait: mq9.Ptr(50 * time.Millisecond)})
	isError(t, err, mq9.ErrTimeout)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = client.MailboxInfo(ctx, "a.b", nil)
	isError(t, err, mq9.ErrTimeout)
	isError(t, err, context.DeadlineExceeded)
	if p.count("PUB $mq9.AI.MAILBOX.INFO") != 1 {
		t.Error("the end of the caller's context was followed by another attempt")
	}
}

func TestRequestInFlightWhenTheConnectionBreaksFailsAtOnce(t *testing.T) {
	p := startPeer(t, nil)
	client := connect(t, p.url())
	failed := make(chan error)
	go func() {
		_, err := client.Fetch(t.Context(), "a.b", nil)
		failed <- err
	}()
	eventually(t, "FETCH is out", func() bool { return p.count("PUB $mq9.AI.MSG.FETCH") == 1 })
	p.hangUp()
	isError(t, received(t, failed), mq9.ErrConnectionClosed)
	if p.count("PUB $mq9.AI.MSG.FETCH") != 1 {
		t.Error("FETCH was sent again")
	}
}

func TestCallsWhileDisconnectedTimeOutWithoutBeingSentLater(t *testing.T) {
	p := startPeer(t, nil)
	address := p.listener.Addr().String()
	client := connect(t, p.url())
	p.close()
	eventually(t, "the loss is noticed", func() bool { return !client.IsConnected() })
	_, err := client.Send(t.Context(), "a.b", []byte("late"), &mq9.SendOptions{Timeout: 100 * time.Millisecond})
	isError(t, err, mq9.ErrTimeout)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = client.Send(ctx, "a.b", []byte("late"), nil)
	isError(t, err, mq9.ErrCancelled)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("listening again where the peer was: %v", err)
	}
	again := &peer{listener: listener, info: p.info, answer: func(string, string) (string, bool) { return `{"error":"","msg_id":0}`, true }}
	go again.accept()
	defer again.close()
	if _, err := client.Send(t.Context(), "a.b", []byte("now"), nil); err != nil {
		t.Fatal(err)
	}
	if again.count("PUB $mq9.AI.MSG.SEND") != 1 {
		t.Errorf("%q", again.lines)
	}
}

func TestClosingWhileDisconnectedEndsWaitingCalls(t *testing.T) {
	p := startPeer(t, nil)
	options := quiet()
	options.Timeout = 200 * time.Millisecond
	client, err := mq9.Connect(t.Context(), p.url(), options)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	failed := make(chan error)
	go func() {
		_, err := client.Send(t.Context(), "a.b", nil, &mq9.SendOptions{Timeout: time.Hour})
		failed <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	isError(t, received(t, failed), mq9.ErrConnectionClosed)
}

func TestRestartOfTheBrokerIsSurvived(t *testing.T) {
	broker := startBroker(t)
	client := connect(t, broker.url)
	if _, err := client.MailboxCreate(t.Context(), &mq9.MailboxCreateOptions{Name: "before"}); err != nil {
		t.Fatal(err)
	}
	broker.kill()
	startBroker(t, "--listen", strings.TrimPrefix(broker.url, "nats://"))
	eventually(t, "calls succeed again", func() bool {
		_, err := client.MailboxCreate(t.Context(), &mq9.MailboxCreateOptions{Name: "after"})
		return err == nil || errors.Is(err, mq9.ErrMailboxExists)
	})
}

func TestExistingConnectionIsUsedAndLeftOpen(t *testing.T) {
	connection, err := nats.Connect(sharedURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client, err := mq9.NewClient(connection, quiet())
	if err != nil {
		t.Fatal(err)
	}
	address, err := client.MailboxCreate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// Closing waits for a cancelled FETCH, as nothing else ends it.
	ctx, cancel := context.WithCancel(t.Context())
	fetched := make(chan error)
	go func() {
		_, err := client.Fetch(ctx, address, &mq9.FetchOptions{GroupName: "g", Lease: time.Hour, MaxWait: mq9.Ptr(300 * time.Millisecond)})
		fetched <- err
	}()
	time.Sleep(50 * time.Millisecond)
	cancel()
	isError(t, received(t, fetched), context.Canceled)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if connection.NumSubscriptions() != 0 || !connection.IsConnected() {
		t.Error("the connection is not as it was")
	}
	_, err = client.MailboxInfo(t.Context(), address, nil)
	isError(t, err, mq9.ErrConnectionClosed)
	connection.Close()
	_, err = mq9.NewClient(connection, nil)
	isError(t, err, mq9.ErrConnectionClosed)
}

func TestExistingConnectionThatItsOwnerCloses(t *testing.T) {
	p := startPeer(t, nil)
	connection, err := nats.Connect(p.url())
	if err != nil {
		t.Fatal(err)
	}
	client, err := mq9.NewClient(connection, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	failed := make(chan error)
	go func() {
		_, err := client.Send(t.Context(), "a.b", nil, nil)
		failed <- err
	}()
	eventually(t, "SEND is out", func() bool { return p.count("PUB $mq9.AI.MSG.SEND") == 1 })
	connection.Close()
	isError(t, received(t, failed), mq9.ErrConnectionClosed)
	_, err = client.Send(t.Context(), "a.b", nil, nil)
	isError(t, err, mq9.ErrConnectionClosed)
}

func TestLargestPayloadAndOneByteMore(t *testing.T) {
	client, address := newBox(t)
	payload := make([]byte, 1<<20)
	if _, err := rand.Read(payload); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Send(t.Context(), address, payload, nil); err != nil {
		t.Fatal(err)
	}
	_, err := client.Send(t.Context(), address, append(payload, 0), nil)
	isError(t, err, mq9.ErrPayloadTooLarge)
	var failure *mq9.Error
	if !errors.As(err, &failure) || failure.Kind != mq9.KindInvalidArgument || failure.Field != "payload" {
		t.Errorf("%#v", err)
	}
	// The reply is longer than what a client may send.
	result, err := client.Fetch(t.Context(), address, &mq9.FetchOptions{Deliver: mq9.DeliverEarliest})
	if err != nil || len(result.Messages) != 1 || !bytes.Equal(result.Messages[0].Payload, payload) {
		t.Fatalf("%v", err)
	}
}

func TestTenThousandMessagesInOrder(t *testing.T) {
	client, address := newBox(t)
	const count, senders = 10000, 100
	var sending sync.WaitGroup
	next := make(chan int)
	for range senders {
		sending.Go(func() {
			for number := range next {
				if _, err := client.Send(t.Context(), address, fmt.Append(nil, number), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for number := range count {
		next <- number
	}
	close(next)
	sending.Wait()
	messages, err := client.Messages(t.Context(), address, "g", &mq9.ConsumeOptions{
		Deliver: mq9.DeliverEarliest, NumMsgs: mq9.Ptr(1000), ManualAck: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	id := int64(0)
	for message, err := range messages {
		if err != nil {
			t.Fatal(err)
		}
		if message.MsgID != id {
			t.Fatalf("message %d, not %d", message.MsgID, id)
		}
		seen[message.Text()] = true
		if id++; id == count {
			break
		}
	}
	if len(seen) != count {
		t.Errorf("%d payloads", len(seen))
	}
}

func TestFetchThatIsCancelledAtAnyMomentLosesNothing(t *testing.T) {
	client, address := newBox(t)
	send(t, client, address, "one", "two", "three")
	options := &mq9.FetchOptions{GroupName: "g", Deliver: mq9.DeliverEarliest, Lease: time.Hour, NumMsgs: mq9.Ptr(3)}
	for step := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(step)*100*time.Microsecond, cancel)
		result, err := client.Fetch(ctx, address, options)
		cancel()
		if err == nil && len(result.Messages) > 0 {
			ids := []int64{}
			for _, message := range result.Messages {
				ids = append(ids, message.MsgID)
			}
			if err := client.Nack(t.Context(), address, "g", ids, &mq9.NackOptions{LeaseID: result.LeaseID}); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			isError(t, err, mq9.ErrCancelled)
		}
	}
	eventually(t, "all three come", func() bool {
		info, err := client.MailboxInfo(t.Context(), address, nil)
		return err == nil && len(info.Groups) == 1 && info.Groups[0].Pending == 3 && info.Groups[0].Leased == 0
	})
}
