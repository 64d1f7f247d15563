package mq9_test

import (
	"bufio"

	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/robustmq/mq9/go"
)

const patience = 60 * time.Second

// process is a server that a test has started.
type process struct {
	command *exec.Cmd
	url     string
}

func (p *process) stop() {
	if p != nil && p.command.ProcessState == nil {
		_ = p.command.Process.Signal(syscall.SIGTERM)
		_ = p.command.Wait()
	}
}

func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// program finds a program of the repository's environment.
func program(name, variable string) string {
	if given := os.Getenv(variable); given != "" {
		return given
	}
	return filepath.Join("..", "..", ".venv", "bin", name)
}

func newBroker(arguments ...string) (*process, error) {
	options := append([]string{"serve", "--http", "off"}, arguments...)
	if !strings.Contains(strings.Join(arguments, " "), "--listen") {
		options = append(options, "--listen", "127.0.0.1:0")
	}
	command := exec.Command(program("mq9-broker", "MQ9_BROKER"), options...)
	command.Stderr = os.Stderr
	if !testing.Verbose() {
		command.Stderr = nil
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	for word := range strings.FieldsSeq(line) {
		if url, found := strings.CutPrefix(word, "nats="); found {
			return &process{command, url}, nil
		}
	}
	_ = command.Process.Kill()
	_ = command.Wait()
	return nil, fmt.Errorf("the broker did not become ready: %q, %w", line, err)
}

func startBroker(t *testing.T, arguments ...string) *process {
	t.Helper()
	broker, err := newBroker(arguments...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.stop)
	return broker
}

// shared is a broker for tests that leave it alone.
var shared = sync.OnceValues(func() (*process, error) { return newBroker() })

func sharedURL(t *testing.T) string {
	t.Helper()
	broker, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return broker.url
}

// startNATS starts a NATS server without mq9.
func startNATS(t *testing.T, arguments ...string) *process {
	t.Helper()
	port := freePort(t)
	command := exec.Command(program("nats-server", "NATS_SERVER"), append([]string{"-a", "127.0.0.1", "-p", port}, arguments...)...)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	server := &process{command, "nats://127.0.0.1:" + port}
	t.Cleanup(server.stop)
	eventually(t, "the NATS server listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return server
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not in %s: %s", patience, what)
}

func quiet() *mq9.ConnectOptions {
	return &mq9.ConnectOptions{
		Timeout: 20 * time.Second, ReconnectWait: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
}

func connect(t *testing.T, servers string) *mq9.Client {
	t.Helper()
	client, err := mq9.Connect(t.Context(), servers, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// newBox gives a client with a new mailbox.
func newBox(t *testing.T) (*mq9.Client, string) {
	t.Helper()
	client := connect(t, sharedURL(t))
	address, err := client.MailboxCreate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return client, address
}

func send(t *testing.T, client *mq9.Client, address string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := client.Send(t.Context(), address, []byte(text), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func isError(t *testing.T, err, sentinel error) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Fatalf("%v is not %v", err, sentinel)
	}
}

func received[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatalf("nothing came in %s", patience)
	}
	panic("unreachable")
}

// peer is a NATS server that does what a test says.
type peer struct {
	listener net.Listener
	mu       sync.Mutex
	lines    []string
	conns    []net.Conn
	answer   func(subject, reply string) (payload string, ok bool)
	silent   bool // accepts and says nothing
	info     string
}

func startPeer(t *testing.T, change func(*peer)) *peer {
	t.Helper()
	p := &peer{info: `{"server_id":"peer","version":"2.11.0","headers":true,"max_payload":1048576,"proto":1}`}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.listener = listener
	if change != nil {
		change(p)
	}
	go p.accept()
	t.Cleanup(p.close)
	return p
}

func (p *peer) url() string { return "nats://" + p.listener.Addr().String() }

func (p *peer) close() {
	_ = p.listener.Close()
	p.hangUp()
}

func (p *peer) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

func (p *peer) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns = append(p.conns, conn)
		p.mu.Unlock()
		if !p.silent {
			go p.serve(conn)
		}
	}
}

func (p *peer) serve(conn net.Conn) {
	fmt.Fprintf(conn, "INFO %s\r\n", p.info)
	reader := bufio.NewReader(conn)
	sid := ""
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		p.mu.Lock()
		p.lines = append(p.lines, strings.TrimSpace(line))
		p.mu.Unlock()
		switch words[0] {
		case "PING":
			fmt.Fprint(conn, "PONG\r\n")
		case "SUB":
			sid = words[len(words)-1]
		case "PUB", "HPUB":
			var size int
			_, _ = fmt.Sscan(words[len(words)-1], &size)
			if _, err := io.CopyN(io.Discard, reader, int64(size)+2); err != nil {
				return
			}
			if p.answer != nil {
				if payload, ok := p.answer(words[1], words[2]); ok {
					fmt.Fprintf(conn, "MSG %s %s %d\r\n%s\r\n", words[2], sid, len(payload), payload)
				}
			}
		}
	}
}

func (p *peer) count(prefix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := 0
	for _, line := range p.lines {
		if strings.HasPrefix(line, prefix) {
			count++
		}
	}
	return count
}

func TestMain(m *testing.M) {
	code := m.Run()
	if broker, err := shared(); err == nil {
		broker.stop()
	}
	if code == 0 {
		if left := leftOver(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines are left over:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leftOver waits until no goroutine of the SDK, or of its NATS client, runs any more; else it gives their stacks.
func leftOver() string {
	var left []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
		left = nil
		for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
			ours := strings.Contains(stack, "robustmq/mq9") || strings.Contains(stack, "nats-io/nats.go")
			if ours && !strings.Contains(stack, "_test.TestMain(") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return ""
		}
	}
	return strings.Join(left, "\n\n")
}
