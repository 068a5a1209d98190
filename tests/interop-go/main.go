// SPDX-License-Identifier: LGPL-2.1-or-later

// The daemon as a program sees it whose code was generated from our interface files, by somebody else's
// generator, and which speaks through somebody else's library: every reply has to fit the types that were
// generated. Runs the daemon itself, and prints TAP. KEVD: the daemon; the one argument: a directory of
// the test's own, which holds the interface files too.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/varlink/go/varlink"
	"github.com/varlink/go/varlink/idl"
	"orgkevdevents"
	"orgkevdmanager"
)

const bound = 20 * time.Second

type test struct {
	ctx       context.Context
	directory string
	address   string
	kevd      *exec.Cmd
	failures  []string
	cleanups  []func()
}

type fatal struct{}

func (t *test) failf(format string, args ...interface{}) {
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
	panic(fatal{})
}

func (t *test) must(err error) {
	if err != nil {
		t.failf("%v (%T)", err, err)
	}
}

func (t *test) equal(what string, found, expected interface{}) {
	if !reflect.DeepEqual(found, expected) {
		t.failf("%s: %#v, not %#v", what, found, expected)
	}
}

func (t *test) connect() *varlink.Connection {
	c, err := varlink.NewConnection(t.ctx, t.address)
	t.must(err)
	t.cleanups = append(t.cleanups, func() { _ = c.Close() })
	return c
}

func (t *test) makeDirectory(name string) string {
	path := filepath.Join(t.directory, name)
	t.must(os.Mkdir(path, 0700))
	return path
}

func (t *test) makeFile(path string) {
	t.must(os.WriteFile(path, []byte("x"), 0600))
}

func integer(i int64) *int64 { return &i }

func text(s string) *string { return &s }

func list(words ...string) *[]string { return &words }

// ---- org.varlink.service

func testGetInfo(t *test) {
	var vendor, product, version, url string
	var interfaces []string

	t.must(t.connect().GetInfo(t.ctx, &vendor, &product, &version, &url, &interfaces))
	t.equal("vendor", vendor, "kevd")
	t.equal("product", product, "kevd")
	if version == "" || url == "" {
		t.failf("version %q, url %q", version, url)
	}
	t.equal("interfaces", interfaces, []string{"org.varlink.service", "org.kevd.events", "org.kevd.manager"})
}

// The text is the file's, which the code was generated from, and the library's own parser reads it.
func testDescriptions(t *test) {
	c := t.connect()
	for _, name := range []string{"org.varlink.service", "org.kevd.events", "org.kevd.manager"} {
		description, err := c.GetInterfaceDescription(t.ctx, name)
		t.must(err)
		file, err := os.ReadFile(filepath.Join(t.directory, name+".varlink"))
		t.must(err)
		t.equal(name, description, string(file))
		parsed, err := idl.New(strings.TrimRight(description, "\n"))
		t.must(err)
		t.equal("name", parsed.Name, name)
	}
}

func testInterfaceNotFound(t *test) {
	_, err := t.connect().GetInterfaceDescription(t.ctx, "org.kevd.nothing")
	var notFound *varlink.InterfaceNotFound
	if !errors.As(err, &notFound) {
		t.failf("%v (%T)", err, err)
	}
	t.equal("interface", notFound.Interface, "org.kevd.nothing")
}

func testMethodNotFound(t *test) {
	err := t.connect().Call(t.ctx, "org.kevd.events.Nothing", nil, nil)
	var notFound *varlink.MethodNotFound
	if !errors.As(err, &notFound) {
		t.failf("%v (%T)", err, err)
	}
	t.equal("method", notFound.Method, "org.kevd.events.Nothing")
}

// ---- org.kevd.events

func testGetLimits(t *test) {
	messageBytes, watches, queueBytes, connections, watchBytes, userQueueBytes, outputBytes, descriptors, timers,
		requests, err := orgkevdevents.GetLimits().Call(t.ctx, t.connect())
	t.must(err)
	if messageBytes < 4096 || watches < 1 || queueBytes < 4096 || connections < 1 {
		t.failf("%d bytes a message, %d watches, %d bytes a queue, %d connections", messageBytes, watches, queueBytes,
			connections)
	}
	if watchBytes < 4096 || userQueueBytes < queueBytes || outputBytes < 4096 || descriptors < 1 || timers < 1 ||
		requests < 1 {
		t.failf("%d bytes of watches, %d of a user's queues, %d of output, %d descriptors, %d timers, %d requests",
			watchBytes, userQueueBytes, outputBytes, descriptors, timers, requests)
	}
}

func (t *test) add(c *varlink.Connection, watches ...orgkevdevents.Watch) []orgkevdevents.Refusal {
	refused, err := orgkevdevents.Change().Call(t.ctx, c, nil, nil, &watches, nil, nil)
	t.must(err)
	return refused
}

func (t *test) watch(c *varlink.Connection, watches ...orgkevdevents.Watch) {
	t.equal("refused", t.add(c, watches...), []orgkevdevents.Refusal{})
}

// As one line each: "id notes fromPath path".
func describe(events []orgkevdevents.Event) []string {
	lines := []string{}
	for _, e := range events {
		line := fmt.Sprintf("%d %s", e.Id, strings.Join(e.Notes, "+"))
		if e.FromPath != nil {
			line += " " + *e.FromPath
		}
		if e.Path != nil {
			line += " " + *e.Path
		}
		lines = append(lines, line)
	}
	return lines
}

// Change, a file, Wait: all of a tree watch's events, with what the interface says is always there.
func testTree(t *test) {
	c := t.connect()
	root := t.makeDirectory("tree")
	begin := time.Now().UnixMicro()

	t.must(os.Mkdir(root+"/d", 0700))
	t.watch(c, orgkevdevents.Watch{
		Id:     7,
		Filter: "tree",
		Path:   &root,
		Notes:  list("create", "closewrite", "rename", "delete"),
		Tree:   &orgkevdevents.TreeOptions{Exclude: list("*.tmp"), Depth: integer(2)},
	})
	t.makeFile(root + "/a")
	t.makeFile(root + "/no.tmp")
	t.must(os.Mkdir(root+"/e", 0700))
	t.must(os.Rename(root+"/a", root+"/d/b"))
	t.must(os.Remove(root + "/d/b"))
	events, err := orgkevdevents.Wait().Call(t.ctx, c, nil, integer(0))
	t.must(err)
	t.equal("events", describe(events), []string{
		"7 create " + root + "/a",
		"7 closewrite " + root + "/a",
		"7 create " + root + "/e",
		"7 rename " + root + "/a " + root + "/d/b",
		"7 delete " + root + "/d/b",
	})
	for i, e := range events {
		t.equal("seq", e.Seq, int64(i+1))
		t.equal("filter", e.Filter, orgkevdevents.Filter("tree"))
		t.equal("count", e.Count, int64(1))
		if e.RealtimeUsec < begin || e.RealtimeUsec > time.Now().UnixMicro() {
			t.failf("realtimeUsec: %d", e.RealtimeUsec)
		}
	}
	if kind := events[2].Kind; kind == nil || *kind != "directory" {
		t.failf("kind of a directory: %v", kind)
	}
}

func testPathBytes(t *test) {
	c := t.connect()
	root := t.makeDirectory("bytes")

	t.watch(c, orgkevdevents.Watch{Id: 1, Filter: "tree", Path: &root, Notes: list("create")})
	t.makeFile(root + "/\xff")
	events, err := orgkevdevents.Wait().Call(t.ctx, c, nil, integer(0))
	t.must(err)
	t.equal("number of events", len(events), 1)
	if events[0].Path != nil || events[0].PathBytes == nil {
		t.failf("%+v", events[0])
	}
}

func testProcess(t *test) {
	c := t.connect()
	child := exec.Command("/bin/sh", "-c", "read -r line; exit 7")
	input, err := child.StdinPipe()

	t.must(err)
	t.must(child.Start())
	t.watch(c, orgkevdevents.Watch{
		Id:     1,
		Filter: "proc",
		Pid:    integer(int64(child.Process.Pid)),
		Notes:  list("exit", "reap"),
	})
	t.must(input.Close())
	_ = child.Wait()
	var events []orgkevdevents.Event
	for len(events) < 2 {
		more, err := orgkevdevents.Wait().Call(t.ctx, c, nil, integer(bound.Milliseconds()))
		t.must(err)
		events = append(events, more...)
	}
	t.equal("events", describe(events), []string{"1 exit", "1 reap"})
	// Reaped at once, it may be too late for the exit to say how it ended; the reap does.
	p := events[1].Process
	if p == nil || p.ExitCode == nil || p.Signal != nil {
		t.failf("%+v", p)
	}
	t.equal("pid", p.Pid, int64(child.Process.Pid))
	t.equal("exitCode", *p.ExitCode, int64(7))
	if events[1].Flags == nil || !reflect.DeepEqual(*events[1].Flags, []string{"eof"}) {
		t.failf("flags: %v", events[1].Flags)
	}
}

// A oneway call between two that are answered leaves no reply behind.
func testTrigger(t *test) {
	c, other := t.connect(), t.connect()

	t.watch(c, orgkevdevents.Watch{Id: 5, Filter: "user", Name: text("go")})
	reached, err := orgkevdevents.Trigger().Call(t.ctx, other, "go", integer(-1))
	t.must(err)
	t.equal("reached", reached, int64(1))
	_, err = orgkevdevents.Trigger().Send(t.ctx, other, varlink.Oneway, "go", nil)
	t.must(err)
	reached, err = orgkevdevents.Trigger().Call(t.ctx, other, "nobody", nil)
	t.must(err)
	t.equal("reached", reached, int64(0))
	events, err := orgkevdevents.Wait().Call(t.ctx, c, integer(10), integer(0))
	t.must(err)
	t.equal("events", describe(events), []string{"5 trigger", "5 trigger"})
	if events[0].Data == nil || *events[0].Data != -1 || events[1].Data != nil {
		t.failf("data %v, %v", events[0].Data, events[1].Data)
	}
}

// A Wait that is under way is answered by what comes behind it, and both replies are in order.
func testInterrupted(t *test) {
	c := t.connect()

	waiting, err := orgkevdevents.Wait().Send(t.ctx, c, 0, nil, nil)
	t.must(err)
	limits, err := orgkevdevents.GetLimits().Send(t.ctx, c, 0)
	t.must(err)
	events, flags, err := waiting(t.ctx)
	t.must(err)
	t.equal("events", len(events), 0)
	t.equal("flags", flags, uint64(0))
	_, watches, _, _, _, _, _, _, _, _, _, err := limits(t.ctx)
	t.must(err)
	if watches < 1 {
		t.failf("%d watches", watches)
	}
}

func testMonitor(t *test) {
	c := t.connect()
	root := t.makeDirectory("monitor")
	monitor, err := orgkevdevents.Monitor().Send(t.ctx, c, varlink.More, []orgkevdevents.Watch{
		{Id: 1, Filter: "tree", Path: &root, Notes: list("create")},
		{Id: 2, Filter: "tree", Path: text(root + "/nothing")},
	})

	t.must(err)
	events, refused, flags, err := monitor(t.ctx)
	t.must(err)
	t.equal("events", len(events), 0)
	if refused == nil || len(*refused) != 1 || (*refused)[0].Id != 2 || (*refused)[0].Errno != "ENOENT" {
		t.failf("refused: %+v", refused)
	}
	t.equal("flags", flags, uint64(varlink.Continues))
	for i := 0; i < 3; i++ {
		path := fmt.Sprintf("%s/%d", root, i)
		t.makeFile(path)
		events, _, flags, err = monitor(t.ctx)
		t.must(err)
		t.equal("events", describe(events), []string{"1 create " + path})
		t.equal("flags", flags, uint64(varlink.Continues))
	}
}

// ---- errors

func testExpectedMore(t *test) {
	_, _, err := orgkevdevents.Monitor().Call(t.ctx, t.connect(), []orgkevdevents.Watch{})
	var e *varlink.Error
	if !errors.As(err, &e) || e.Name != "org.varlink.service.ExpectedMore" {
		t.failf("%v (%T)", err, err)
	}
}

// What is wrong with one watch is its refusal; the others are made.
func testRefusals(t *test) {
	c := t.connect()
	refused := t.add(c,
		orgkevdevents.Watch{Id: 1, Filter: "tree", Path: text(t.directory + "/nothing")},
		orgkevdevents.Watch{Id: 2, Filter: "timer", Data: integer(10)},
		orgkevdevents.Watch{Id: 3, Filter: "timer"},
		orgkevdevents.Watch{Id: 4, Filter: "tree", Path: text("relative")})
	found := []string{}

	for _, r := range refused {
		found = append(found, fmt.Sprintf("%d %s", r.Id, r.Errno))
		if r.Message == "" {
			t.failf("no message: %+v", r)
		}
	}
	sort.Strings(found) // they are told as they are found out
	t.equal("refused", found, []string{"1 ENOENT", "3 EINVAL", "4 EINVAL"})
	events, err := orgkevdevents.Wait().Call(t.ctx, c, integer(1), integer(bound.Milliseconds()))
	t.must(err)
	t.equal("events", describe(events), []string{"2 msec"})
}

func (t *test) invalid(err error, parameter string) {
	var invalid *varlink.InvalidParameter
	if !errors.As(err, &invalid) {
		t.failf("%v (%T)", err, err)
	}
	t.equal("parameter", invalid.Parameter, parameter)
}

func testInvalidParameter(t *test) {
	c := t.connect()
	watches := []orgkevdevents.Watch{{Id: 1, Filter: "nothing"}}

	t.invalid(c.Call(t.ctx, "org.kevd.events.GetLimits", map[string]int{"bogus": 1}, nil), "bogus")
	_, err := orgkevdevents.Change().Call(t.ctx, c, nil, nil, &watches, nil, nil)
	t.invalid(err, "add[0].filter")
	_, err = orgkevdevents.Wait().Call(t.ctx, c, integer(0), nil)
	t.invalid(err, "maxEvents")
}

// ---- org.kevd.manager

func testGetStatus(t *test) {
	c := t.connect()
	root := t.makeDirectory("status")

	t.watch(c, orgkevdevents.Watch{Id: 1, Filter: "tree", Path: &root, Notes: list("create")})
	t.makeFile(root + "/a")
	_, err := orgkevdevents.Wait().Call(t.ctx, c, nil, integer(0))
	t.must(err)
	version, pid, mode, uptime, mux, level, sandbox, connections, watches, bytes, sources, counters, limits, users, err :=
		orgkevdmanager.GetStatus().Call(t.ctx, c)
	t.must(err)
	if limits.Watches < 1 || len(users) != 1 || users[0].Connections < 1 {
		t.failf("limits %+v, users %+v", limits, users)
	}
	if version == "" || mux == "" || level == "" || sandbox == "" || uptime <= 0 || bytes != 0 {
		t.failf("version %q, mux %q, log level %q, up %d, %d bytes", version, mux, level, uptime, bytes)
	}
	t.equal("pid", pid, int64(t.kevd.Process.Pid))
	t.equal("mode", mode, "user")
	/* The connections before this one may still be on their way out. */
	if connections < 1 || watches < 1 {
		t.failf("%d connections, %d watches", connections, watches)
	}
	filters := map[string]bool{}
	for _, source := range sources {
		if source.Name == "" || source.Mechanism == "" {
			t.failf("%+v", source)
		}
		for _, filter := range source.Filters {
			filters[filter] = true
		}
	}
	for _, filter := range []string{"vnode", "tree", "proc", "netdev", "timer", "user"} {
		if !filters[filter] {
			t.failf("no source serves %s: %+v", filter, sources)
		}
	}
	if counters.EventsIn < 1 || counters.Delivered < 1 || counters.Refused < 1 || counters.ConnectionsAccepted < 2 {
		t.failf("%+v", counters)
	}
}

func testListQueues(t *test) {
	c := t.connect()

	t.watch(c, orgkevdevents.Watch{Id: 1, Filter: "user", Name: text("queue")})
	_, err := orgkevdevents.Trigger().Call(t.ctx, c, "queue", nil)
	t.must(err)
	queues, err := orgkevdmanager.ListQueues().Call(t.ctx, c)
	t.must(err)
	for _, q := range queues {
		if q.Watches == 1 && q.PendingEvents == 1 && q.PendingBytes > 0 {
			t.equal("peerPid", q.PeerPid, int64(os.Getpid()))
			t.equal("user", q.User, int64(os.Getuid()))
			return
		}
	}
	t.failf("not there: %+v", queues)
}

func testDisconnect(t *test) {
	c, other := t.connect(), t.connect()

	t.watch(c, orgkevdevents.Watch{Id: 1, Filter: "user", Name: text("end")})
	queues, err := orgkevdmanager.ListQueues().Call(t.ctx, other)
	t.must(err)
	for _, q := range queues {
		if q.Watches == 1 {
			t.must(orgkevdmanager.Disconnect().Call(t.ctx, other, q.Id))
		}
	}
	if _, err = orgkevdevents.Trigger().Call(t.ctx, c, "end", nil); err == nil {
		t.failf("the connection is there still")
	}
	var none *orgkevdmanager.NoSuchConnection
	err = orgkevdmanager.Disconnect().Call(t.ctx, other, 0)
	if !errors.As(err, &none) {
		t.failf("%v (%T)", err, err)
	}
}

func testReload(t *test) {
	t.must(orgkevdmanager.Reload().Call(t.ctx, t.connect()))
}

// ---- the program

func (t *test) start() {
	socket := t.directory + "/socket"
	log, err := os.Create(t.directory + "/kevd.log")
	t.must(err)
	t.kevd = exec.Command(os.Getenv("KEVD"), "--mode=user", "--listen="+socket)
	t.kevd.Stdout, t.kevd.Stderr = log, log
	t.kevd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	t.must(t.kevd.Start())
	t.must(log.Close())
	t.address = "unix:" + socket
	for deadline := time.Now().Add(bound); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			t.must(c.Close())
			return
		}
		if time.Now().After(deadline) {
			t.failf("kevd does not listen: %v", err)
		}
	}
}

func testStop(t *test) {
	ended := make(chan error, 1)

	t.must(t.kevd.Process.Signal(syscall.SIGTERM))
	go func() { ended <- t.kevd.Wait() }()
	select {
	case err := <-ended:
		t.must(err)
	case <-t.ctx.Done():
		_ = t.kevd.Process.Kill()
		t.failf("kevd did not end")
	}
}

// Whether it did well.
func run(base *test, number int, name string, fn func(t *test)) bool {
	t := *base
	ctx, cancel := context.WithTimeout(context.Background(), 2*bound)
	t.ctx, t.failures, t.cleanups = ctx, nil, nil
	func() {
		defer func() {
			if r := recover(); r != nil && r != (interface{})(fatal{}) {
				t.failures = append(t.failures, fmt.Sprint(r))
			}
		}()
		fn(&t)
	}()
	for _, cleanup := range t.cleanups {
		cleanup()
	}
	cancel()
	base.kevd, base.address = t.kevd, t.address
	if len(t.failures) == 0 {
		fmt.Printf("ok %d - interop-go:%s\n", number, name)
		return true
	}
	fmt.Printf("not ok %d - interop-go:%s\n", number, name)
	for _, failure := range t.failures {
		fmt.Println("# " + strings.ReplaceAll(failure, "\n", "\n# "))
	}
	return false
}

func main() {
	// The daemon's death signal is for the end of the thread that started it.
	runtime.LockOSThread()
	cases := []struct {
		name string
		fn   func(t *test)
	}{
		{"start", (*test).start},
		{"service:get_info", testGetInfo},
		{"service:descriptions", testDescriptions},
		{"service:interface_not_found", testInterfaceNotFound},
		{"service:method_not_found", testMethodNotFound},
		{"events:get_limits", testGetLimits},
		{"events:tree", testTree},
		{"events:path_bytes", testPathBytes},
		{"events:process", testProcess},
		{"events:trigger", testTrigger},
		{"events:interrupted_wait", testInterrupted},
		{"events:monitor", testMonitor},
		{"errors:expected_more", testExpectedMore},
		{"errors:refusals", testRefusals},
		{"errors:invalid_parameter", testInvalidParameter},
		{"manager:get_status", testGetStatus},
		{"manager:list_queues", testListQueues},
		{"manager:disconnect", testDisconnect},
		{"manager:reload", testReload},
		{"stop", testStop},
	}
	base := &test{directory: os.Args[1]}
	failed := false
	for i, c := range cases {
		if !run(base, i+1, c.name, c.fn) {
			failed = true
			if base.address == "" {
				fmt.Println("Bail out! there is no daemon to talk to")
				os.Exit(1)
			}
		}
	}
	fmt.Printf("1..%d\n", len(cases))
	if failed {
		if log, err := os.ReadFile(base.directory + "/kevd.log"); err == nil {
			fmt.Println("# kevd.log:\n# " + strings.ReplaceAll(string(log), "\n", "\n# "))
		}
		os.Exit(1)
	}
}
