package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"latchkey.example/latchkey/internal/daemon"
)

// mediaTypes of the two forms.
var mediaTypes = map[string]string{"ndjson": "application/x-ndjson", "csv": "text/csv"}

// importFlags are what `enroll import` can be told.
type importFlags struct {
	format, ifExists string
	dryRun, all      bool
}

func enrollImport(connect func() (*client, error)) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Import many enrollments; FILE - is standard input",
		Long: `Import many enrollments, from one JSON object a line, or from CSV.

A line is an enrollment as 'enroll export' and 'enroll show --json' print it, or
    {"registrationId":"...","endorsementKey":"BASE64","deviceId":"...","provisioningStatus":"enabled","storageRootKey":"BASE64"}
of which only endorsementKey is needed. CSV has names of columns in its first line, in any order:

    registrationId, endorsementKey, deviceId, provisioningStatus, storageRootKey
    attestation                 tpm, x509 or symmetricKey; empty: told by the other cells
    primaryThumbprint,
    secondaryThumbprint         SHA-256 of the client certificates, hex
    symmetricKeys               withheld, or empty; see below
    allocationPolicy, iotHubs   hashed, geoLatency or static; host names with ; between them
    iotHubHostName, iotEdge     true or false
    tags, desired,
    optionalDeviceInformation   JSON objects
    updateHubAssignment,
    migrateDeviceData           true or false; both empty: no reprovision policy
    webhookUrl, webhookApiVersion

An export has no symmetric keys: it says symmetricKeys=withheld, and such a line keeps the keys of the enrollment that is there
(--if-exists replace) and fails where there is none, since no device would have keys that were made now. Leave it empty to have keys made;
'latchkey export --secrets' and 'latchkey move-in' carry keys over.

Each line succeeds or fails for itself; what failed is told on standard error, and makes the exit code 1. With --all-or-nothing nothing is
written if any line fails; it takes at most 10,000 lines.

The exit code 3 says that the import was cut off: the connection broke, the service stopped, or the access policy was changed. The same
command with --if-exists skip completes it; with --all-or-nothing nothing was written, or all.`,
		Args: oneArg("file, or - for standard input"),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "ndjson or csv; default: csv for a file whose name ends in .csv, otherwise ndjson")
	flags.StringVar(&f.ifExists, "if-exists", "error", "what is done with an enrollment that is there: error, skip or replace")
	flags.BoolVar(&f.all, "all-or-nothing", false, "write nothing if any line fails; at most 10,000 lines")
	flags.BoolVar(&f.dryRun, "dry-run", false, "change nothing and say what would be done")
	asJSON := jsonFlag(cmd, "print one JSON object a line, failures and then the summary")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query, media, err := f.query(args[0])
		if err != nil {
			return err
		}
		c, err := connect()
		if err != nil {
			return err
		}
		in, size := cmd.InOrStdin(), int64(0)
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			if info, err := file.Stat(); err == nil {
				size = info.Size()
			}
			in = file
		}
		progress := watch(in, size, cmd.ErrOrStderr())
		defer progress.end()
		answer, err := c.open(cmd.Context(), http.MethodPost, "/latchkey/v1/enrollments/import", query, media, progress)
		if err != nil {
			return cutOff(err, progress)
		}
		defer answer.Body.Close()
		return readImport(answer.Body, cmd.OutOrStdout(), progress, *asJSON)
	}
	return cmd
}

func (f *importFlags) query(file string) (query url.Values, media string, err error) {
	if f.format == "" {
		f.format = "ndjson"
		if strings.EqualFold(filepath.Ext(file), ".csv") {
			f.format = "csv"
		}
	}
	media, known := mediaTypes[f.format]
	if !known {
		return nil, "", usageError{errors.New("--format must be ndjson or csv")}
	}
	switch f.ifExists {
	case "error", "skip", "replace":
	default:
		return nil, "", usageError{errors.New("--if-exists must be error, skip or replace")}
	}
	query = url.Values{"ifExists": {f.ifExists}}
	if f.all {
		query.Set("atomic", "true")
	}
	if f.dryRun {
		query.Set("dryRun", "true")
	}
	return query, media, nil
}

// goOn says how an import that was cut off is completed.
const goOn = "import the same again with --if-exists skip"

// cutOff tells an import that the service may have begun from one that it refused or that never reached it.
func cutOff(err error, p *progress) error {
	var refusal *refused
	if errors.As(err, &refusal) || p.sent.Load() == 0 {
		return err
	}
	return partlyError{fmt.Errorf("%w; what was sent may be imported in part: %s", err, goOn)}
}

// importLine is a line of the service's answer: a failure, or the summary.
type importLine struct {
	Line                               uint64
	RegistrationID, Message            string
	ErrorCode                          int
	Read                               *uint64
	Created, Replaced, Skipped, Failed uint64
	Withheld                           uint64
	DryRun                             bool
	Incomplete                         string
}

// readImport tells each failure and the summary. An answer without a summary was cut off.
func readImport(answer io.Reader, out io.Writer, progress *progress, asJSON bool) error {
	lines := bufio.NewScanner(answer)
	lines.Buffer(nil, answerLimit)
	for lines.Scan() {
		var line importLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("the service's answer: %w", err)
		}
		if err := line.tell(lines.Bytes(), out, progress, asJSON); err != nil {
			return err
		}
		if line.Read != nil {
			return line.verdict()
		}
	}
	return partlyError{errors.Join(errors.New("the answer was cut off before its end; "+goOn), lines.Err())}
}

// tell prints the line: as it came, or the summary in words and a failure aside.
func (l *importLine) tell(raw []byte, out io.Writer, progress *progress, asJSON bool) error {
	if !asJSON && l.Read == nil {
		progress.say("line %d (%s): %s (errorCode %d)\n", l.Line, printable(l.RegistrationID), printable(l.Message), l.ErrorCode)
		return nil
	}
	progress.end()
	if asJSON {
		_, err := fmt.Fprintf(out, "%s\n", raw)
		return err
	}
	what, withheld := "", ""
	if l.DryRun {
		what = "Dry run, nothing was changed: "
	}
	if l.Withheld > 0 {
		withheld = fmt.Sprintf(", not written because of those %d", l.Withheld)
	}
	_, err := fmt.Fprintf(out, "%sread %d, created %d, replaced %d, skipped %d, failed %d%s\n", what, *l.Read, l.Created, l.Replaced, l.Skipped, l.Failed, withheld)
	return err
}

// verdict is what a summary says of the whole import.
func (l *importLine) verdict() error {
	switch {
	case l.Incomplete != "":
		return partlyError{errors.New("the import is not complete: " + strings.ReplaceAll(printable(l.Incomplete), "ifExists=skip", "--if-exists skip"))}
	case l.Failed > 0:
		return fmt.Errorf("%d lines failed", l.Failed)
	}
	return nil
}

func enrollExport(connect func() (*client, error)) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Export all enrollments",
		Long: `Export all enrollments, in order of their ids, as one JSON object a line or as CSV; 'enroll import' takes both.

CSV has the columns that 'enroll import --help' names. Cells that a spreadsheet could take for a formula, a number or a date begin with a ' there,
which the import takes off. Of certificates both forms have thumbprints only, and of symmetric keys that they are withheld: see there. --output is written whole or not at all.`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&format, "format", "", "ndjson or csv; default: csv for an output whose name ends in .csv, otherwise ndjson")
	output := fileFlag(cmd, "file to write; default: standard output")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if format == "" && strings.EqualFold(filepath.Ext(*output), ".csv") {
			format = "csv"
		} else if format == "" {
			format = "ndjson"
		}
		if mediaTypes[format] == "" {
			return usageError{errors.New("--format must be ndjson or csv")}
		}
		c, err := connect()
		if err != nil {
			return err
		}
		answer, err := c.open(cmd.Context(), http.MethodGet, "/latchkey/v1/enrollments/export", url.Values{"format": {format}}, "", nil)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if *output == "" {
			return copyExport(cmd.OutOrStdout(), answer.Body)
		}
		progress := watch(answer.Body, 0, cmd.ErrOrStderr())
		defer progress.end()
		if progress.visible {
			progress.total = c.countEnrollments(cmd.Context())
		}
		return writeWhole(*output, func(w io.Writer) error { return copyExport(w, progress) })
	}
	return cmd
}

func copyExport(w io.Writer, answer io.Reader) error {
	if _, err := io.Copy(w, answer); err != nil {
		return fmt.Errorf("the export is not whole: %w", err)
	}
	return nil
}

// writeWhole writes a file beside its place and moves it there when it is whole and on disk.
func writeWhole(name string, fill func(io.Writer) error) (err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file: it would be replaced by one", name) // a device, say
	}
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // for its owner's eyes
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	buffered := bufio.NewWriterSize(file, 64<<10)
	if err := errors.Join(fill(buffered), buffered.Flush(), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return err
	}
	return daemon.SyncFolder(filepath.Dir(name))
}
