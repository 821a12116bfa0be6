package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"latchkey.example/latchkey/test/rig"
)

// The targets.
const (
	importLimit = 5 * time.Minute
	memoryLimit = 300 << 20 // bytes of resident memory, peak
)

func main() {
	rows := flag.Int("n", 1_000_000, "enrollments to import")
	pace := flag.Duration("pace", 100*time.Millisecond, "time between two queries, and between two registrations")
	seed := flag.Uint64("seed", 1, "of the endorsement keys")
	dir := flag.String("dir", "", "directory for the installation, kept; default: one that is removed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := measure(ctx, *rows, *pace, *seed, *dir)
	if err = errors.Join(err, rig.Cleanup()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// measure makes a service, loads it and prints what was seen. The error names every target that was missed.
func measure(ctx context.Context, rows int, pace time.Duration, seed uint64, dir string) (err error) {
	fmt.Printf("%d rows, seed %d, %s, %d cores\n", rows, seed, runtime.Version(), runtime.NumCPU())
	s, err := rig.Start(rig.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	fleet, err := enrollFleet(ctx, s)
	if err != nil {
		return err
	}
	memory := watchMemory(s.PID())
	beside, ease := context.WithCancel(ctx)
	queries := repeat(beside, pace, newWalker(s).next)
	registrations := repeat(beside, pace, fleet.next)
	began := time.Now()
	imported, importErr := importRows(ctx, s, rows, seed)
	took := time.Since(began)
	ease()
	asked, registered := queries.wait(), registrations.wait()

	fmt.Printf("import:        %.1f s, %.0f rows/s: %s\n", took.Seconds(), float64(rows)/took.Seconds(), imported)
	fmt.Printf("memory:        %d MB resident at most\n", memory.peak()>>20)
	fmt.Printf("queries:       %s\n", asked)
	fmt.Printf("registrations: %s\n", registered)
	fmt.Printf("database:      %d MB\n", size(s.DataDir)>>20)
	if importErr != nil {
		return importErr
	}
	walked, err := walkAll(ctx, s)
	if err != nil {
		return err
	}
	fmt.Printf("query pages:   %s\n", walked)
	fmt.Printf("memory:        %d MB resident at most, all pages read\n", memory.peak()>>20)
	return errors.Join(
		missed(took > importLimit, "the import took %v, more than %v", took.Round(time.Second), importLimit),
		missed(memory.peak() > memoryLimit, "the service took %d MB, more than %d", memory.peak()>>20, memoryLimit>>20),
		missed(memory.peak() == 0, "the service's memory could not be read"),
		missed(asked.failed > 0 || asked.good() == 0, "%d queries failed, %d did not; the last: %v", asked.failed, asked.good(), asked.last),
		missed(registered.failed > 0 || registered.good() == 0, "%d registrations failed, %d did not; the last: %v", registered.failed, registered.good(), registered.last),
		missed(walked.rows != rows+fleetSize, "%d enrollments are there, not %d", walked.rows, rows+fleetSize),
	)
}

func missed(really bool, format string, args ...any) error {
	if !really {
		return nil
	}
	return fmt.Errorf("missed: "+format, args...)
}

// size is what the files of a directory take.
func size(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil
	})
	return bytes
}
