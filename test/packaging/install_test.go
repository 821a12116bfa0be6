package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"latchkey.example/latchkey/test/rig"
)

const host = "dps.example.net"

// machine is an empty root directory with a package database.
type machine struct {
	t     *testing.T
	dir   string
	state string // what fakeroot pretends, between its runs
}

func newMachine(t *testing.T) machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "latchkey-root") // other accounts must be able to look into it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	for _, folder := range []string{"info", "updates", "triggers"} {
		must(t, os.MkdirAll(filepath.Join(dir, "var/lib/dpkg", folder), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "var/lib/dpkg/status"), nil, 0o644))
	m := machine{t, dir, filepath.Join(t.TempDir(), "fakeroot")}
	must(t, os.WriteFile(m.state, nil, 0o600))
	return m
}

func (m machine) path(p string) string { return filepath.Join(m.dir, p) }

// root runs a program as root, or as what it takes for root, and gives all that it said.
func (m machine) root(command ...string) string {
	m.t.Helper()
	if os.Geteuid() != 0 {
		command = append([]string{"fakeroot", "-i", m.state, "-s", m.state, "--"}, command...)
	}
	result, err := rig.Run(m.t.Context(), rig.Command{Path: command[0], Args: command[1:]})
	must(m.t, err)
	return result.Stdout + result.Stderr
}

func (m machine) dpkg(arguments ...string) string {
	m.t.Helper()
	return m.root(append([]string{"dpkg", "--root=" + m.dir, "--log=/dev/null", "--force-script-chrootless", "--force-not-root", "--force-depends", "--force-confdef"}, arguments...)...)
}

// account is the uid and gid that the package made.
func (m machine) account() (uid, gid int) {
	m.t.Helper()
	text, err := os.ReadFile(m.path("etc/passwd"))
	must(m.t, err)
	f := regexp.MustCompile(`(?m)^latchkey:x:(\d+):(\d+):[^:]*:/var/lib/latchkey:/usr/sbin/nologin$`).FindSubmatch(text)
	if f == nil {
		m.t.Fatalf("there is no account latchkey without a shell in:\n%s", text)
	}
	uid, _ = strconv.Atoi(string(f[1]))
	gid, _ = strconv.Atoi(string(f[2]))
	return uid, gid
}

// latchkey prepares the installed program, under its account where this process may take another.
func (m machine) latchkey(arguments ...string) *exec.Cmd {
	m.t.Helper()
	cmd := exec.Command(m.path("usr/bin/latchkey"), arguments...)
	cmd.Dir = m.dir
	cmd.Env = []string{"LATCHKEY_DATA=" + m.path("var/lib/latchkey"), "PATH=" + os.Getenv("PATH")}
	if os.Geteuid() == 0 {
		uid, gid := m.account()
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return cmd
}

// serve runs the installed service; the test's end stops it.
func (m machine) serve() (https string, stop func()) {
	m.t.Helper()
	return serve(m.t, m.latchkey("serve"))
}

func (m machine) healthy(https string) {
	m.t.Helper()
	healthy(m.t, https, m.path("var/lib/latchkey/tls/ca.crt"))
}

// ownerAndMode asks under root's eyes, for fakeroot shows its owners to its own only.
func (m machine) ownerAndMode(path string) string {
	m.t.Helper()
	return strings.TrimSpace(m.root("stat", "-c", "%u:%g %a", m.path(path)))
}

func TestAnInstalledPackageServesAsItsOwnAccountAndKeepsItsData(t *testing.T) {
	m := newMachine(t)
	if said := m.dpkg("-i", deb(t)); !strings.Contains(said, "latchkey init --data /var/lib/latchkey") {
		t.Errorf("the package does not say what comes next: %s", said)
	}
	uid, gid := m.account()
	if got, want := m.ownerAndMode("var/lib/latchkey"), strconv.Itoa(uid)+":"+strconv.Itoa(gid)+" 700"; got != want {
		t.Errorf("the data directory has %s, want %s", got, want)
	}
	if got, want := m.ownerAndMode("etc/latchkey/latchkey.env"), "0:"+strconv.Itoa(gid)+" 640"; got != want {
		t.Errorf("latchkey.env has %s, want %s", got, want)
	}

	if said, err := m.latchkey("init", "--data", m.path("var/lib/latchkey"), "--host", host).CombinedOutput(); err != nil {
		t.Fatalf("latchkey init as the account: %v\n%s", err, said)
	}
	https, stop := m.serve()
	m.healthy(https)

	must(t, m.appendTo("etc/latchkey/latchkey.env", "LATCHKEY_LOG_LEVEL=warn\n"))
	key, err := os.ReadFile(m.path("var/lib/latchkey/master.key"))
	must(t, err)
	m.dpkg("-i", deb(t)) // an upgrade, while the service runs
	m.healthy(https)
	stop()
	if env, err := os.ReadFile(m.path("etc/latchkey/latchkey.env")); err != nil || !strings.Contains(string(env), "LATCHKEY_LOG_LEVEL=warn") {
		t.Errorf("an upgrade lost an edit of latchkey.env: %v", err)
	}

	for _, how := range []string{"--remove", "--purge"} {
		said := m.dpkg(how, "latchkey")
		if still, err := os.ReadFile(m.path("var/lib/latchkey/master.key")); err != nil || string(still) != string(key) {
			t.Fatalf("%s took the master key: %v", how, err)
		}
		if how == "--purge" && !strings.Contains(said, "/var/lib/latchkey is left as it is") {
			t.Errorf("a purge does not say that it leaves the data: %s", said)
		}
	}
	if _, err := os.Stat(m.path("usr/bin/latchkey")); err == nil {
		t.Error("the program is still there")
	}
	if _, err := os.Stat(m.path("etc/latchkey")); err == nil {
		t.Error("a purge left /etc/latchkey")
	}

	if said := m.dpkg("-i", deb(t)); strings.Contains(said, "latchkey init") {
		t.Errorf("installed again over its data, the package asks for a new installation: %s", said)
	}
	https, stop = m.serve()
	m.healthy(https)
	stop()
}

func TestAPurgeBeforeAnythingWasMadeLeavesNoDirectory(t *testing.T) {
	m := newMachine(t)
	m.dpkg("-i", deb(t))
	if said := m.dpkg("--purge", "latchkey"); strings.Contains(said, "is left as it is") {
		t.Errorf("a purge speaks of data that never was: %s", said)
	}
	if _, err := os.Stat(m.path("var/lib/latchkey")); err == nil {
		t.Error("the empty data directory is still there")
	}
}

func (m machine) appendTo(path, text string) error {
	f, err := os.OpenFile(m.path(path), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
