package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/daemon"
)

func storeCopyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy --data DIR --to ADDRESS",
		Short: "Move an installation from the embedded store to PostgreSQL; the service must not run",
		Long: `Move an installation from the embedded store to a PostgreSQL database, which must be empty: scopes, access policies, enrollments, groups, CA
certificates, registrations, operations, device identities and the audit log, all as they are, with their etags and places. Secrets stay sealed under
the same master key.

What was copied is compared row by row and checked as fsck does. Only then is the database one that a service starts on; from then on the embedded
store says that it was moved, and no service starts on it. A copy that was interrupted, by whatever, goes on where it was when the command is run
again. It starts over if the installation was in use since.

--undo takes the embedded store back into use, without what happened on PostgreSQL since. Stop the service there first.`,
		Args: noArgs,
	}
	data, file := dataFlag(cmd), configFlag(cmd)
	to := cmd.Flags().String("to", "", "postgres:// address of an empty database")
	undo := cmd.Flags().Bool("undo", false, "take the embedded store back into use")
	asJSON := jsonFlag(cmd, "print what was copied as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needData(*data); err != nil {
			return err
		}
		switch {
		case *undo && *to != "":
			return usageError{errors.New("--undo is about the embedded store alone: leave --to out")}
		case !*undo && *to == "":
			return usageError{errors.New("name an empty database with --to, such as postgres://latchkey@db.example.net/latchkey?sslmode=verify-full")}
		}
		cfg, err := config.Load(*data, *file, os.Getenv, nil)
		if err != nil {
			return err
		}
		if *undo {
			return undoCopy(cmd, cfg, *asJSON)
		}
		watch := copyWatch{out: cmd.ErrOrStderr(), visible: terminal(cmd.ErrOrStderr())}
		report, err := daemon.Copy(cmd.Context(), cfg, daemon.CopyPlan{To: *to, Progress: watch.step})
		watch.end()
		if err != nil {
			return err
		}
		return tellCopy(cmd, *asJSON, *to, report)
	}
	return cmd
}

func undoCopy(cmd *cobra.Command, cfg config.Config, asJSON bool) error {
	place, err := daemon.UndoCopy(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	return tellValue(cmd, asJSON, map[string]any{"movedTo": place, "undone": true},
		"The embedded store is in use again, without what happened on %s since. Let no service run there: devices would have two.", printable(place))
}

// tellCopy says what is to be done next. The address holds no password, or it had been refused.
func tellCopy(cmd *cobra.Command, asJSON bool, to string, report daemon.CopyReport) error {
	done := map[string]any{"place": report.Place, "store": to, "rows": report.Rows, "already": report.Already}
	if report.Already {
		return tellValue(cmd, asJSON, done, "The installation was copied to %s before; it is served from there.", printable(report.Place))
	}
	return tellValue(cmd, asJSON, done, `Copied %d rows to %s, compared them and checked what they hold.
The embedded store is not served any more. Put this into latchkey.yaml, and start the service:

store: %q

Further nodes need the same master.key, tls and latchkey.yaml in a data directory of their own.`, report.Rows, printable(report.Place), to)
}

// copyWatch shows how a copy goes.
type copyWatch struct {
	out     io.Writer
	visible bool
	began   time.Time // of this kind of step
	what    string
	first   int64 // rows that were done when it began
	told    time.Time
}

func (w *copyWatch) step(step daemon.CopyStep) error {
	if step.StartedOver {
		w.say("The installation was in use since the copy was interrupted: it starts over.")
	} else if step.Resumed {
		w.say("A copy was interrupted: it goes on.")
	}
	now := time.Now()
	if step.What != w.what {
		w.what, w.began, w.first = step.What, now, step.Rows
	}
	if w.visible && step.Table != "" && now.Sub(w.told) > 500*time.Millisecond {
		w.told = now
		fmt.Fprintf(w.out, "\r\x1b[K%s %s: %s", step.What, step.Table, w.rate(step, now))
	}
	return nil
}

func (w *copyWatch) rate(step daemon.CopyStep, now time.Time) string {
	text := fmt.Sprintf("%d rows", step.Rows)
	if took := now.Sub(w.began).Seconds(); took > 1 {
		text += fmt.Sprintf(", %.0f a second", float64(step.Rows-w.first)/took)
	}
	return text + fmt.Sprintf(", %d%%", min(100, 100*step.Rows/max(step.Total, 1)))
}

func (w *copyWatch) say(sentence string) {
	w.end()
	fmt.Fprintln(w.out, sentence)
}

func (w *copyWatch) end() {
	if w.visible {
		fmt.Fprint(w.out, "\r\x1b[K")
	}
}
