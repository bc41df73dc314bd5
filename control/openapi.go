package control

import (
	_ "embed"
	"net/http"
)

// openAPI describes the API in OpenAPI 3.1. It is made of the views' types and their comments (go test ./control -run OpenAPI -update), and a test
// holds it to the routes that there are and to what they answer.
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the client went away
}
