package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// toFace stands in place of a proof where a row is about what is not there yet.
const toFace = "belongs to Glance's own face"

// elsewhere are the faults that are not this engine's.
var elsewhere = map[int]string{24: toFace}

// halfElsewhere are the faults that are this engine's except over HTTP.
var halfElsewhere = []int{7, 11, 20}

// methodsOfGlance and optionsOfGlance must each have a row.
var (
	methodsOfGlance = map[string][]string{
		"The engine": strings.Fields(`init_driver configure_driver is_cached is_queued get_cache_size get_hit_count
			get_cached_images delete_cached_image delete_all_cached_images delete_queued_image delete_all_queued_images
			prune clean queue_image get_queued_images get_caching_iter cache_tee_iter cache_image_iter cache_image_file
			open_for_read get_image_size`),
		"The driver contract": strings.Fields(`configure set_paths get_cache_size get_hit_count get_cached_images
			get_cached_nodes is_cached is_being_cached is_cacheable is_queued queue_image get_queued_images
			delete_queued_image delete_all_queued_images delete_cached_image delete_all_cached_images clean
			get_least_recently_accessed open_for_write open_for_read get_image_filepath`),
		"Options": strings.Fields(`image_cache_driver image_cache_dir image_cache_max_size image_cache_stall_time
			image_cache_sqlite_db worker_self_reference_url flavor lock_path cache_prefetcher_interval`),
	}
	faultsOfGlance = 26
)

// row is one of a table: its cells, and the proof, which is the last one.
type row struct {
	cells []string
	proof string
}

// tables returns the rows of glance-parity.md by the title that they are under.
func tables(t *testing.T) map[string][]row {
	t.Helper()
	byTitle := map[string][]row{}
	title, columns := "", 0
	for line := range strings.Lines(documents(t)["glance-parity.md"]) {
		line = strings.TrimSpace(line)
		if after, ok := strings.CutPrefix(line, "## "); ok {
			title = after
		}
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case columns == 0: // the head
			columns = len(cells)
		case strings.HasPrefix(cells[0], "---"):
		case len(cells) != columns:
			t.Errorf("%s: a row of %d cells in a table of %d: %s", title, len(cells), columns, line)
		default:
			byTitle[title] = append(byTitle[title], row{cells, cells[columns-1]})
		}
	}
	return byTitle
}

// allTests returns the tests of the project, as host/cache.TestHits. The
// directory of the program is called cmd.
func allTests(t *testing.T) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if dir == filepath.Join("cmd", "imgcache-host") {
			dir = "cmd"
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				tests[filepath.ToSlash(dir)+"."+f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// TestParity holds glance-parity.md to its own words: each row has a proof that
// exists or says where it belongs, and nothing of Glance is missing.
func TestParity(t *testing.T) {
	byTitle := tables(t)
	for _, problem := range problems(byTitle, allTests(t)) {
		t.Error(problem)
	}
}

// problems says what is wrong with the tables.
func problems(byTitle map[string][]row, tests map[string]bool) (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	named := regexp.MustCompile("`([\\w/]+\\.Test\\w+)`")
	for title, rows := range byTitle {
		for _, r := range rows {
			proofs := named.FindAllStringSubmatch(r.proof, -1)
			if len(proofs) == 0 && r.proof != toFace {
				add("%s, %s: there is no proof in %q", title, r.cells[0], r.proof)
			}
			for _, m := range proofs {
				if !tests[m[1]] {
					add("%s, %s: %s is no test", title, r.cells[0], m[1])
				}
			}
		}
	}
	for title, names := range methodsOfGlance {
		for _, name := range names {
			// The method that a row is about stands before what is said of it.
			about := regexp.MustCompile("`" + name + "[`(]")
			if !slices.ContainsFunc(byTitle[title], func(r row) bool {
				subject, _, _ := strings.Cut(r.cells[0], ":")
				return about.MatchString(subject)
			}) {
				add("%s: %s has no row", title, name)
			}
		}
	}
	return append(list, problemsOfFaults(byTitle["The faults"])...)
}

func problemsOfFaults(rows []row) (list []string) {
	byNumber := map[int]row{}
	for _, r := range rows {
		n, err := strconv.Atoi(r.cells[0])
		if _, twice := byNumber[n]; err != nil || twice {
			list = append(list, fmt.Sprintf("the faults: %q is no new number", r.cells[0]))
		}
		byNumber[n] = r
	}
	for n := 1; n <= faultsOfGlance; n++ {
		r, ok := byNumber[n]
		switch {
		case !ok:
			list = append(list, fmt.Sprintf("fault %d has no row", n))
		case elsewhere[n] != "" && r.proof != elsewhere[n], elsewhere[n] == "" && r.proof == toFace:
			list = append(list, fmt.Sprintf("fault %d: the proof is %q", n, r.proof))
		case slices.Contains(halfElsewhere, n) && !strings.Contains(r.cells[2], "The HTTP half "+toFace):
			list = append(list, fmt.Sprintf("fault %d does not say where its HTTP half belongs", n))
		}
	}
	if len(byNumber) > faultsOfGlance {
		list = append(list, fmt.Sprintf("there are %d faults, want %d", len(byNumber), faultsOfGlance))
	}
	return list
}

// TestParityFindsGaps takes out of the page what must not be missing.
func TestParityFindsGaps(t *testing.T) {
	tests := allTests(t)
	for what, harm := range map[string]func(map[string][]row){
		"a fault":           func(p map[string][]row) { p["The faults"] = p["The faults"][1:] },
		"a method":          func(p map[string][]row) { p["The engine"] = p["The engine"][2:] },
		"an option":         func(p map[string][]row) { p["Options"] = p["Options"][1:] },
		"a proof":           func(p map[string][]row) { p["Options"][0].proof = "" },
		"a test that is":    func(p map[string][]row) { p["Options"][0].proof = "`host/cache.TestOfNothing`" },
		"a fault's own":     func(p map[string][]row) { p["The faults"][0].proof = toFace },
		"the HTTP half":     func(p map[string][]row) { p["The faults"][6].cells[2] = "a delete bars the fill" },
		"an unknown number": func(p map[string][]row) { p["The faults"][3].cells[0] = "4a" },
	} {
		page := tables(t)
		harm(page)
		if len(problems(page, tests)) == 0 {
			t.Errorf("%s may be missing", what)
		}
	}
}
