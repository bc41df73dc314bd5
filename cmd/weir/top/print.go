package top

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

func compare(a, b Cell) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Word, b.Word))
}

// text is a cell on a screen: K, M and G are of a thousand. Characters that could steer a terminal become ?, as names are the operator's.
func (c Column) text(x Cell) string {
	if c.Words {
		return strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return '?'
			}
			return r
		}, x.Word)
	}
	n := x.Number
	if n > 0 && n < 10 && n != float64(int(n)) {
		return fmt.Sprintf("%.1f", n)
	}
	for _, unit := range []string{"", "K", "M", "G"} {
		if n < 10000 {
			return fmt.Sprintf("%.0f%s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.0fT", n)
}

// Print writes all tables one below the other.
func Print(w io.Writer, tables [5]Table) error {
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(w)
		}
		tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		titles := make([]string, len(t.Columns))
		for j, c := range t.Columns {
			titles[j] = c.Title
		}
		fmt.Fprintln(tw, strings.Join(titles, "\t"))
		for _, row := range t.Rows {
			for j, c := range t.Columns {
				titles[j] = c.text(row[j])
			}
			fmt.Fprintln(tw, strings.Join(titles, "\t"))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// JSON writes one object: seconds between the samples, 0 if they have no rates, generation, and a list of objects for each table.
func JSON(w io.Writer, before, now *Sample) error {
	all := map[string]any{"seconds": between(before, now).seconds, "generation": now.Stats.Generation}
	for _, t := range Tables(before, now) {
		rows := []map[string]any{}
		for _, row := range t.Rows {
			object := map[string]any{}
			for j, c := range t.Columns {
				if object[c.Name] = row[j].Number; c.Words {
					object[c.Name] = row[j].Word
				}
			}
			rows = append(rows, object)
		}
		all[t.Name] = rows
	}
	return json.NewEncoder(w).Encode(all)
}
