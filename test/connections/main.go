// Command connections measures what idle MQTT connections cost the built service: `make bench-connections` makes a service, gives it ten
// thousand devices, has all of them log in over TLS from addresses of this machine and listen to all that a device can, as the SDKs do, and then lets
// them be. It ends with an error if one was not let in, was lost, or cost more memory than the target.
//
// The memory is that of the service's process alone (VmRSS); the devices are in this one. What the kernel holds for sockets is not in it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// target is the resident memory of a connection, in bytes.
const target = 100 << 10

func main() {
	n := flag.Int("n", 10_000, "connections")
	web := flag.Bool("websocket", false, "over WebSocket, on the HTTPS port")
	idle := flag.Duration("idle", 130*time.Second, "how long they do nothing: the runtime collects garbage every two minutes at least")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := measure(ctx, *n, *web, *idle)
	if err = errors.Join(err, rig.Cleanup()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, n int, web bool, idle time.Duration) (err error) {
	fmt.Printf("%d connections, WebSocket %v, %s, %d cores\n", n, web, runtime.Version(), runtime.NumCPU())
	s, err := rig.Start(rig.Config{Flags: []string{fmt.Sprintf("--hub-connections=%d", n), fmt.Sprintf("--limits-connections=%d", n+1000)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	fleet, err := makeFleet(ctx, s, n, web)
	if err != nil {
		return err
	}
	// The memory that making them took is not theirs.
	if err = errors.Join(s.Stop(), s.Run()); err != nil {
		return err
	}
	before, began := resident(s.PID()), time.Now()
	if err = fleet.connect(ctx); err != nil {
		return err
	}
	took, connected := time.Since(began), resident(s.PID())
	fmt.Printf("logged in:  all in %.1f s, %.0f/s\n", took.Seconds(), float64(n)/took.Seconds())
	report := func(when string, now int64) {
		fmt.Printf("%s %d MB resident, %.1f KB a connection (%d MB before the first)\n", when, now>>20, float64(now-before)/float64(n)/1024, before>>20)
	}
	report("at once:   ", connected)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idle):
	}
	left := resident(s.PID())
	report("later:     ", left)
	if err = fleet.ping(ctx); err != nil {
		return err
	}
	fmt.Printf("answering:  all of them, %.1f KB a connection then\n", float64(resident(s.PID())-before)/float64(n)/1024)
	if each := (left - before) / int64(n); before == 0 || each > target {
		return fmt.Errorf("missed: %d bytes a connection, more than %d", each, target)
	}
	return nil
}
