package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// Media types of the OCI Image Format Specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type imageConfig struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       runConfig `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
	History      []history `json:"history"`
}

// runConfig is how a container of the image runs.
type runConfig struct {
	User         string              `json:"User"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts"`
	Env          []string            `json:"Env"`
	Entrypoint   []string            `json:"Entrypoint"`
	Cmd          []string            `json:"Cmd"`
	Volumes      map[string]struct{} `json:"Volumes"`
	WorkingDir   string              `json:"WorkingDir"`
	Labels       map[string]string   `json:"Labels"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// layout is an image layout under construction: blobs under their digests.
type layout struct {
	created time.Time
	blobs   map[string][]byte
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (l *layout) add(mediaType string, data []byte) descriptor {
	name := digest(data)
	l.blobs[name] = data
	return descriptor{MediaType: mediaType, Digest: name, Size: len(data)}
}

func (l *layout) addJSON(mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return l.add(mediaType, data), nil
}

// addImage adds an image of one layer.
func (l *layout) addImage(config imageConfig, layer []byte) (descriptor, error) {
	configured, err := l.addJSON(typeConfig, config)
	if err != nil {
		return descriptor{}, err
	}
	image, err := l.addJSON(typeManifest, manifest{2, typeManifest, configured, []descriptor{l.add(typeLayer, layer)}})
	image.Platform = &platform{config.Architecture, config.OS}
	return image, err
}

// archive is the layout as one tar file, under a tag. Several images stand in an index of their own, so that the tag still names one thing.
func (l *layout) pack(images []descriptor, tag string) ([]byte, error) {
	top := images[0]
	if len(images) > 1 {
		var err error
		if top, err = l.addJSON(typeIndex, index{2, typeIndex, images}); err != nil {
			return nil, err
		}
	}
	top.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": tag,
		"io.containerd.image.name":          "localhost/latchkey:" + tag, // what engines call it that load the archive
	}
	entry, err := json.Marshal(index{2, typeIndex, []descriptor{top}})
	if err != nil {
		return nil, err
	}
	entries := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": entry}
	for name, data := range l.blobs {
		entries["blobs/"+strings.Replace(name, ":", "/", 1)] = data
	}
	var files []file
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		files = append(files, file{name: name, mode: 0o644, text: entries[name]})
	}
	return archive(files, l.created)
}
