package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/dps"
)

// exitPartly is the exit code of a move after which something of the source is not, or not the same, at the target, and of an
// import that was cut off.
const exitPartly = 3

// moveFlags are what `move-in dps` can be told.
type moveFlags struct {
	file, certificates                    string
	dryRun, replace, dropHubs, skipStates bool
	mapHubs                               map[string]string
	from                                  profile
	found                                 map[[32]byte][]byte // certificates of the folder, by SHA-256
}

func moveInCommand() *cobra.Command {
	cmd := group("move-in", "Take over what another service holds")
	connect := clientFlags(cmd)
	cmd.AddCommand(moveInDPS(connect))
	return cmd
}

func moveInDPS(connect func() (*client, error)) *cobra.Command {
	var f moveFlags
	cmd := &cobra.Command{
		Use:   "dps (--from CONNECTIONSTRING | --file FILE)",
		Short: "Move in from a Device Provisioning Service: enrollments and groups, and the device ids of what has registered",
		Long: `Move in from a Device Provisioning Service, or anything with its management API: individual enrollments, enrollment groups, and the device ids
that registrations show. The source is only read. What is at the target already is compared: the same is left as it is, something else too unless
--replace is given; so a move that was cut off is completed by the same command, and twice is the same as once.

Entries of TPMs hold public keys only and move without touching a device. Symmetric keys move, if the source's access policy may read them. The
source never gives certificates: of a device its thumbprint is enough; those of a group's CA are looked for in --certificates.

--file takes what 'az iot dps enrollment list -o json' and 'enrollment-group list' print, one JSON object a line, or an export of Latchkey's own.
Exit code 3: something could not move, or is different at the target; the report names it and says what to do.`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.from.ConnectionString, "from", "", "connection string of the source (LATCHKEY_FROM_CONNECTION_STRING; better there)")
	flags.StringVar(&f.from.Connect, "from-connect", os.Getenv("LATCHKEY_FROM_CONNECT"), "address to dial in place of the source's host (LATCHKEY_FROM_CONNECT)")
	flags.StringVar(&f.from.CAFile, "from-ca-file", os.Getenv("LATCHKEY_FROM_CA_FILE"), "PEM file of the CA of the source, in place of the system's (LATCHKEY_FROM_CA_FILE)")
	flags.StringVar(&f.file, "file", "", "file to read in place of a service, - for standard input")
	flags.StringVar(&f.certificates, "certificates", "", "folder with certificates of CAs, PEM or DER")
	flags.BoolVar(&f.dryRun, "dry-run", false, "write nothing and say what would be done")
	flags.BoolVar(&f.replace, "replace", false, "replace entries that are different at the target")
	flags.BoolVar(&f.dropHubs, "drop-hubs", false, "leave out the hubs that an entry names, and move it all the same")
	flags.StringToStringVar(&f.mapHubs, "map-hub", nil, "OLD=NEW: name the hub NEW where an entry names OLD; give it again for more")
	flags.BoolVar(&f.skipStates, "skip-states", false, "do not read each device's registration: faster, but device ids that only it knows are lost")
	asJSON := jsonFlag(cmd, "print the report as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		source, err := f.source(cmd)
		if err != nil {
			return err
		}
		target, err := connect()
		if err != nil {
			return err
		}
		m := &mover{flags: &f, target: &patientClient{client: target}, report: newMoveReport(f.dryRun), meter: newMeter(cmd.ErrOrStderr())}
		err = m.run(cmd.Context(), source)
		m.meter.end()
		if err != nil {
			return fmt.Errorf("the move is not complete, and the same command goes on with it: %w", err)
		}
		if err := m.report.print(cmd.OutOrStdout(), *asJSON); err != nil {
			return err
		}
		if left := m.report.left(); left > 0 {
			return partlyError{fmt.Errorf("%d entries did not move; the report says why", left)}
		}
		return nil
	}
	return cmd
}

// partlyError is an error that ends with exitPartly.
type partlyError struct{ error }

// moveSource gives entries one by one, as the source's JSON.
type moveSource interface {
	each(ctx context.Context, report *moveReport, do func(sourceEntry) error) error
}

// sourceEntry is one entry of the source.
type sourceEntry struct {
	group bool
	id    string
	body  json.RawMessage // with symmetric keys
	state *dps.RegistrationState
	err   error // why it could not be read whole
}

func (f *moveFlags) source(cmd *cobra.Command) (moveSource, error) {
	if f.certificates != "" {
		var err error
		if f.found, err = readFolder(f.certificates); err != nil {
			return nil, err
		}
	}
	if f.from.ConnectionString == "" && f.file == "" {
		f.from.ConnectionString = os.Getenv("LATCHKEY_FROM_CONNECTION_STRING")
	}
	switch {
	case (f.from.ConnectionString == "") == (f.file == ""):
		return nil, usageError{errors.New("name one source: --from CONNECTIONSTRING (or LATCHKEY_FROM_CONNECTION_STRING), or --file FILE")}
	case f.file == "-":
		return fileSource{cmd.InOrStdin()}, nil
	case f.file != "":
		file, err := os.Open(f.file) // open until the process ends
		return fileSource{file}, err
	}
	c, err := newClient(f.from.ConnectionString, f.from.Connect, f.from.CAFile)
	if err != nil {
		return nil, fmt.Errorf("the source: %w", err)
	}
	c.prefix = "from-"
	return serviceSource{&patientClient{client: c}, f.skipStates}, nil
}

// readFolder reads the certificates of a folder; what is none is passed over.
func readFolder(folder string) (map[[32]byte][]byte, error) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	found := map[[32]byte][]byte{}
	for _, file := range files {
		name := filepath.Join(folder, file.Name())
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() { // no pipe, which might never end
			continue
		}
		if certificate, err := readCertificate(name); err == nil {
			found[sha256.Sum256(certificate.DER)] = certificate.DER
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM or DER", folder)
	}
	return found, nil
}

// moveReport is what became of a move.
type moveReport struct {
	mu     sync.Mutex
	lost   map[string]bool        // unknown members of the source, named once each
	more   map[*[]moveTrouble]int // troubles of each list that are beyond maxTroubles
	DryRun bool                   `json:"dryRun"`
	Moved  moveCounts             `json:"moved"` // with dryRun: would move
	Same   moveCounts             `json:"alreadyThere"`
	// Replaced are entries that were different and are not any more.
	Replaced   moveCounts     `json:"replaced"`
	Different  []moveTrouble  `json:"different"`
	CannotMove []moveTrouble  `json:"cannotMove"`
	Notes      []string       `json:"notes"`
	Groups     map[string]int `json:"registrationsMadeAnew"` // by group of the source: their devices register again
}

// moveCounts counts entries by mechanism; those of groups have "group " before it.
type moveCounts map[string]int

// moveTrouble is an entry that did not move, and why.
type moveTrouble struct {
	Kind   string `json:"kind"`
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

func newMoveReport(dryRun bool) *moveReport {
	return &moveReport{DryRun: dryRun, Moved: moveCounts{}, Same: moveCounts{}, Replaced: moveCounts{}, Different: []moveTrouble{}, CannotMove: []moveTrouble{},
		Notes: []string{}, Groups: map[string]int{}, lost: map[string]bool{}, more: map[*[]moveTrouble]int{}}
}

// maxTroubles bounds each list of the report; how many more there are, a note says.
const maxTroubles = 100_000

func (r *moveReport) trouble(list *[]moveTrouble, e sourceEntry, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(*list) == maxTroubles {
		r.more[list]++
		return
	}
	*list = append(*list, moveTrouble{kindName(e.group), e.id, reason})
}

// total is how many troubles of a list there were, named or not.
func (r *moveReport) total(list *[]moveTrouble) int { return len(*list) + r.more[list] }

// left is how many entries did not move.
func (r *moveReport) left() int { return r.total(&r.CannotMove) + r.total(&r.Different) }

// arrange puts what came from many workers into an order that is always the same, and says what was too much for it.
func (r *moveReport) arrange() {
	for _, list := range []*[]moveTrouble{&r.CannotMove, &r.Different} {
		slices.SortFunc(*list, func(a, b moveTrouble) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	}
	slices.Sort(r.Notes)
	for _, list := range []struct {
		troubles *[]moveTrouble
		what     string
	}{{&r.CannotMove, "cannot move"}, {&r.Different, "are different at the target"}} {
		if n := r.more[list.troubles]; n > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("%d entries more %s than the %d that are named here", n, list.what, maxTroubles))
		}
	}
}

func (r *moveReport) count(counts moveCounts, group bool, mechanism string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if group {
		mechanism = "group " + mechanism
	}
	counts[mechanism]++
}

func kindName(group bool) string {
	if group {
		return "group"
	}
	return "enrollment"
}

// note adds a sentence once.
func (r *moveReport) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.lost[text] && len(r.Notes) < 1000 {
		r.lost[text] = true
		r.Notes = append(r.Notes, text)
	}
}

// print is called once, when the move is done.
func (r *moveReport) print(w io.Writer, asJSON bool) error {
	r.arrange()
	if asJSON {
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return printJSON(w, data)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	moved := "Moved"
	if r.DryRun {
		moved = "Would move"
	}
	for _, line := range []struct {
		name   string
		counts moveCounts
	}{{moved, r.Moved}, {"Already there", r.Same}, {"Replaced", r.Replaced}} {
		fmt.Fprintf(t, "%s\t%s\n", line.name, line.counts)
	}
	fmt.Fprintf(t, "Different\t%d\nCannot move\t%d\n", r.total(&r.Different), r.total(&r.CannotMove))
	if err := t.Flush(); err != nil {
		return err
	}
	for _, list := range [][]moveTrouble{r.CannotMove, r.Different} {
		for _, trouble := range list {
			fmt.Fprintf(w, "%s %s: %s\n", trouble.Kind, printable(trouble.ID), printable(trouble.Reason))
		}
	}
	for _, group := range sortedKeys(r.Groups) {
		fmt.Fprintf(w, "group %s: %d registrations of its devices are made anew when the devices register\n", printable(group), r.Groups[group])
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", printable(note))
	}
	return nil
}

func (c moveCounts) String() string {
	total, parts := 0, []string{}
	for _, name := range sortedKeys(c) {
		total += c[name]
		parts = append(parts, fmt.Sprintf("%s %d", name, c[name]))
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}
