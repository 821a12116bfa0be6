package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/template"

	"latchkey.example/latchkey/test/cluster"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// setup is what runs: the cluster, and a TPM for the device agent.
type setup struct {
	*cluster.Cluster
	dir string
	tpm string // as the agent's --tpm takes it
	say *diary
}

// run starts all, tells how to use it, and keeps it until ctx ends.
func run(ctx context.Context, w io.Writer, bin, dir string) (err error) {
	lock, err := claim(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	programs, err := rig.ProgramsIn(bin)
	if err != nil {
		return err
	}
	s := &setup{dir: dir, say: &diary{w: w}}
	s.say.line("starting PostgreSQL, three nodes and HAProxy")
	s.Cluster, err = cluster.Start(cluster.Config{Programs: programs, Dir: dir, Log: s.newLog})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	tpm, end, err := serveTPM()
	if err != nil {
		return err
	}
	defer end()
	s.tpm = tpm
	if err := s.writeEnv(bin); err != nil {
		return err
	}
	if err := s.explain(w); err != nil {
		return err
	}
	s.watch(ctx)
	s.say.line("ending: nodes finish what they are at, then PostgreSQL goes and all files with it")
	return nil
}

// newLog is where a node's log goes.
func (s *setup) newLog(node int) io.Writer {
	return &nodeLog{say: s.say, node: node, path: filepath.Join(s.dir, fmt.Sprintf("node%d.log", node+1))}
}

// serveTPM offers a simulated TPM to the agent.
func serveTPM() (spec string, end func(), err error) {
	tpm, err := simtpm.OpenSimulator()
	if err != nil {
		return "", nil, err
	}
	front, err := simtpm.ServeFront("127.0.0.1:0", tpm, tpm.PowerCycle)
	if err != nil {
		return "", nil, errors.Join(err, tpm.Close())
	}
	return front.Spec(), func() { front.Close(); tpm.Close() }, nil
}

// writeEnv writes what a shell needs for both programs. The connection string is in it, so that it is for its owner alone.
func (s *setup) writeEnv(bin string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "export PATH=%s:\"$PATH\"\n", quote(bin))
	agent := s.AgentEnv(rig.Device{TPM: s.tpm, StateDir: filepath.Join(s.dir, "device")})
	for _, entry := range append(s.OperatorEnv(), agent...) {
		name, value, _ := strings.Cut(entry, "=")
		fmt.Fprintf(&text, "export %s=%s\n", name, quote(value))
	}
	return os.WriteFile(s.envFile(), []byte(text.String()), 0o600)
}

func (s *setup) envFile() string { return filepath.Join(s.dir, "env") }

// quote is a word of the shell.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// here shortens a path for a person who is in the directory that we were started in.
func here(path string) string {
	if dir, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(dir, path); err == nil && !strings.HasPrefix(short, "..") {
			return short
		}
	}
	return path
}

var explanation = template.Must(template.New("").Funcs(template.FuncMap{"here": here, "inc": func(i int) int { return i + 1 }}).Parse(`
Latchkey on {{len .Nodes}} nodes, all of it on this machine

  HTTPS       {{.HTTPS}}   HAProxy: each connection goes to the next node that is ready
  MQTT        {{.MQTT}}   HAProxy: to node 1, which serves the hub
{{- range $i, $n := .Nodes}}
  node {{inc $i}}      {{$n.HTTPS}}   pid {{$n.PID}}, metrics http://{{$n.Metrics}}/metrics
{{- end}}
  PostgreSQL  pid {{.Database.PID}}; psql "{{.Database.Address "postgres"}}"
  name        {{.Host}} (nothing resolves it: the programs are told where to connect)
  ID scope    {{.IDScope}}
  CA          {{here .CAFile}}
  logs        {{here .Dir}}/node1.log and so on
  TPM         {{.TPM}}, simulated

Use it from another terminal. The first line sets the connection string, the addresses, the CA and the TPM for both programs:

  . {{here .EnvFile}}
  latchkey-device ek --json | latchkey enroll add --from-device -
  latchkey-device register
  latchkey registration list
  latchkey fsck --data {{here (index .Nodes 0).DataDir}}
  curl --cacert {{here .CAFile}} --connect-to {{.Host}}:443:{{.HTTPS}} https://{{.Host}}/readyz

Break it, and register again:

  kill -9 {{(index .Nodes 1).PID}}        node 2 is gone; HAProxy goes on with the others; it is started again after {{.Pause}}
  kill -9 {{.Database.PID}}        PostgreSQL is gone; the nodes answer 503 and go on by themselves when it is back

Below: each request and the node that answered it. Ctrl-C or make cluster-stop ends all of it, and nothing is kept.

`))

func (s *setup) explain(w io.Writer) error {
	return explanation.Execute(w, struct {
		*cluster.Cluster
		Dir, TPM, EnvFile, Pause string
	}{s.Cluster, s.dir, s.tpm, s.envFile(), restartPause.String()})
}

// watch keeps what runs running, until ctx ends or the load balancer does.
func (s *setup) watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var keepers sync.WaitGroup
	for i, node := range s.Nodes {
		keepers.Go(func() { s.keep(ctx, fmt.Sprintf("node %d", i+1), node) })
	}
	keepers.Go(func() { s.keep(ctx, "PostgreSQL", s.Database) })
	select {
	case <-ctx.Done():
	case <-s.Balancer.Done():
		s.say.line("HAProxy has ended, and nobody leads to the nodes any more")
		cancel()
	}
	keepers.Wait()
}
