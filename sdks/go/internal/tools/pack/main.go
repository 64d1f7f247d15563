// Command pack writes the module as the zip file that a module proxy hands out: pack FILE VERSION.
package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
)

const module = "github.com/robustmq/mq9/go"

func pack(target, version string) error {
	modFile, err := os.ReadFile("go.mod")
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(modFile, []byte("module "+module+"\n")) || bytes.Contains(modFile, []byte("replace ")) {
		return errors.New("go.mod is not that of a release: it names another module, or replaces one")
	}
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	archive := zip.NewWriter(file)
	err = filepath.WalkDir(".", func(path string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		if !item.Type().IsRegular() || strings.HasPrefix(item.Name(), ".") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		entry, err := archive.Create(module + "@" + version + "/" + filepath.ToSlash(path))
		if err == nil {
			_, err = entry.Write(content)
		}
		return err
	})
	return errors.Join(err, archive.Close(), file.Close())
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: pack FILE VERSION")
	}
	if err := pack(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}
