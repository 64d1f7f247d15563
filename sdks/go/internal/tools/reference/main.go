// Command reference writes what the package offers: the list of its public names with their signatures (-api), and its
// reference as a page (-html).
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"html/template"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const importPath = "github.com/robustmq/mq9/go"

type entry struct {
	Name, Code string
	Doc        template.HTML
}

type reference struct {
	files   *token.FileSet
	pkg     *doc.Package
	entries []entry
}

func load(folder string) (*reference, error) {
	r := &reference{files: token.NewFileSet()}
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	var parsed []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(r.files, path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, file)
	}
	r.pkg, err = doc.NewFromFiles(r.files, parsed, importPath)
	return r, err
}

func (r *reference) add(name string, node any, text string) {
	var code bytes.Buffer
	if function, ok := node.(*ast.FuncDecl); ok {
		shown := *function
		shown.Body, shown.Doc = nil, nil
		node = &shown
	}
	config := printer.Config{Mode: printer.UseSpaces | printer.TabIndent, Tabwidth: 4}
	if err := config.Fprint(&code, r.files, node); err != nil {
		log.Fatal(err)
	}
	r.entries = append(r.entries, entry{name, code.String(), template.HTML(r.pkg.HTML(text))})
}

func (r *reference) collect() {
	values := func(groups []*doc.Value) {
		for _, group := range groups {
			r.add(strings.Join(group.Names, ", "), group.Decl, group.Doc)
		}
	}
	functions := func(prefix string, list []*doc.Func) {
		for _, function := range list {
			r.add(prefix+function.Name, function.Decl, function.Doc)
		}
	}
	values(r.pkg.Consts)
	values(r.pkg.Vars)
	functions("", r.pkg.Funcs)
	for _, kind := range r.pkg.Types {
		r.add(kind.Name, kind.Decl, kind.Doc)
		values(kind.Consts)
		values(kind.Vars)
		functions("", kind.Funcs)
		functions(kind.Name+".", kind.Methods)
	}
}

// api is the signatures alone, without comments.
func (r *reference) api() []byte {
	var out strings.Builder
	for _, entry := range r.entries {
		for line := range strings.Lines(entry.Code) {
			trimmed := strings.TrimSpace(line)
			if trimmed != "" && !strings.HasPrefix(trimmed, "//") {
				out.WriteString(strings.TrimRight(line, "\n") + "\n")
			}
		}
	}
	return []byte(out.String())
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>mq9 for Go</title>
<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{background:#f4f4f4;padding:.8rem;overflow:auto}</style>
<h1>package {{.Package}}</h1><pre>import "{{.Path}}"</pre>{{.Doc}}
<ul>{{range .Entries}}<li><a href="#{{.Name}}">{{.Name}}</a></li>{{end}}</ul>
{{range .Entries}}<h2 id="{{.Name}}">{{.Name}}</h2><pre>{{.Code}}</pre>{{.Doc}}
{{end}}</html>
`))

func (r *reference) html() []byte {
	var out bytes.Buffer
	data := map[string]any{
		"Package": r.pkg.Name, "Path": importPath, "Doc": template.HTML(r.pkg.HTML(r.pkg.Doc)),
		"Entries": slices.Clone(r.entries),
	}
	if err := page.Execute(&out, data); err != nil {
		log.Fatal(err)
	}
	return out.Bytes()
}

func main() {
	api := flag.String("api", "", "file for the list of public names")
	html := flag.String("html", "", "file for the reference page")
	check := flag.Bool("check", false, "compare the list instead of writing it")
	flag.Parse()
	r, err := load(".")
	if err != nil {
		log.Fatal(err)
	}
	r.collect()
	if *html != "" {
		if err := os.WriteFile(*html, r.html(), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	if *api == "" {
		return
	}
	if *check {
		if present, err := os.ReadFile(*api); err != nil || !bytes.Equal(present, r.api()) {
			fmt.Fprintf(os.Stderr, "%s is not the public API as it stands: run make api and look at the difference\n", *api)
			os.Exit(1)
		}
		return
	}
	if err := os.WriteFile(*api, r.api(), 0o644); err != nil {
		log.Fatal(err)
	}
}
