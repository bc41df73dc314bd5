package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"weir/control/host/testnet"
)

// browserLimit is how long a page may take for anything: a browser beside a data path on two cores is slow.
const browserLimit = 60 * time.Second

// relay makes host:port of a namespace reachable at an address of loopback here, which is returned: a browser runs outside.
func relay(t testing.TB, to *testnet.Space, at string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer here.Close()
				there, err := dial(to, "tcp", at)
				if err != nil {
					return
				}
				defer there.Close()
				go func() {
					_, _ = io.Copy(there, here)
					there.Close()
				}()
				_, _ = io.Copy(here, there)
			}()
		}
	}()
	return l.Addr().String()
}

// browser is a page in headless Chromium.
type browser struct {
	t      testing.TB
	ctx    context.Context
	origin string

	mu      sync.Mutex
	wrong   []string // errors of the console, and exceptions
	foreign []string // requests to others than the origin
}

// browse starts Chromium with an empty profile, or skips the test where there is none. origin is scheme, host and port of what it is to see.
func browse(t testing.TB, origin string) *browser {
	t.Helper()
	needs(t, "chromium")
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(filepath.Join(t.TempDir(), "profile")),
		chromedp.WSURLReadTimeout(browserLimit))
	allocated, endAll := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocated)
	b := &browser{t: t, ctx: ctx, origin: origin}
	t.Cleanup(func() {
		end()
		endAll()
	})
	if err := chromedp.Listen(ctx, b.event); err != nil { // starts it
		t.Skipf("chromium does not start: %v", err)
	}
	b.run(call(network.Enable, network.EnableParams{}), call(log.Enable, cdp.Empty{}), call(runtime.Enable, cdp.Empty{}))
	return b
}

// call is a command of the DevTools protocol whose answer says nothing.
func call[P, R any](c cdp.Command[P, R], p P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, p)
		return err
	})
}

// event notes what should not be.
func (b *browser) event(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, b.origin+"/") {
			b.foreign = append(b.foreign, e.Request.URL)
		}
	case *runtime.EventExceptionThrown:
		what := e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			what += ": " + x.Description // with the stack
		}
		b.wrong = append(b.wrong, what)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			b.wrong = append(b.wrong, fmt.Sprintf("console: %s", e.Args[0].Value))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.wrong = append(b.wrong, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	}
}

// clean fails the test if the console had errors, or another origin was asked, since it was last called.
func (b *browser) clean() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.wrong)+len(b.foreign) > 0 {
		b.t.Errorf("errors: %q\nrequests elsewhere: %q", b.wrong, b.foreign)
	}
	b.wrong, b.foreign = nil, nil
}

// forget forgets errors that were to be expected.
func (b *browser) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong, b.foreign = nil, nil
}

func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("the browser: %v", err)
	}
}

// eval is a JavaScript expression's value.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for a JavaScript expression to be true.
func (b *browser) until(expression string) {
	b.t.Helper()
	for end := time.Now().Add(browserLimit); !eval[bool](b, expression); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("not within %v: %s\nthe page says: %s", browserLimit, expression, eval[string](b, "document.body.innerText"))
		}
	}
}

// open opens the page at path.
func (b *browser) open(path string) { b.run(chromedp.Navigate(b.origin + path)) }

// as makes the window a screen of a size, in a scheme of colours: light or dark. A phone has more pixels than points.
func (b *browser) as(width, height int64, scheme string) {
	b.t.Helper()
	scale := 1.0
	if width < 500 {
		scale = 2
	}
	b.run(call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: scale, Mobile: width < 500}),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}))
}

// shoot writes what the window shows to a PNG file.
func (b *browser) shoot(file string) []byte {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserLimit)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	must(b.t, err)
	must(b.t, os.WriteFile(file, png, 0o644))
	return png
}
