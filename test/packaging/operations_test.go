package packaging

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/test/pgserver"
	"latchkey.example/latchkey/test/rig"
)

// stage is what stands in for the server of docs/operations.md while its commands run: its service manager, its accounts, its directories.
const stage = `
set -euo pipefail
service=$STAGE/var/lib/latchkey log=$STAGE/service.log
mkdir -p "$STAGE/var/lib"; : >"$log"

# within COMMAND...: polls what another process does.
within() {
  local n
  for n in $(seq 600); do "$@" && return; sleep 0.05; done
  echo "not within 30 s: $*" >&2; tail -n 20 "$log" >&2; return 1
}
said() { [ "$(grep -c "$1" "$log")" -gt "$2" ]; }
count() { grep -c "$1" "$log" || true; }

runuser() { [ "$1 $2 $3" = "-u latchkey --" ]; shift 3; "$@"; }

latchkey() {
  local about=() made=$STAGE/made
  if [ -e "$made" ] && [ "$1" != init ]; then
    about=("LATCHKEY_CONNECTION_STRING=$(sed -n 's/^Connection string *//p' "$made")" "LATCHKEY_CA_FILE=$service/tls/ca.crt" "LATCHKEY_CONNECT=$(sed -n 's/.*what=https addr=//p' "$log" | tail -n 1)")
  fi
  if [ "$1" = init ] && [[ "$*" != *--store* ]]; then "$PROGRAM" "$@" | tee "$made"; else env "${about[@]}" "$PROGRAM" "$@"; fi
}

systemctl() {
  local before
  case "$1" in
  enable | start)
    before=$(count 'what=https')
    LATCHKEY_HTTPS=127.0.0.1:0 LATCHKEY_MQTT=127.0.0.1:0 LATCHKEY_METRICS=127.0.0.1:0 setpriv --pdeathsig KILL "$PROGRAM" serve --data "$service" 2>>"$log" &
    pid=$!; within said 'what=https' "$before" ;;
  reload) before=$(count 'msg=reloaded'); kill -HUP "$pid"; within said 'msg=reloaded' "$before" ;;
  stop) kill "$pid"; wait "$pid" ;;
  *) echo "systemctl $* is not played here" >&2; return 1 ;;
  esac
}
trap '[ -z "${pid:-}" ] || kill "$pid" 2>/dev/null || true' EXIT
`

// frame is a piece of a page between fences.
type frame struct {
	kind, text string
	line       int
}

func frames(page string) (all []frame) {
	var open *frame
	for n, line := range strings.Split(page, "\n") {
		kind, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &frame{kind: kind, line: n + 1}
		case fence:
			all, open = append(all, *open), nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return all
}

func operations(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(source(t), "docs/operations.md"))
	must(t, err)
	return string(text)
}

// All commands of the page run, in their order, against services and a PostgreSQL of the test's own. Only places and addresses are replaced.
func TestTheCommandsOfTheOperationsPageWork(t *testing.T) {
	dir := t.TempDir()
	server, err := pgserver.Start()
	must(t, err)
	defer func() { must(t, server.Stop()) }()
	must(t, server.Psql(t.Context(), "postgres", "CREATE DATABASE latchkey"))
	address := regexp.MustCompile(`postgres://latchkey@db\.example\.net/(\w+)\?sslmode=verify-full`)
	script, ran := stage, 0
	for _, f := range frames(operations(t)) {
		if f.kind != "sh" {
			continue
		}
		text := strings.ReplaceAll(f.text, "/var/lib/latchkey", dir+"/var/lib/latchkey")
		text = address.ReplaceAllStringFunc(text, func(s string) string { return server.Address(address.FindStringSubmatch(s)[1]) })
		script += fmt.Sprintf("echo '== line %d' >&2\n%s", f.line, text)
		ran += strings.Count(f.text, "\n")
	}
	if ran < 25 {
		t.Fatalf("only %d lines of commands were found", ran)
	}
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	must(t, err)
	program, err := only(filepath.Join(unpacked(t), "usr/bin/latchkey"))
	must(t, err)
	result, err := rig.Run(t.Context(), rig.Command{Path: "bash", Args: []string{"-c", script},
		Env: []string{"STAGE=" + dir, "PROGRAM=" + program, "PATH=" + strings.Join(append(programs, os.Getenv("PATH")), ":")}})
	if err != nil {
		t.Fatalf("%v\nall it said:\n%s%s", err, result.Stdout, result.Stderr)
	}
}

// Settings that the page shows are such that a service would take.
func TestTheSettingsOfTheOperationsPageLoad(t *testing.T) {
	for _, f := range frames(operations(t)) {
		switch f.kind {
		case "yaml":
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, config.FileName), []byte(f.text), 0o600))
			if _, err := config.Load(dir, "", func(string) string { return "" }, nil); err != nil {
				t.Errorf("line %d: %v", f.line, err)
			}
		case "sh", "text":
		default:
			t.Errorf("line %d: a frame of the kind %q is tested by nobody", f.line, f.kind)
		}
	}
}

// What the page tells people to watch is there under that name.
func TestWhatTheOperationsPageWatchesExists(t *testing.T) {
	page, code := operations(t), sources(t)
	var watched []string
	for _, name := range regexp.MustCompile("`latchkey_([a-z_]+)").FindAllStringSubmatch(page, -1) {
		watched = append(watched, name[1])
		_, short, _ := strings.Cut(name[1], "_") // hub and store are subsystems in some places
		if !strings.Contains(code, `"latchkey_`+name[1]+`"`) && !strings.Contains(code, `"`+short+`"`) {
			t.Errorf("there is no metric latchkey_%s", name[1])
		}
	}
	for _, reason := range regexp.MustCompile(`reason="([a-z-]+)"`).FindAllStringSubmatch(page, -1) {
		watched = append(watched, reason[1])
		if !strings.Contains(code, `{"`+reason[1]+`", "`) {
			t.Errorf("there is no reason %s", reason[1])
		}
	}
	_, list, _ := strings.Cut(page, "Of level WARN: ")
	list, _, _ = strings.Cut(list, "\n")
	for _, message := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
		watched = append(watched, message[1])
		if !strings.Contains(code, `Warn("`+message[1]) {
			t.Errorf("nothing warns %q", message[1])
		}
	}
	if len(watched) < 15 {
		t.Errorf("only %q are watched", watched)
	}
}

// sources is all code of the service.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	must(t, filepath.WalkDir(filepath.Join(source(t), "internal"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	}))
	return all.String()
}
