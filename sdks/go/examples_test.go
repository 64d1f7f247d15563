//go:build examples

package mq9_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples runs the README's quickstart and every example, against the broker at MQ9_URL or one of its own.
func TestExamples(t *testing.T) {
	url := os.Getenv("MQ9_URL")
	if url == "" {
		url = sharedURL(t)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, found := strings.Cut(string(readme), "```go\npackage main")
	code, _, ended := strings.Cut(code, "```")
	if !found || !ended {
		t.Fatal("the README has no quickstart")
	}
	folder, err := os.MkdirTemp("examples", "readme-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	quickstart := strings.ReplaceAll("package main"+code, "nats://127.0.0.1:4222", url)
	if err := os.WriteFile(filepath.Join(folder, "main.go"), []byte(quickstart), 0o600); err != nil {
		t.Fatal(err)
	}
	for folder, wanted := range map[string]string{
		folder:                    "urgent {\"task\":\"greet\",\"who\":\"world\"}\n",
		"examples/quickstart":     "message 0 (urgent): {\"task\":\"greet\",\"who\":\"world\"}\n",
		"examples/worker_pool":    "jobs done: [0 1 2 3 4 5 6 7 8 9 10 11]\n",
		"examples/request_reply":  "answer: HOW ARE YOU?\n",
		"examples/agent_registry": "found word-counter-go: Counts the words of a text.\n6 words\n0 agents left\n",
	} {
		command := exec.Command("go", "run", "./"+folder)
		command.Env = append(os.Environ(), "MQ9_URL="+url)
		output, err := command.CombinedOutput()
		if err != nil || !strings.HasSuffix(string(output), wanted) {
			t.Errorf("%s: %v\n%s", folder, err, output)
		}
	}
}
