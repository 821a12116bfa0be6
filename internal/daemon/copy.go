package daemon

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/fsck"
	"latchkey.example/latchkey/internal/keyring"
	"latchkey.example/latchkey/internal/store/postgres"
	"latchkey.example/latchkey/internal/store/sqlite"
)

// CopyPlan says where an installation is copied.
type CopyPlan struct {
	To   string // postgres:// address of a database that is empty, or that an interrupted copy of the same installation was filling
	Page int    // rows in one transaction; zero means 5,000
	// Progress, if there is one, is told of each step once it is done. An error ends the copy there; it goes on from there when it is run again.
	Progress func(CopyStep) error
}

// CopyStep is a step that is done.
type CopyStep struct {
	What        string // begun, copied, compared, checked, moved, finished
	Table       string // that is copied or compared
	Rows        int64  // of all tables that are copied, or compared, so far
	Total       int64  // of all tables
	Resumed     bool   // with begun: an interrupted copy goes on
	StartedOver bool   // with begun: an interrupted copy starts over, because the installation was in use since
}

// CopyReport says what was copied.
type CopyReport struct {
	Place   string // of the copy, without secrets
	Rows    int64
	Already bool // it was complete before
	Checked fsck.Summary
}

// Bounds of one transaction.
const (
	copyPage  = 5_000
	copyBytes = 8 << 20
)

// copier is one run.
type copier struct {
	ctx    context.Context
	plan   CopyPlan
	source *sqlite.CopySource
	target *postgres.CopyTarget
	id     string
	total  int64
}

// Copy copies an installation from the embedded store to PostgreSQL. No service may run on it. What is copied is compared whole, row by row,
// and checked by fsck; then the embedded store says that it was moved and is not served any more, and the copy is. A copy that
// was interrupted, by whatever, goes on where it was; it starts over if the installation was in use since.
func Copy(ctx context.Context, cfg config.Config, plan CopyPlan) (report CopyReport, err error) {
	if plan.To == "" {
		return CopyReport{}, errors.New("a copy needs the postgres:// address of a database")
	}
	if err := config.CheckStore(plan.To); err != nil {
		return CopyReport{}, fmt.Errorf("where to copy: %w", err)
	}
	source, release, err := openCopySource(ctx, cfg)
	if err != nil {
		return CopyReport{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	ring, err := keyring.Open(cfg.MasterKey)
	if err != nil {
		return CopyReport{}, fmt.Errorf("the master key: %w", err)
	}
	c := &copier{ctx: ctx, plan: plan, source: source}
	if err := c.begin(); err != nil {
		return CopyReport{}, err
	}
	defer func() { err = errors.Join(err, c.target.Close()) }()
	report.Place = c.target.Place()
	if report.Already = c.target.State() == postgres.CopyComplete; report.Already {
		return report, nil
	}
	if report.Rows, err = c.copy(); err != nil {
		return report, err
	}
	if err := c.compare(); err != nil {
		return report, err
	}
	if report.Checked, err = checkCopy(ctx, plan.To, ring); err != nil {
		return report, err
	}
	if err := c.told(CopyStep{What: "checked"}); err != nil {
		return report, err
	}
	return report, c.handOver()
}

// openCopySource opens the embedded store where nobody serves it.
func openCopySource(ctx context.Context, cfg config.Config) (source *sqlite.CopySource, release func() error, err error) {
	if _, err := os.Stat(cfg.Database); err != nil {
		return nil, nil, fmt.Errorf("there is no database: %w", err)
	}
	lock, err := lockInstallation(cfg.Database)
	if err != nil {
		return nil, nil, err
	}
	unlock := func() error {
		if lock == nil { // where the system has none
			return nil
		}
		return lock.Close()
	}
	if source, err = sqlite.OpenCopySource(ctx, cfg.Database); err != nil {
		return nil, nil, errors.Join(err, unlock())
	}
	return source, func() error { return errors.Join(source.Close(), unlock()) }, nil
}

// begin notes at both ends which copy this is.
func (c *copier) begin() error {
	if !slices.EqualFunc(sqlite.CopyTables(), postgres.CopyTables(), slices.Equal) {
		return errors.New("the two stores do not agree on the tables that are copied: this build is broken")
	}
	identity, err := c.source.Identity()
	if err != nil {
		return err
	}
	id, moved, err := c.source.Copy()
	if err != nil {
		return err
	}
	if place := postgres.Place(c.plan.To); moved != "" && moved != place {
		return fmt.Errorf("the installation was moved to %s already", moved)
	}
	if c.id = id; id == "" {
		c.id = rand.Text()
		if err := c.source.Begin(c.id); err != nil {
			return err
		}
	}
	c.target, err = postgres.OpenCopyTarget(c.ctx, c.plan.To, postgres.CopyStart{Source: identity, ID: c.id, Begun: moved != ""})
	if err != nil {
		return err
	}
	for _, table := range sqlite.CopyTables() {
		n, err := c.source.Count(table[0])
		if err != nil {
			return errors.Join(err, c.target.Close())
		}
		c.total += n
	}
	err = c.told(CopyStep{What: "begun", Resumed: c.target.State() == postgres.CopyResumed, StartedOver: c.target.State() == postgres.CopyOver})
	if err != nil {
		err = errors.Join(err, c.target.Close())
	}
	return err
}

// copy copies every table from where it was left.
func (c *copier) copy() (rows int64, err error) {
	for _, table := range sqlite.CopyTables() {
		after, copied, err := c.target.Progress(c.ctx, table[0])
		if err != nil {
			return 0, err
		}
		rows += copied
		for {
			page, last, err := c.source.Page(table[0], after, cmp.Or(c.plan.Page, copyPage), copyBytes)
			if err != nil {
				return 0, fmt.Errorf("reading %s: %w", table[0], err)
			}
			if len(page) == 0 {
				break
			}
			if err := c.target.Write(c.ctx, table[0], page, last); err != nil {
				return 0, fmt.Errorf("copying %s (run it again, it goes on where it was): %w", table[0], err)
			}
			after, rows = last, rows+int64(len(page))
			if err := c.told(CopyStep{What: "copied", Table: table[0], Rows: rows}); err != nil {
				return 0, err
			}
		}
	}
	numbers, err := c.source.Numbers()
	if err != nil {
		return 0, err
	}
	return rows, c.target.GoOn(c.ctx, numbers)
}

func (c *copier) told(step CopyStep) error {
	if step.Total = c.total; c.plan.Progress == nil {
		return c.ctx.Err()
	}
	return errors.Join(c.plan.Progress(step), c.ctx.Err())
}

// checkCopy holds what was copied against the promises.
func checkCopy(ctx context.Context, to string, ring *keyring.Ring) (sum fsck.Summary, err error) {
	store, err := postgres.Open(ctx, to, postgres.Options{Filling: true})
	if err != nil {
		return fsck.Summary{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var first fsck.Problem
	sum, err = fsck.Check(ctx, store, ring, func(p fsck.Problem) {
		if first == (fsck.Problem{}) {
			first = p
		}
	})
	if err == nil && sum.Problems > 0 {
		err = fmt.Errorf("the copy is what the embedded store holds, and that has %d problems, the first: %s; latchkey fsck tells all", sum.Problems, first)
	}
	return sum, err
}

// handOver ends the service of the source before that of the copy can begin: never both.
func (c *copier) handOver() error {
	if err := c.source.Moved(c.id, c.target.Place()); err != nil {
		return err
	}
	if err := c.told(CopyStep{What: "moved"}); err != nil {
		return err
	}
	if err := c.target.Finish(c.ctx); err != nil {
		return fmt.Errorf("the copy is whole, but could not be told so: run it again: %w", err)
	}
	return c.told(CopyStep{What: "finished"})
}

// UndoCopy takes an embedded store back into use whose installation was moved, and returns to where. What happened there since is not in it.
func UndoCopy(ctx context.Context, cfg config.Config) (place string, err error) {
	source, release, err := openCopySource(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	if _, place, err = source.Copy(); err != nil {
		return "", err
	}
	if place == "" {
		return "", fmt.Errorf("the installation of %s was not moved: there is nothing to undo", cfg.Database)
	}
	return place, source.Return()
}
