package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// Length of a token in bytes: shorter ones are guessed.
const (
	minToken = 16
	maxToken = 512
)

// ErrToken is wrapped by LoadToken's error for a file that has no token.
var ErrToken = fmt.Errorf("must be one line of %d to %d printable characters without spaces (`openssl rand -hex 32`)", minToken, maxToken)

// Token is the digest of what allows changes. Digests are compared, so that neither length nor beginning of the token shows in the time.
type Token [sha256.Size]byte

// LoadToken reads a token from the file at path. open says that others than its owner and group can read it, too.
func LoadToken(path string) (t *Token, open bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s: is no regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+3))
	if err != nil {
		return nil, false, err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if n := len(b); n < minToken || n > maxToken || bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, false, fmt.Errorf("%s: %w", path, ErrToken)
	}
	sum := Token(sha256.Sum256(b))
	return &sum, info.Mode().Perm()&0o004 != 0, nil
}

// borne reports whether r bears the token, as RFC 6750 section 2.1 has it.
func (t *Token) borne(r *http.Request) bool {
	scheme, word, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimLeft(word, " ")))
	return ok && strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], t[:]) == 1
}

// errors that requests are refused by
var (
	errReadOnly = errors.New("read-only: admin.token_file is not configured; changes go over the unix socket")
	errNoToken  = errors.New("changes need the token of admin.token_file: Authorization: Bearer TOKEN")
)
