package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// read is what an archive holds.
func read(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// made builds an archive for some architectures, of programs that are only bytes.
func made(t *testing.T, archs ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	var programs []string
	for _, name := range append([]string{"ca", "licences"}, archs...) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("bytes of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, arch := range archs {
		programs = append(programs, arch+"="+filepath.Join(dir, arch))
	}
	r := recipe{version: "v1.2.3", created: time.Unix(1795478400, 0).UTC(), licences: filepath.Join(dir, "licences"), authorities: filepath.Join(dir, "ca")}
	output := filepath.Join(dir, "image.tar")
	if err := build(r, programs, output); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// walk follows every descriptor from the index down and gives the platforms of the images it comes to.
func walk(t *testing.T, files map[string][]byte) (platforms []string) {
	t.Helper()
	seen := map[string]bool{"oci-layout": true, "index.json": true}
	var follow func(d descriptor)
	follow = func(d descriptor) {
		name := "blobs/" + strings.Replace(d.Digest, ":", "/", 1)
		blob, there := files[name]
		if !there || digest(blob) != d.Digest || len(blob) != d.Size {
			t.Fatalf("%s is missing or another", d.Digest)
		}
		seen[name] = true
		switch d.MediaType {
		case typeIndex:
			for _, m := range decode[index](t, blob).Manifests {
				follow(m)
			}
		case typeManifest:
			m := decode[manifest](t, blob)
			follow(m.Config)
			follow(m.Layers[0])
			platforms = append(platforms, d.Platform.OS+"/"+d.Platform.Architecture)
		}
	}
	for _, d := range decode[index](t, files["index.json"]).Manifests {
		follow(d)
	}
	if len(seen) != len(files) {
		t.Errorf("%d files are there and %d are spoken of", len(files), len(seen))
	}
	return platforms
}

func decode[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEveryDescriptorLeadsToItsBlob(t *testing.T) {
	if got := walk(t, read(t, made(t, "amd64"))); !slices.Equal(got, []string{"linux/amd64"}) {
		t.Errorf("one image: %v", got)
	}
	files := read(t, made(t, "amd64", "arm64"))
	if got := walk(t, files); !slices.Equal(got, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("two images: %v", got)
	}
	if top := decode[index](t, files["index.json"]).Manifests; len(top) != 1 || top[0].Annotations["org.opencontainers.image.ref.name"] != "v1.2.3" {
		t.Errorf("the tag names %d things: %v", len(top), top)
	}
}

func TestTheSameProgramsGiveTheSameImage(t *testing.T) {
	if !bytes.Equal(made(t, "amd64", "arm64"), made(t, "amd64", "arm64")) {
		t.Error("two archives differ")
	}
}

func TestWhatCannotBeBuiltIsRefused(t *testing.T) {
	output := filepath.Join(t.TempDir(), "image.tar")
	for what, programs := range map[string][]string{"no program": nil, "no architecture": {"/bin/sh"}, "no such file": {"amd64=/nonexistent"}} {
		if err := build(recipe{version: "v1", authorities: "/dev/null", licences: "/dev/null"}, programs, output); err == nil {
			t.Errorf("%s: no complaint", what)
		}
		if _, err := os.Stat(output); err == nil {
			t.Errorf("%s: an image was written", what)
		}
	}
}
