package control

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

type object = map[string]any

// TestOpenAPI holds the description to the operations, and those to the routes that there are.
func TestOpenAPI(t *testing.T) {
	b, err := json.MarshalIndent(described(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	if *update {
		if err := os.WriteFile("openapi.json", b, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(b, openAPI) {
		t.Error("openapi.json is not what the types and operations say: go test ./control -run OpenAPI -update")
	}
	bed := newAPIBed(t, web("10 1", "11 1"))
	var have, told []string
	have = append(have, bed.control.handler().(*routes).patterns...)
	for _, o := range operations {
		told = append(told, o.pattern)
	}
	slices.Sort(have)
	slices.Sort(told)
	for _, p := range have {
		if !slices.Contains(told, p) {
			t.Errorf("%s is described nowhere", p)
		}
	}
	for _, p := range told {
		if !slices.Contains(have, p) {
			t.Errorf("%s is described, but is no route", p)
		}
	}
}

// TestOpenAPIAnswers has a core that runs answer every operation, and an independent validator judge what it says.
func TestOpenAPIAnswers(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	b := newAPIBed(t, web("10 2", "11 1")+strings.TrimPrefix(segment(usual), "  []\n"))
	for range 4 {
		b.connect()
	}
	judge := func(o operation, status int, text string) {
		method, path, _ := strings.Cut(o.pattern, " ")
		at := fmt.Sprintf("openapi.json#/paths/%s/%s/responses/%d/content/application~1json/schema", escape.Replace(path), strings.ToLower(method), status)
		s, err := c.Compile(at)
		if err != nil {
			t.Errorf("%s: %v", o.pattern, err)
			return
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err == nil {
			err = s.Validate(v)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", o.pattern, err, text)
		}
	}
	asked := 0
	for _, o := range operations {
		if o.example == "" {
			continue
		}
		method, _, _ := strings.Cut(o.pattern, " ")
		status, text := b.ask(method, o.example, o.send)
		if status != 200 {
			t.Errorf("%s %s: %d %s", method, o.example, status, text)
			continue
		}
		if asked++; o.answer != nil {
			judge(o, 200, text)
		}
		// And how it says no.
		switch path := strings.NewReplacer("{service}", "nobody", "{backend}", "nobody").Replace(strings.TrimPrefix(o.pattern, method+" ")); {
		case strings.Contains(o.pattern, "{service}"):
			if status, text := b.ask(method, path, o.send); status == 404 {
				judge(o, 404, text)
			} else {
				t.Errorf("%s %s: %d %s", method, path, status, text)
			}
		case slices.Contains(o.fails, 400) && o.body != nil:
			if status, text := b.ask(method, path, "x"); status == 400 {
				judge(o, 400, text)
			} else {
				t.Errorf("%s %s: %d %s", method, path, status, text)
			}
		}
	}
	if asked < 25 {
		t.Errorf("%d operations were asked for", asked)
	}
	if status, text := b.ask("GET", "/openapi.json", ""); status != 200 || text != string(openAPI) {
		t.Errorf("GET /openapi.json: %d", status)
	}
}

// described is the whole description.
func described(t *testing.T) object {
	d := &describer{types: object{}, comments: commentsOf(t, ".", "config", "events", filepath.Join("..", "dataplane"))}
	paths := object{}
	for _, o := range operations {
		method, path, _ := strings.Cut(o.pattern, " ")
		op := object{"summary": o.summary, "responses": d.responses(o)}
		parameters := []any{}
		for part := range strings.SplitSeq(path, "/") {
			if name := strings.Trim(part, "{}"); name != part {
				parameters = append(parameters, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}, "description": "by name or identity"})
			}
		}
		for _, p := range o.query {
			parameters = append(parameters, object{"name": p.name, "in": "query", "schema": object{"type": p.kind}, "description": p.what})
		}
		if len(parameters) > 0 {
			op["parameters"] = parameters
		}
		if o.body != nil {
			op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(o.body))}}}
		}
		if method != "GET" {
			op["security"] = []any{object{}, object{"token": []any{}}}
		}
		of, _ := paths[path].(object)
		if of == nil {
			of = object{}
			paths[path] = of
		}
		of[strings.ToLower(method)] = op
	}
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "weir", "version": "1", "description": "The API of a weir daemon, on its unix socket and on admin.http. Over TCP whatever is not GET needs the token."},
		"paths":   paths,
		"components": object{
			"schemas":         d.types,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "what stands in admin.token_file; over TCP only"}},
		},
	}
}

// describer makes schemas of types.
type describer struct {
	types    object
	comments map[string]string // by Type.Field
}

func (d *describer) responses(o operation) object {
	failure := object{"description": "why not", "content": object{"application/json": object{"schema": d.schema(reflect.TypeFor[Failure]())}}}
	all := object{}
	if o.answer == nil {
		all["200"] = object{"description": "text", "content": object{"text/plain": object{"schema": object{"type": "string"}}}}
	} else {
		all["200"] = object{"description": "done", "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(o.answer))}}}
	}
	for _, status := range o.fails {
		all[fmt.Sprint(status)] = failure
	}
	if slices.Contains(o.fails, 422) {
		all["422"] = object{"description": "refused, and why", "content": object{"application/json": object{"schema": object{
			"anyOf": []any{d.schema(reflect.TypeFor[Failure]()), d.schema(reflect.TypeFor[Outcome]())}}}}}
	}
	return all
}

func (d *describer) schema(t reflect.Type) object {
	switch {
	case t.String() == "time.Time":
		return object{"type": "string", "format": "date-time"}
	case t.String() == "events.Fields":
		return object{"type": "object", "additionalProperties": object{"type": "string"}}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return object{"type": "object"}
		}
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.Struct:
		if _, ok := d.types[t.Name()]; !ok {
			s := object{"type": "object", "additionalProperties": false}
			d.types[t.Name()] = s
			properties, required := object{}, []string{}
			d.fields(t, properties, &required)
			s["properties"], s["required"] = properties, required
			if text := d.comments[t.Name()]; text != "" {
				s["description"] = text
			}
		}
		return object{"$ref": "#/components/schemas/" + t.Name()}
	}
	panic(t.String())
}

func (d *describer) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			d.fields(f.Type, properties, required)
			continue
		case !f.IsExported() || name == "-":
			continue
		}
		s := d.schema(f.Type)
		if text := d.comments[t.Name()+"."+f.Name]; text != "" {
			s["description"] = text
		}
		properties[name] = s
		if !strings.HasPrefix(options, "omit") {
			*required = append(*required, name)
		}
	}
}

// commentsOf are the comments of the types in directories, and of their fields.
func commentsOf(t *testing.T, dirs ...string) map[string]string {
	all := map[string]string{}
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				g, ok := n.(*ast.GenDecl)
				if !ok {
					return true
				}
				for _, spec := range g.Specs {
					x, ok := spec.(*ast.TypeSpec)
					if !ok {
						continue
					}
					s, ok := x.Type.(*ast.StructType)
					if !ok {
						continue
					}
					if _, known := all[x.Name.Name]; !known {
						all[x.Name.Name] = oneLine(g.Doc)
					}
					for _, field := range s.Fields.List {
						for _, name := range field.Names {
							key := x.Name.Name + "." + name.Name
							if text := oneLine(field.Comment); text != "" && all[key] == "" {
								all[key] = text
							} else if text := oneLine(field.Doc); text != "" && all[key] == "" {
								all[key] = text
							}
						}
					}
				}
				return true
			})
		}
	}
	return all
}

func oneLine(g *ast.CommentGroup) string {
	if g == nil {
		return ""
	}
	return strings.Join(strings.Fields(g.Text()), " ")
}
