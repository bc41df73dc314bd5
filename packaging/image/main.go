// Command image writes a container image of weir as a tar file in the OCI image layout (image-spec, image-layout.md), which skopeo, podman and docker
// load. It takes no engine and no root, and the same input gives the same bytes.
//
// The image has one layer: the binary, the example configuration, and the directories that it writes to. It wants the host's network and the
// capabilities that docs/install.md lists.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "dist/weir", "static binary")
	flag.StringVar(&o.config, "config", "packaging/weir.yaml", "what is to be /etc/weir/weir.yaml")
	flag.StringVar(&o.version, "version", "", "version, the image's tag")
	flag.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture")
	flag.Int64Var(&o.epoch, "epoch", 0, "time of everything in it, seconds since 1970")
	out := flag.String("o", "dist/weir-image.tar", "where to write it")
	flag.Parse()
	if err := write(*out, o); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

type options struct {
	binary, config, version, arch string
	epoch                         int64
}

func write(path string, o options) error {
	image, err := build(o)
	if err != nil {
		return err
	}
	return os.WriteFile(path, image, 0o644)
}

// Media types of image-spec.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor says what a blob is and which.
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

// build is the whole tar file.
func build(o options) ([]byte, error) {
	when := time.Unix(o.epoch, 0).UTC()
	var files []file
	blob := func(mediaType string, b []byte) descriptor {
		d := digest(b)
		files = append(files, file{name: "blobs/sha256/" + d, mode: 0o644, data: b})
		return descriptor{MediaType: mediaType, Digest: "sha256:" + d, Size: len(b)}
	}
	plain, err := root(o, when)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed) // its header has no time and no name
	if _, err := z.Write(plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	layer := blob(typeLayer, packed.Bytes())
	config := blob(typeConfig, text(map[string]any{
		"created": when.Format(time.RFC3339), "architecture": o.arch, "os": "linux",
		"config": map[string]any{
			"Entrypoint": []string{"/usr/bin/weir"}, "Cmd": []string{"run", "-c", "/etc/weir/weir.yaml"},
			"Env": []string{"PATH=/usr/bin"}, "StopSignal": "SIGTERM",
			"Labels": map[string]string{"org.opencontainers.image.title": "weir", "org.opencontainers.image.version": o.version},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(plain)}},
		"history": []map[string]any{{"created": when.Format(time.RFC3339), "created_by": "weir packaging/image"}},
	}))
	manifest := blob(typeManifest, text(map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": []descriptor{layer}}))
	manifest.Platform = &platform{o.arch, "linux"}
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": o.version}
	files = append([]file{
		{name: "oci-layout", mode: 0o644, data: text(map[string]string{"imageLayoutVersion": "1.0.0"})},
		{name: "index.json", mode: 0o644, data: text(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{manifest}})},
		{name: "blobs/", mode: 0o755}, {name: "blobs/sha256/", mode: 0o755},
	}, files...)
	var b bytes.Buffer
	err = archive(&b, files, when)
	return b.Bytes(), err
}

// root is the layer: what the container sees.
func root(o options, when time.Time) ([]byte, error) {
	binary, err := os.ReadFile(o.binary)
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile(o.config)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = archive(&b, []file{
		{name: "etc/", mode: 0o755}, {name: "etc/weir/", mode: 0o755}, {name: "etc/weir/weir.yaml", mode: 0o644, data: config},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/usr/bin/weir\nweir:x:901:901:weir:/:/usr/bin/weir\n")}, // for --user weir
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\nweir:x:901:\n")},
		{name: "run/", mode: 0o755}, {name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755}, {name: "usr/bin/", mode: 0o755}, {name: "usr/bin/weir", mode: 0o755, data: binary},
	}, when)
	return b.Bytes(), err
}

// file is one in a tar file; a name that ends with a slash is a directory.
type file struct {
	name string
	mode int64
	data []byte
}

func archive(w io.Writer, files []file, when time.Time) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: when, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if f.name[len(f.name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if _, err := t.Write(f.data); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return t.Close()
}

func text(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps, slices and strings of our own
	}
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
