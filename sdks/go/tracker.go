package mq9

import (
	"sync"
	"time"
)

// tracker counts what is under way, so that an end can wait for it with a limit.
type tracker struct {
	mu    sync.Mutex
	count int
	shut  bool
	idle  chan struct{} // made by who waits, closed when the count is 0
}

// add counts one more; false if nothing more is let in.
func (t *tracker) add() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shut {
		return false
	}
	t.count++
	return true
}

// addAlways counts one more, also when nothing more is let in: for what belongs to something counted elsewhere.
func (t *tracker) addAlways() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
}

func (t *tracker) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count--
	if t.count == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// shutOut lets nothing more in.
func (t *tracker) shutOut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shut = true
}

func (t *tracker) isShut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shut
}

func (t *tracker) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count > 0
}

// wait waits until nothing is under way, for at most so long.
func (t *tracker) wait(timeout time.Duration) {
	t.mu.Lock()
	if t.count == 0 {
		t.mu.Unlock()
		return
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}
