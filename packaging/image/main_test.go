package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// entries are the files of a tar file, by name.
func entries(t *testing.T, r io.Reader) (all map[string][]byte, headers map[string]*tar.Header) {
	t.Helper()
	all, headers = map[string][]byte{}, map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return all, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name], headers[h.Name] = b, h
	}
}

// TestImage follows the image from oci-layout to the files as image-spec says, checking each digest and size, and has skopeo do the same.
func TestImage(t *testing.T) {
	dir := t.TempDir()
	o := options{binary: filepath.Join(dir, "weir"), config: filepath.Join(dir, "weir.yaml"), version: "1.2.3", arch: "amd64", epoch: 1700000000}
	for path, what := range map[string]string{o.binary: strings.Repeat("binary", 1000), o.config: "version: 1\n"} {
		if err := os.WriteFile(path, []byte(what), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image, err := build(o)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := build(o); err != nil || !bytes.Equal(image, again) {
		t.Errorf("another time it is another image (%v)", err)
	}
	all, _ := entries(t, bytes.NewReader(image))
	if got := string(all["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s", got)
	}
	blob := func(d descriptor, mediaType string) []byte {
		t.Helper()
		b := all["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if d.MediaType != mediaType || len(b) != d.Size || "sha256:"+digest(b) != d.Digest {
			t.Fatalf("%+v, want %s; the blob has %d bytes and digest %s", d, mediaType, len(b), digest(b))
		}
		return b
	}
	read := func(b []byte, v any) {
		t.Helper()
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests []descriptor }
	read(all["index.json"], &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1.2.3" {
		t.Fatalf("index %+v", index)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	read(blob(index.Manifests[0], typeManifest), &manifest)
	var config struct {
		Architecture string
		Config       struct{ Entrypoint, Cmd []string }
		Rootfs       struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	read(blob(manifest.Config, typeConfig), &config)
	if config.Architecture != "amd64" || strings.Join(config.Config.Entrypoint, " ") != "/usr/bin/weir" || strings.Join(config.Config.Cmd, " ") != "run -c /etc/weir/weir.yaml" {
		t.Errorf("config %+v", config)
	}
	if len(manifest.Layers) != 1 || len(config.Rootfs.DiffIDs) != 1 {
		t.Fatalf("%d layers, %d diff IDs", len(manifest.Layers), len(config.Rootfs.DiffIDs))
	}
	z, err := gzip.NewReader(bytes.NewReader(blob(manifest.Layers[0], typeLayer)))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil || "sha256:"+digest(layer) != config.Rootfs.DiffIDs[0] {
		t.Errorf("diff ID %s, layer %s (%v)", config.Rootfs.DiffIDs[0], digest(layer), err)
	}
	files, headers := entries(t, bytes.NewReader(layer))
	if len(files["usr/bin/weir"]) != 6000 || headers["usr/bin/weir"].Mode != 0o755 || string(files["etc/weir/weir.yaml"]) != "version: 1\n" {
		t.Errorf("files %v", headers)
	}
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip(err)
	}
	tarball := filepath.Join(dir, "image.tar")
	if err := write(tarball, o); err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(path, "copy", "--insecure-policy", "oci-archive:"+tarball+":1.2.3", "dir:"+filepath.Join(dir, "copy")).CombinedOutput()
	if err != nil {
		t.Errorf("skopeo copy: %v\n%s", err, said)
	}
}

// TestNoBinary: what is not there is named.
func TestNoBinary(t *testing.T) {
	_, err := build(options{binary: filepath.Join(t.TempDir(), "none")})
	if err == nil || !strings.Contains(err.Error(), "none") {
		t.Error(err)
	}
}
