package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"time"
)

// The account that the service runs under: a number that no machine gives to people, so that Kubernetes can check runAsNonRoot.
const (
	account = 65532
	user    = "65532:65532"
)

const dataDir = "/var/lib/latchkey"

// recipe is what an image is made of. packaging/Containerfile makes the same one with an engine; a test compares them.
type recipe struct {
	version     string
	created     time.Time
	licences    string // file
	authorities string // file
}

// image puts an image for one architecture into a layout.
func (r recipe) image(l *layout, arch, program string) (descriptor, error) {
	files, err := r.files(program)
	if err != nil {
		return descriptor{}, err
	}
	plain, err := archive(files, r.created)
	if err != nil {
		return descriptor{}, err
	}
	packed, err := compress(plain)
	if err != nil {
		return descriptor{}, err
	}
	config := imageConfig{
		Created: r.created, Architecture: arch, OS: "linux",
		Config: runConfig{
			User:         user,
			ExposedPorts: map[string]struct{}{"8443/tcp": {}, "8883/tcp": {}},
			// Ports below 1024 are not for everyone's containers, so HTTPS is at 8443 inside.
			Env:        []string{"PATH=/usr/bin", "HOME=" + dataDir, "LATCHKEY_DATA=" + dataDir, "LATCHKEY_HTTPS=:8443"},
			Entrypoint: []string{"/usr/bin/latchkey"},
			Cmd:        []string{"serve"},
			Volumes:    map[string]struct{}{dataDir: {}},
			WorkingDir: dataDir,
			Labels: map[string]string{
				"org.opencontainers.image.title":    "latchkey",
				"org.opencontainers.image.version":  r.version,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{digest(plain)}},
		History: []history{{Created: r.created, CreatedBy: "packaging/image"}},
	}
	return l.addImage(config, packed)
}

// file is an entry of a tar file. A name that ends in / is a directory.
type file struct {
	name  string
	mode  int64
	owner int
	text  []byte
}

// files are all there is in the image: there is no shell to run and no package to keep.
func (r recipe) files(program string) ([]file, error) {
	files := []file{
		{"etc/", 0o755, 0, nil},
		{"etc/passwd", 0o644, 0, []byte("latchkey:x:65532:65532:Latchkey:" + dataDir + ":/sbin/nologin\n")},
		{"etc/group", 0o644, 0, []byte("latchkey:x:65532:\n")},
		{"etc/ssl/", 0o755, 0, nil}, {"etc/ssl/certs/", 0o755, 0, nil},
		{"tmp/", 0o1777, 0, nil},
		{"usr/", 0o755, 0, nil}, {"usr/bin/", 0o755, 0, nil},
		{"usr/share/", 0o755, 0, nil}, {"usr/share/doc/", 0o755, 0, nil}, {"usr/share/doc/latchkey/", 0o755, 0, nil},
		{"var/", 0o755, 0, nil}, {"var/lib/", 0o755, 0, nil},
		{dataDir[1:] + "/", 0o700, account, nil}, // a new volume takes owner and mode from it
	}
	for _, from := range []struct {
		path, name string
		mode       int64
	}{
		{program, "usr/bin/latchkey", 0o755},
		{r.authorities, "etc/ssl/certs/ca-certificates.crt", 0o644},
		{r.licences, "usr/share/doc/latchkey/third-party-licenses", 0o644},
	} {
		text, err := os.ReadFile(from.path)
		if err != nil {
			return nil, err
		}
		files = append(files, file{from.name, from.mode, 0, text})
	}
	return files, nil
}

// archive is a tar file of them, all of one time.
func archive(files []file, modified time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		header := tar.Header{Name: f.name, Mode: f.mode, Uid: f.owner, Gid: f.owner, Size: int64(len(f.text)), ModTime: modified, Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}
		if f.name[len(f.name)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.text); err != nil {
			return nil, err
		}
	}
	err := w.Close() // before the bytes are taken: it writes the end
	return out.Bytes(), err
}

func compress(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	err := w.Close() // before the bytes are taken: it writes the end
	return out.Bytes(), err
}
