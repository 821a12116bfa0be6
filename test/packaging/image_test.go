package packaging

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// bundle is an image as umoci, which is not ours, makes it ready for a container runtime.
type bundle struct {
	dir string
	run runtimeConfig
}

// runtimeConfig is what of config.json says how the process runs (OCI Runtime Specification).
type runtimeConfig struct {
	Process struct {
		User struct{ UID, GID uint32 }
		Args []string
		Env  []string
		Cwd  string
	}
}

// imageConfig is what an image says of its containers (OCI Image Format Specification).
type imageConfig struct {
	User         string
	ExposedPorts map[string]struct{}
	Env          []string
	Entrypoint   []string
	Cmd          []string
	Volumes      map[string]struct{}
	WorkingDir   string
}

// layout is the image that make builds, unpacked.
func layout(t *testing.T) string {
	t.Helper()
	source(t)
	dir := t.TempDir()
	run(t, "tar", "-xf", built.image, "-C", dir)
	return dir
}

func unbundle(t *testing.T, layout string) bundle {
	t.Helper()
	dir, err := os.MkdirTemp("", "latchkey-image") // the image's account must be able to look into it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	b := bundle{dir: filepath.Join(dir, "bundle")}
	tag := strings.TrimSpace(run(t, "umoci", "list", "--layout", layout))
	command := []string{"umoci", "unpack", "--image", layout + ":" + tag}
	if os.Geteuid() != 0 {
		command = append(command, "--rootless")
	}
	run(t, append(command, b.dir)...)
	text, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &b.run))
	return b
}

func (b bundle) path(p string) string { return filepath.Join(b.dir, "rootfs", p) }

// command prepares the image's process, with other arguments after the entry point. As root it sees nothing but the image and is the image's account.
func (b bundle) command(arguments ...string) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd := environment(exec.Command(b.run.Process.Args[0], arguments...), b.run.Process.Env)
		cmd.Dir = b.run.Process.Cwd
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.path("/"), Credential: &syscall.Credential{Uid: b.run.Process.User.UID, Gid: b.run.Process.User.GID}}
		return cmd
	}
	cmd := environment(exec.Command(b.path(b.run.Process.Args[0]), arguments...), b.run.Process.Env)
	cmd.Env = append(cmd.Env, "LATCHKEY_DATA="+b.path("var/lib/latchkey"))
	return cmd
}

func TestTheImageServesAsItsOwnAccountWithNothingElseInIt(t *testing.T) {
	b := unbundle(t, layout(t))
	if user := b.run.Process.User; user.UID == 0 || user.GID == 0 {
		t.Errorf("the image's process is root: %+v", user)
	}
	if want := []string{"/usr/bin/latchkey", "serve"}; !slices.Equal(b.run.Process.Args, want) {
		t.Errorf("the image runs %q", b.run.Process.Args)
	}
	said(t, b.command("init", "--host", host))
	https, stop := serve(t, b.command("serve"))
	healthy(t, https, b.path("var/lib/latchkey/tls/ca.crt"))
	stop()
	found := strings.Fields(run(t, "find", b.path("/"), "-type", "f", "-perm", "/111", "-printf", "/%P\n"))
	if !slices.Equal(found, []string{"/usr/bin/latchkey"}) {
		t.Errorf("what can be run in the image: %q", found)
	}
}

// An engine that follows packaging/Containerfile must end with what make image builds.
func TestTheContainerfileSaysWhatTheImageSays(t *testing.T) {
	dir := layout(t)
	config := configOf(t, dir)
	text, err := os.ReadFile(filepath.Join(source(t), "packaging/Containerfile"))
	must(t, err)
	_, last, found := strings.Cut(string(text), "\nFROM scratch\n")
	if !found {
		t.Fatal("the Containerfile does not end with an image from scratch")
	}
	quoted := func(words []string) string {
		b, _ := json.Marshal(words)
		return strings.ReplaceAll(string(b), ",", ", ")
	}
	want := []string{
		"COPY --from=build /image /",
		"ENV " + strings.Join(config.Env, " "),
		"USER " + config.User,
		"WORKDIR " + config.WorkingDir,
		"VOLUME " + strings.Join(keys(config.Volumes), " "),
		"EXPOSE " + strings.Join(keys(config.ExposedPorts), " "),
		"ENTRYPOINT " + quoted(config.Entrypoint),
		"CMD " + quoted(config.Cmd),
	}
	if got := lines(last); !slices.Equal(got, want) {
		t.Errorf("the Containerfile says\n%s\nand the image says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func configOf(t *testing.T, layout string) imageConfig {
	t.Helper()
	blob := func(digest string, v any) {
		text, err := os.ReadFile(filepath.Join(layout, "blobs", strings.Replace(digest, ":", "/", 1)))
		must(t, err)
		must(t, json.Unmarshal(text, v))
	}
	index, err := os.ReadFile(filepath.Join(layout, "index.json"))
	must(t, err)
	var manifest struct{ Config struct{ Digest string } }
	blob(regexp.MustCompile(`sha256:[0-9a-f]+`).FindString(string(index)), &manifest)
	var image struct{ Config imageConfig }
	blob(manifest.Config.Digest, &image)
	return image.Config
}

func keys(set map[string]struct{}) []string {
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
