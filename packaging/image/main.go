// Command image writes the container image of the service as an archive of an OCI image layout, which every engine loads. It needs no engine, no
// registry and no privileges; the same programs give the same bytes.
//
//	image -version V -created UNIXTIME -licences FILE -ca FILE -output FILE ARCH=PROGRAM…
//
// Each PROGRAM is a static latchkey for linux on that GOARCH. With more than one, the image is for all of them. OCI Image Format Specification 1.0.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	var r recipe
	var created int64
	flag.StringVar(&r.version, "version", "", "version of the program, the image's tag")
	flag.Int64Var(&created, "created", 0, "time of all files, in seconds since 1970")
	flag.StringVar(&r.licences, "licences", "", "file with the licences of what is linked in")
	flag.StringVar(&r.authorities, "ca", "/etc/ssl/certs/ca-certificates.crt", "PEM file of the authorities that the service trusts when it calls others")
	output := flag.String("output", "", "archive to write")
	flag.Parse()
	r.created = time.Unix(created, 0).UTC()
	if err := build(r, flag.Args(), *output); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func build(r recipe, programs []string, output string) error {
	if r.version == "" || output == "" || len(programs) == 0 {
		return errors.New("name -version, -output and at least one ARCH=PROGRAM")
	}
	l := layout{created: r.created, blobs: map[string][]byte{}}
	var images []descriptor
	for _, p := range programs {
		arch, path, ok := strings.Cut(p, "=")
		if !ok {
			return fmt.Errorf("%q is not ARCH=PROGRAM", p)
		}
		image, err := r.image(&l, arch, path)
		if err != nil {
			return err
		}
		images = append(images, image)
	}
	archive, err := l.pack(images, r.version)
	if err != nil {
		return err
	}
	return os.WriteFile(output, archive, 0o644)
}
