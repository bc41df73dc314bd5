package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
)

// askHTTP makes a request over a connection of its own, in HTTP/1.1, without redirects, cookies, compression or the environment's proxies:
// what the server answers is what counts, not where it would send a browser. http.Transport would keep goroutines for it, and write to the log what it does not
// understand.
func askHTTP(ctx context.Context, c *Check) error {
	conn, err := dial(ctx, "tcp", c)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	if c.Kind == HTTPS {
		if conn, err = encrypted(ctx, conn, c); err != nil {
			return plain("tls", err)
		}
	}
	u, err := url.ParseRequestURI(c.URI)
	if err != nil {
		return err
	}
	host := c.Host
	if host == "" {
		host = c.Target.String()
	}
	r := &http.Request{Method: c.Method, URL: u, Host: host, Header: http.Header{"User-Agent": {"weir-health"}}, Close: true}
	if c.Authorization != "" {
		r.Header.Set("Authorization", c.Authorization)
	}
	if err := r.Write(conn); err != nil {
		return plain("http: request", err)
	}
	from := bufio.NewReader(io.LimitReader(conn, 2*maxAnswer))
	answer, err := http.ReadResponse(from, r)
	for err == nil && answer.StatusCode/100 == 1 { // 103 and the like come before the answer (RFC 9110 section 15.2)
		answer, err = http.ReadResponse(from, r)
	}
	if err != nil {
		return plain("http", err)
	}
	if !c.Status.Has(answer.StatusCode) {
		return fmt.Errorf("http: status %d", answer.StatusCode)
	}
	if c.Expect == "" && c.ExpectRegex == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if missing := c.missing(body); missing == nil || err == nil {
		return missing
	}
	return plain("http: body", err)
}

// encrypted is conn after a TLS handshake. Unless it is to be verified any certificate will do: a check asks whether the server serves.
func encrypted(ctx context.Context, conn net.Conn, c *Check) (net.Conn, error) {
	t := &tls.Config{ServerName: c.SNI, InsecureSkipVerify: !c.Verify}
	if c.SNI == "" && c.Verify {
		t.ServerName = c.Target.Addr().String() // it is no name, so it is not sent
	}
	if c.Authorities != "" {
		pem, err := os.ReadFile(c.Authorities)
		if err != nil {
			return nil, err
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("no certificate in " + c.Authorities)
		}
	}
	secure := tls.Client(conn, t)
	return secure, secure.HandshakeContext(ctx)
}
